#!/usr/bin/env python
"""Make files of LVIS v0.5 that have COCO's 80 classes alone, to score COCO's classes by LVIS's rules.

Reads lvis/lvis_v0.5_{train,val}.json, and writes lvis/lvis_v0.5_{train,val}_cocofied.json beside them.
Category ids are COCO's there. An annotation, and a label of an image, of any other class is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from detectron2.utils.file_io import atomic_write
from detectron2.utils.user_errors import UserValueError, exit_on_user_error

SPLITS = ("lvis_v0.5_train", "lvis_v0.5_val")
_IMAGE_LABELS = ("not_exhaustive_category_ids", "neg_category_ids")

# Where the WordNet synset that LVIS gives a class of COCO is not simply "<name>.n.01".
_OTHER_SYNSETS = {
    "fire hydrant": "fireplug.n.01",
    "cow": "beef.n.01",
    "handbag": "bag.n.04",
    "tie": "necktie.n.01",
    "suitcase": "bag.n.06",
    "skis": "ski.n.01",
    "sports ball": "ball.n.06",
    "kite": "kite.n.03",
    "wine glass": "wineglass.n.01",
    "bowl": "bowl.n.03",
    "banana": "banana.n.02",
    "hot dog": "frank.n.02",
    "donut": "doughnut.n.02",
    "cake": "cake.n.03",
    "couch": "sofa.n.01",
    "potted plant": "pot.n.04",
    "toilet": "toilet.n.02",
    "tv": "television_receiver.n.01",
    "mouse": "mouse.n.04",
    "remote": "remote_control.n.01",
    "keyboard": "computer_keyboard.n.01",
    "cell phone": "cellular_telephone.n.01",
    "microwave": "microwave.n.02",
    "toaster": "toaster.n.02",
    "refrigerator": "electric_refrigerator.n.01",
    "teddy bear": "teddy.n.01",
    "hair drier": "hand_blower.n.01",
}


def coco_id_of_synset() -> dict[str, int]:
    """WordNet synset -> category id of COCO, for its 80 classes of things."""
    return {
        _OTHER_SYNSETS.get(category["name"], f"{category['name'].replace(' ', '_')}.n.01"): category["id"]
        for category in COCO_CATEGORIES
        if category["isthing"]
    }


def keep_coco_classes(content: dict[str, Any]) -> dict[str, Any]:
    """Reduce the content of an LVIS file to COCO's classes.

    Args:
        content: of the file; it is left as it is.

    Returns:
        A new content: category ids are COCO's, annotations are numbered anew, and categories are those that
        an annotation or a label of an image has.
    """
    known = coco_id_of_synset()
    new_id = {c["id"]: known[c["synset"]] for c in content["categories"] if c["synset"] in known}
    kept = (a for a in content["annotations"] if a["category_id"] in new_id)
    annotations = [
        {**annotation, "category_id": new_id[annotation["category_id"]], "id": number}
        for number, annotation in enumerate(kept, start=1)
    ]
    images = [
        {**image, **{key: [new_id[i] for i in image[key] if i in new_id] for key in _IMAGE_LABELS}}
        for image in content["images"]
    ]
    used = {annotation["category_id"] for annotation in annotations}
    used.update(i for image in images for key in _IMAGE_LABELS for i in image[key])
    categories = [
        {**category, "id": new_id[category["id"]]}
        for category in content["categories"]
        if new_id.get(category["id"]) in used
    ]
    return {**content, "images": images, "annotations": annotations, "categories": categories}


def cocofy_lvis(input_filename: str | os.PathLike[str], output_filename: str | os.PathLike[str]) -> None:
    """Write a file of LVIS with COCO's classes alone.

    Args:
        input_filename: a file of LVIS v0.5.
        output_filename: the file to write.

    Raises:
        ValueError: the categories have no `synset`, as those of other formats.
    """
    content = json.loads(Path(input_filename).read_text(encoding="utf-8"))
    if not all("synset" in category for category in content["categories"]):
        raise UserValueError(
            f"Categories of {os.fspath(input_filename)!r} have no 'synset', by which COCO's are found: it is "
            "no file of LVIS"
        )
    reduced = keep_coco_classes(content)
    with atomic_write(Path(output_filename)) as file:
        file.write(json.dumps(reduced).encode())
    num_categories, num_annotations = len(reduced["categories"]), len(reduced["annotations"])
    print(f"{output_filename}: {num_categories} categories, {num_annotations} annotations")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    parser.add_argument("--root", type=Path, default=root, help="folder that has lvis/ (%(default)s)")
    folder = parser.parse_args(arguments).root.expanduser() / "lvis"
    found = [split for split in SPLITS if (folder / f"{split}.json").is_file()]
    if not found:
        print(
            f"error: there is no {folder / SPLITS[0]}.json. Set --root, or DETECTRON2_DATASETS, to the "
            "folder that has lvis/; datasets/README.md shows what lies in it.",
            file=sys.stderr,
        )
        return 1
    for split in found:
        cocofy_lvis(folder / f"{split}.json", folder / f"{split}_cocofied.json")
    return 0


if __name__ == "__main__":
    with exit_on_user_error():
        sys.exit(main())
