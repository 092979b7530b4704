"""A data set under the names and in the folders of COCO 2017, small enough to be drawn while one waits.

Its pictures are scenes of the embedded shapes. Each shape stands for one of COCO's things, each texture for
one of its stuff, and a disc for a person with key points: the scores mean nothing, the files are read as the
real ones are.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from detectron2.data.datasets.shapes import write_shapes

_IMAGE_SIZE = (96, 128)
_NUM_KEYPOINTS = 17


def write_small_coco(root: Path, num_images: int = 4) -> None:
    """Write instances, key points and panoptic annotations of both splits below `root`/coco."""
    for split, name in (("train", "train2017"), ("val", "val2017")):
        write_shapes(split, num_images, root=root, image_size=_IMAGE_SIZE)
        shapes, coco = root / "shapes", root / "coco"
        shutil.copytree(shapes / split, coco / name, dirs_exist_ok=True)
        shutil.copytree(shapes / f"panoptic_{split}", coco / f"panoptic_{name}", dirs_exist_ok=True)
        folder = coco / "annotations"
        folder.mkdir(exist_ok=True)
        instances = json.loads((shapes / "annotations" / f"instances_{split}.json").read_text())
        panoptic = json.loads((shapes / "annotations" / f"panoptic_{split}.json").read_text())
        ids = _map_categories(panoptic["categories"])
        things = [_as_coco(record, ids) for record in instances["annotations"]]
        categories = [{key: value for key, value in c.items() if key != "color"} for c in COCO_CATEGORIES]
        _write(
            folder / f"instances_{name}.json",
            {**instances, "annotations": things, "categories": [c for c in categories if c["isthing"]]},
        )
        people = [_with_keypoints(record) for record in things if record["category_id"] == 1]
        _write(
            folder / f"person_keypoints_{name}.json",
            {**instances, "annotations": people, "categories": [_PERSON]},
        )
        for annotation in panoptic["annotations"]:
            for segment in annotation["segments_info"]:
                segment["category_id"] = ids[segment["category_id"]]
        _write(folder / f"panoptic_{name}.json", {**panoptic, "categories": COCO_CATEGORIES})


_PERSON = {
    "id": 1,
    "name": "person",
    "supercategory": "person",
    "keypoints": [str(index) for index in range(_NUM_KEYPOINTS)],
    "skeleton": [],
}


def _map_categories(shapes: list[dict[str, Any]]) -> dict[int, int]:
    """Category id of the shapes -> one of COCO of the same kind."""
    mapped: dict[int, int] = {}
    for isthing in (0, 1):
        free = (category["id"] for category in COCO_CATEGORIES if category["isthing"] == isthing)
        mapped |= {shape["id"]: next(free) for shape in shapes if shape["isthing"] == isthing}
    return mapped


def _as_coco(record: dict[str, Any], ids: dict[int, int]) -> dict[str, Any]:
    """The annotation with the outline of its box, as most configs expect polygons."""
    x, y, width, height = record["bbox"]
    outline = [x, y, x + width, y, x + width, y + height, x, y + height]
    changed: dict[str, Any] = {"category_id": ids[record["category_id"]]}
    if not record["iscrowd"]:
        changed["segmentation"] = [outline]
    return {**record, **changed}


def _with_keypoints(record: dict[str, Any]) -> dict[str, Any]:
    """The annotation with key points along the diagonal of its box."""
    x, y, width, height = record["bbox"]
    steps = [(index + 0.5) / _NUM_KEYPOINTS for index in range(_NUM_KEYPOINTS)]
    keypoints = [value for t in steps for value in (x + t * width, y + t * height, 2)]
    return {**record, "keypoints": keypoints, "num_keypoints": _NUM_KEYPOINTS}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
