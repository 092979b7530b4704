"""Names, ids and colours of the categories of COCO, Cityscapes and ADE20K, and the skeleton of COCO persons.

A category is written as `id name colour`, the colour as hexadecimal RGB; categories are separated by
semicolons.
"""

from __future__ import annotations

from typing import Any

from detectron2.utils.palette import distinct_colors
from detectron2.utils.user_errors import UserKeyError


def _parse_categories(table: str, isthing: int) -> list[dict[str, Any]]:
    categories = []
    for entry in table.split(";"):
        number, name_and_color = entry.strip().split(maxsplit=1)
        name, color = name_and_color.rsplit(maxsplit=1)
        categories.append(
            {"id": int(number), "name": name, "color": [*bytes.fromhex(color)], "isthing": isthing}
        )
    return categories


_COCO_THINGS = """\
1 person dc143c; 2 bicycle 770b20; 3 car 00008e; 4 motorcycle 0000e6; 5 airplane 6a00e4; 6 bus 003c64;
7 train 005064; 8 truck 000046; 9 boat 0000c0; 10 traffic light faaa1e; 11 fire hydrant 64aa1e;
13 stop sign dcdc00; 14 parking meter af74af; 15 bench fa001e; 16 bird a52a2a; 17 cat ff4dff; 18 dog 00e2fc;
19 horse b6b6ff; 20 sheep 005200; 21 cow 78a69d; 22 elephant 6e4c00; 23 bear ae39ff; 24 zebra c76400;
25 giraffe 480076; 27 backpack ffb3f0; 28 umbrella 007d5c; 31 handbag d10097; 32 tie bcd0b6;
33 suitcase 00dcb0; 34 frisbee ff63a4; 35 skis 5c0049; 36 snowboard 8581ff; 37 sports ball 4eb4ff;
38 kite 00e400; 39 baseball bat aefff3; 40 baseball glove 2d59ff; 41 skateboard 868667; 42 surfboard 9194ae;
43 tennis racket ffd0ba; 44 bottle c5e2ff; 46 wine glass ab8601; 47 cup 6d3f36; 48 fork cf8aff;
49 knife 97005f; 50 spoon 09503d; 51 bowl 546933; 52 banana 4a4169; 53 apple a6c466; 54 sandwich d0c3d2;
55 orange ff6d41; 56 broccoli 008f95; 57 carrot b300c2; 58 hot dog d1636a; 59 pizza 057900; 60 donut e3ffcd;
61 cake 93bad0; 62 chair 994501; 63 couch 035fa1; 64 potted plant a3ff00; 65 bed 7700aa;
67 dining table 00b6c7; 70 toilet 00a578; 72 tv b78258; 73 laptop 5f2000; 74 mouse 827287; 75 remote 6e8185;
76 keyboard a64a76; 77 cell phone db8eb9; 78 microwave 4fd272; 79 oven b25a3e; 80 toaster 41460f;
81 sink 7fa773; 82 refrigerator 3b696a; 84 book 8e6c2d; 85 clock c4ac00; 86 vase 5f3650; 87 scissors 804cff;
88 teddy bear c93901; 89 hair drier f6007a; 90 toothbrush bfa2d0"""

_COCO_STUFF = """\
92 banner ffff80; 93 blanket 93d3cb; 95 bridge 966464; 100 cardboard a8abac; 107 counter 9270c6;
109 curtain d2aa64; 112 door-stuff 5c8859; 118 floor-wood da58b8; 119 flower f18100; 122 fruit d911ff;
125 gravel 7c4ab5; 128 house 464646; 130 light ffe4ff; 133 mirror-stuff 9ad000; 138 net c1005c;
141 pillow 4c5b71; 144 platform ffb4c3; 145 playingfield 6a9ab0; 147 railroad e6968c; 148 river 3c8fff;
149 road 804080; 151 roof 5c5237; 154 sand fed47c; 155 sea 494dae; 156 shelf ffa062; 159 snow ffffff;
161 stairs 68546d; 166 tent a9a483; 168 towel e1c7ff; 171 wall-brick 89364a; 175 wall-stone 879edf;
176 wall-tile 07f6e7; 177 wall-wood 6bffc8; 178 water-other 3a2995; 180 window-blind b7798e;
181 window-other ff4961; 184 tree-merged 6b8e23; 185 fence-merged be9999; 186 ceiling-merged 928b8d;
187 sky-other-merged 4682b4; 188 cabinet-merged 86c79c; 189 table-merged d1e28c;
190 floor-other-merged 60246c; 191 pavement-merged 606060; 192 mountain-merged 40aa40;
193 grass-merged 98fb98; 194 dirt-merged d0e5e4; 195 paper-merged cebaab; 196 food-other-merged 98a140;
197 building-other-merged 747000; 198 rock-merged 00728f; 199 wall-other-merged 66669c;
200 rug-merged fa8dff"""

_CITYSCAPES_STUFF = """\
7 road 804080; 8 sidewalk f423e8; 11 building 464646; 12 wall 66669c; 13 fence be9999; 17 pole 999999;
19 traffic light faaa1e; 20 traffic sign dcdc00; 21 vegetation 6b8e23; 22 terrain 98fb98; 23 sky 4682b4"""

_CITYSCAPES_THINGS = """\
24 person dc143c; 25 rider ff0000; 26 car 00008e; 27 truck 000046; 28 bus 003c64; 31 train 005064;
32 motorcycle 0000e6; 33 bicycle 770b20"""

COCO_CATEGORIES = _parse_categories(_COCO_THINGS, 1) + _parse_categories(_COCO_STUFF, 0)
"""The 133 categories of COCO panoptic: 80 things, then 53 stuff."""

CITYSCAPES_CATEGORIES = [
    {**category, "trainId": train_id}
    for train_id, category in enumerate(
        _parse_categories(_CITYSCAPES_STUFF, 0) + _parse_categories(_CITYSCAPES_THINGS, 1)
    )
]
"""The 19 categories of Cityscapes that are evaluated, in the order of their training ids."""

_ADE20K_NAMES = """\
wall; building; sky; floor; tree; ceiling; road, route; bed; window; grass; cabinet; sidewalk, pavement;
person; earth, ground; door; table; mountain, mount; plant; curtain; chair; car; water; painting, picture;
sofa; shelf; house; sea; mirror; rug; field; armchair; seat; fence; desk; rock, stone;
wardrobe, closet, press; lamp; tub; rail; cushion; base, pedestal, stand; box; column, pillar;
signboard, sign; chest of drawers, chest, bureau, dresser; counter; sand; sink; skyscraper; fireplace;
refrigerator, icebox; grandstand, covered stand; path; stairs; runway;
case, display case, showcase, vitrine; pool table, billiard table, snooker table; pillow;
screen door, screen; stairway, staircase; river; bridge, span; bookcase; blind, screen; coffee table;
toilet, can, commode, crapper, pot, potty, stool, throne; flower; book; hill; bench; countertop; stove;
palm, palm tree; kitchen island; computer; swivel chair; boat; bar; arcade machine;
hovel, hut, hutch, shack, shanty; bus; towel; light; truck; tower; chandelier; awning, sunshade, sunblind;
street lamp; booth; tv; plane; dirt track; clothes; pole; land, ground, soil;
bannister, banister, balustrade, balusters, handrail; escalator, moving staircase, moving stairway;
ottoman, pouf, pouffe, puff, hassock; bottle; buffet, counter, sideboard;
poster, posting, placard, notice, bill, card; stage; van; ship; fountain;
conveyer belt, conveyor belt, conveyer, conveyor, transporter; canopy;
washer, automatic washer, washing machine; plaything, toy; pool; stool; barrel, cask; basket, handbasket;
falls; tent; bag; minibike, motorbike; cradle; oven; ball; food, solid food; step, stair;
tank, storage tank; trade name; microwave; pot; animal; bicycle; lake; dishwasher; screen; blanket, cover;
sculpture; hood, exhaust hood; sconce; vase; traffic light; tray; trash can; fan; pier; crt screen; plate;
monitor; bulletin board; shower; radiator; glass, drinking glass; clock; flag"""

# "window " is published with its blank.
ADE20K_SEM_SEG_CATEGORIES = [
    "window " if name == "window" else name for name in _ADE20K_NAMES.replace("\n", " ").split("; ")
]
"""The 150 classes of ADE20K's scene parsing benchmark."""

_PAIRED_POINTS = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")

COCO_PERSON_KEYPOINT_NAMES = (
    "nose",
    *(f"{side}_{point}" for point in _PAIRED_POINTS for side in ("left", "right")),
)

COCO_PERSON_KEYPOINT_FLIP_MAP = tuple((f"left_{point}", f"right_{point}") for point in _PAIRED_POINTS)

# The lines of the skeleton: two points and the colour of the line between them, as hexadecimal RGB.
_SKELETON = """\
left_ear left_eye 66ccff; right_ear right_eye 3399ff; left_eye nose 6600cc; nose right_eye 3366ff;
left_shoulder right_shoulder ff8000; left_shoulder left_elbow 99ffcc; right_shoulder right_elbow 80e5ff;
left_elbow left_wrist 99ff99; right_elbow right_wrist 66ffe0; left_hip right_hip ff6600; left_hip left_knee
ffff4d; right_hip right_knee 99ffcc; left_knee left_ankle bfff80; right_knee right_ankle ffc34d"""

KEYPOINT_CONNECTION_RULES = [
    (first, second, tuple(bytes.fromhex(color)))
    for first, second, color in (line.split() for line in _SKELETON.split(";"))
]


_COLOR_OF_THINGS = [82, 18, 128]


def _number(
    categories: list[dict[str, Any]], first: int = 0
) -> tuple[list[str], list[list[int]], dict[int, int]]:
    """Names, colours, and dataset id -> contiguous id of categories that are numbered in order."""
    names = [category["name"] for category in categories]
    colors = [category["color"] for category in categories]
    return names, colors, {category["id"]: first + i for i, category in enumerate(categories)}


def _coco_instances_meta() -> dict[str, Any]:
    names, colors, ids = _number([c for c in COCO_CATEGORIES if c["isthing"]])
    return {"thing_classes": names, "thing_colors": colors, "thing_dataset_id_to_contiguous_id": ids}


def _coco_person_meta() -> dict[str, Any]:
    skeleton = {
        "keypoint_names": COCO_PERSON_KEYPOINT_NAMES,
        "keypoint_flip_map": COCO_PERSON_KEYPOINT_FLIP_MAP,
    }
    return {"thing_classes": ["person"], "keypoint_connection_rules": KEYPOINT_CONNECTION_RULES, **skeleton}


def _with_colors(categories: list[dict[str, Any]]) -> list[dict[str, Any]]:
    given = [category["color"] for category in categories if category.get("color") is not None]
    fresh = iter(distinct_colors(len(categories) - len(given), taken=[_COLOR_OF_THINGS, *given]))
    return [
        category if category.get("color") is not None else {**category, "color": [*next(fresh)]}
        for category in categories
    ]


def separated_panoptic_meta(categories: list[dict[str, Any]]) -> dict[str, Any]:
    """Metadata where things and stuff are numbered apart, as Panoptic FPN learns them.

    Stuff label 0 is called "things" and stands for every thing; stuff classes follow from 1.

    Args:
        categories: dicts with `id`, `name`, `isthing`, and optionally `color`, 8-bit RGB. Those without get
            colours that differ from each other and from the given ones.
    """
    colored = _with_colors(categories)
    things, thing_colors, thing_ids = _number([c for c in colored if c["isthing"]])
    stuff, stuff_colors, stuff_ids = _number([c for c in colored if not c["isthing"]], first=1)
    # The label of all things needs a dataset id that no category has, so that the map can be turned round.
    id_of_things = 0 if all(category["id"] != 0 for category in categories) else -1
    return {
        "thing_classes": things,
        "thing_colors": thing_colors,
        "thing_dataset_id_to_contiguous_id": thing_ids,
        "stuff_classes": ["things", *stuff],
        "stuff_colors": [_COLOR_OF_THINGS, *stuff_colors],
        "stuff_dataset_id_to_contiguous_id": {id_of_things: 0, **stuff_ids},
    }


def standard_panoptic_meta(categories: list[dict[str, Any]]) -> dict[str, Any]:
    """Metadata where things and stuff share one numbering, in the order of the categories.

    Args:
        categories: dicts with `id`, `name`, `isthing`, and optionally `color`, as for
            `separated_panoptic_meta`.
    """
    names, colors, ids = _number(_with_colors(categories))
    is_thing = {category["id"]: bool(category["isthing"]) for category in categories}
    return {
        "thing_classes": names,
        "thing_colors": colors,
        "stuff_classes": names,
        "stuff_colors": colors,
        "thing_dataset_id_to_contiguous_id": {id: i for id, i in ids.items() if is_thing[id]},
        "stuff_dataset_id_to_contiguous_id": {id: i for id, i in ids.items() if not is_thing[id]},
    }


def _cityscapes_meta() -> dict[str, Any]:
    return {
        "thing_classes": [c["name"] for c in CITYSCAPES_CATEGORIES if c["isthing"]],
        "stuff_classes": [c["name"] for c in CITYSCAPES_CATEGORIES],
        "stuff_colors": [c["color"] for c in CITYSCAPES_CATEGORIES],
    }


_META_OF = {
    "coco": _coco_instances_meta,
    "coco_person": _coco_person_meta,
    "coco_panoptic_separated": lambda: separated_panoptic_meta(COCO_CATEGORIES),
    "coco_panoptic_standard": lambda: standard_panoptic_meta(COCO_CATEGORIES),
    "cityscapes": _cityscapes_meta,
}


def get_builtin_metadata(dataset_name: str) -> dict[str, Any]:
    """Metadata that all splits of a built-in data set share."""
    if dataset_name not in _META_OF:
        raise UserKeyError(
            f"No built-in metadata is called {dataset_name!r}; there is: {', '.join(_META_OF)}."
        )
    return _META_OF[dataset_name]()


# The name under which projects import it.
_get_builtin_metadata = get_builtin_metadata
