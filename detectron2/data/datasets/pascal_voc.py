"""PASCAL VOC detection: boxes in one XML file per image.

A folder such as `VOC2007` has `JPEGImages/`, `Annotations/` and `ImageSets/Main/<split>.txt` with one
image id per line.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any
from xml.etree import ElementTree

from detectron2.structures.boxes import BoxMode
from detectron2.utils.file_io import PathManager
from detectron2.utils.user_errors import UserFileNotFoundError, UserKeyError, UserValueError

from ..catalog import DatasetCatalog, MetadataCatalog
from .files import Path

__all__ = ["CLASS_NAMES", "load_voc_instances", "register_pascal_voc"]

CLASS_NAMES = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor".split()
)
"""The 20 classes, in the order of their numbers."""

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def load_voc_instances(dirname: Path, split: str, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Read one split.

    Objects marked as difficult are among the annotations.

    Args:
        dirname: a folder as at the top of this module.
        split: a list in `ImageSets/Main`, such as "trainval".
        class_names: names of the classes 0, 1 ...; an object of another class is an error.

    Returns:
        A dict per image with `file_name`, `image_id` (text), `height`, `width` and `annotations`:
        `category_id`, `bbox` (XYXY, from the image's corner) and `bbox_mode`.
    """
    root = os.fspath(dirname)
    number_of = {name: number for number, name in enumerate(class_names)}
    records = []
    for image_id in _read_split(root, split):
        xml_file = os.path.join(root, "Annotations", f"{image_id}.xml")
        with PathManager.open(xml_file, "rb") as file:
            image = ElementTree.parse(file).getroot()
        try:
            annotations = [_read_object(element, number_of) for element in image.iter("object")]
            width, height = (int(_text(image, f"size/{side}")) for side in ("width", "height"))
        except (KeyError, ValueError) as e:
            raise UserValueError(f"{xml_file!r}: {e.args[0]}") from e
        records.append(
            {
                "file_name": os.path.join(root, "JPEGImages", f"{image_id}.jpg"),
                "image_id": image_id,
                "height": height,
                "width": width,
                "annotations": annotations,
            }
        )
    return records


def _read_split(root: str, split: str) -> list[str]:
    path = os.path.join(root, "ImageSets", "Main", f"{split}.txt")
    if not PathManager.isfile(path):
        raise UserFileNotFoundError(
            f"The image list {path!r} of PASCAL VOC does not exist: it should name one image of split "
            f"{split!r} per line, as its files in JPEGImages and Annotations are called without suffix. "
            f"{_lists_beside(os.path.dirname(path))} Built-in data sets lie below DETECTRON2_DATASETS "
            "(./datasets without it); datasets/README.md shows the folders."
        )
    with PathManager.open(path, "r") as file:
        return [line.split()[0] for line in file if line.strip()]


def _lists_beside(folder: str) -> str:
    """A sentence on which lists there are, or how to make one."""
    found = sorted(PathManager.ls(folder)) if PathManager.isdir(folder) else []
    lists = [name.removesuffix(".txt") for name in found if name.endswith(".txt")]
    if lists:
        return f"There are lists of the splits {', '.join(lists)}."
    return (
        "`mkdir -p ImageSets/Main && ls Annotations | sed 's/.xml$//' > ImageSets/Main/train.txt` makes one."
    )


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise UserValueError(f"a <{element.tag}> lacks <{path}>")
    return text.strip()


def _read_object(element: ElementTree.Element, number_of: dict[str, int]) -> dict[str, Any]:
    name = _text(element, "name")
    if name not in number_of:
        raise UserKeyError(f"the class {name!r} is not among {list(number_of)}")
    left, top, right, bottom = (float(_text(element, f"bndbox/{side}")) for side in _SIDES)
    # The files count pixels from 1 and include the last one.
    box = [left - 1, top - 1, right, bottom]
    return {"category_id": number_of[name], "bbox": box, "bbox_mode": BoxMode.XYXY_ABS}


def register_pascal_voc(
    name: str, dirname: Path, split: str, year: int, class_names: Sequence[str] = CLASS_NAMES
) -> None:
    """Register a split of PASCAL VOC, or of data in its format.

    Args:
        name: how configs call it.
        dirname: its folder.
        split: a list in `ImageSets/Main`.
        year: 2007 scores with that year's 11-point average precision; any other with the area.
        class_names: names of the classes.
    """
    DatasetCatalog.register(name, partial(load_voc_instances, dirname, split, tuple(class_names)))
    MetadataCatalog.get(name).set(
        thing_classes=list(class_names), dirname=dirname, year=year, split=split, evaluator_type="pascal_voc"
    )
