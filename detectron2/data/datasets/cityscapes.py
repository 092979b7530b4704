"""Cityscapes: instances and semantic labels of street scenes.

Images are `<image_dir>/<city>/<id>_leftImg8bit.png`; what belongs to one lies in `<gt_dir>/<city>/` as
`<id>_gtFine_polygons.json`, `_instanceIds.png` and `_labelTrainIds.png`.

Shapes: H x W the image. In an id map (H, W), 0 is background; every other number is one instance.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from detectron2.structures import rle
from detectron2.structures.boxes import BoxMode
from detectron2.utils.file_io import PathManager
from detectron2.utils.user_errors import UserFileNotFoundError

from .builtin_meta import CITYSCAPES_CATEGORIES
from .files import Path, read_json

logger = logging.getLogger(__name__)

__all__ = ["load_cityscapes_instances", "load_cityscapes_semantic"]

_IMAGE_SUFFIX = "_leftImg8bit.png"
_THINGS = [category for category in CITYSCAPES_CATEGORIES if category["isthing"]]
_NUMBER_OF_NAME = {category["name"]: number for number, category in enumerate(_THINGS)}
_NUMBER_OF_ID = {category["id"]: number for number, category in enumerate(_THINGS)}
_INSTANCES_PER_CLASS = 1000  # pixels of instance i of class c hold 1000 c + i; those of a crowd hold c
_MAX_THREADS = 8


@dataclass(frozen=True)
class CityscapesFiles:
    """Where an image and its annotations lie."""

    image: str
    annotations: str
    """Path of what belongs to the image, up to and with "gtFine_"."""


def list_files(image_dir: Path, gt_dir: Path) -> list[CityscapesFiles]:
    """Say where every image and its annotations lie, in the order of `iterate_images`."""
    return [
        CityscapesFiles(
            os.path.join(image_dir, city, name),
            os.path.join(gt_dir, city, name.removesuffix(_IMAGE_SUFFIX) + "_gtFine_"),
        )
        for city, name in iterate_images(image_dir)
    ]


def iterate_images(image_dir: Path) -> Iterator[tuple[str, str]]:
    """City and file name of every image, in order.

    Raises:
        FileNotFoundError: there is none.
    """
    root = os.fspath(image_dir)
    cities = sorted(PathManager.ls(root)) if PathManager.isdir(root) else []
    found = [
        (city, name)
        for city in cities
        if PathManager.isdir(os.path.join(root, city))
        for name in sorted(PathManager.ls(os.path.join(root, city)))
        if name.endswith(_IMAGE_SUFFIX)
    ]
    if not found:
        raise UserFileNotFoundError(
            f"There is no image of Cityscapes, <city>/*{_IMAGE_SUFFIX}, in {root!r}. Built-in data sets lie "
            "below DETECTRON2_DATASETS (./datasets without it); datasets/README.md shows the folders."
        )
    yield from found


def load_cityscapes_instances(
    image_dir: Path, gt_dir: Path, from_json: bool = True, to_polygons: bool = True
) -> list[dict[str, Any]]:
    """Read the instances of the eight classes that are evaluated.

    Of an object that others hide in part, only what is seen counts. Groups are crowds.

    Args:
        image_dir: such as `cityscapes/leftImg8bit/train`.
        gt_dir: such as `cityscapes/gtFine/train`.
        from_json: whether to draw the polygons of the JSON, from back to front; otherwise
            `_instanceIds.png` is read, which is the same but for groups of one class in an image.
        to_polygons: whether `segmentation` is polygons, without holes; otherwise RLE.

    Returns:
        A dict per image with `file_name`, `image_id` (the file's name), `height`, `width` and
        `annotations`: `iscrowd`, `category_id`, `segmentation`, `bbox` (XYXY) and `bbox_mode`.
    """
    files = list_files(image_dir, gt_dir)
    logger.info("Reading the instances of %d images of Cityscapes ...", len(files))
    read = partial(read_instances, from_json=from_json, to_polygons=to_polygons)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_THREADS)) as pool:
        return list(pool.map(read, files))


def read_instances(files: CityscapesFiles, from_json: bool, to_polygons: bool) -> dict[str, Any]:
    """Read the instances of one image; arguments and result as those of `load_cityscapes_instances`."""
    id_map, instances = _draw_json(files) if from_json else _read_id_map(files)
    annotations = []
    for id, (category, is_crowd) in instances.items():
        mask = id_map == id
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):  # nothing of it is seen
            continue
        segmentation = _to_polygons(mask) if to_polygons else rle.encode_one(mask)
        if not segmentation:
            continue
        box = [float(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]
        annotations.append(
            {
                "iscrowd": int(is_crowd),
                "category_id": category,
                "segmentation": segmentation,
                "bbox": box,
                "bbox_mode": BoxMode.XYXY_ABS,
            }
        )
    return {
        "file_name": files.image,
        "image_id": os.path.basename(files.image),
        "height": id_map.shape[0],
        "width": id_map.shape[1],
        "annotations": annotations,
    }


_Instances = dict[int, tuple[int, bool]]
"""Number in the id map -> (category_id, is_crowd)."""


def _draw_json(files: CityscapesFiles) -> tuple[np.ndarray, _Instances]:
    content = read_json(files.annotations + "polygons.json")
    canvas = Image.new("I", (content["imgWidth"], content["imgHeight"]))
    draw = ImageDraw.Draw(canvas)
    instances: _Instances = {}
    for id, shape in enumerate(content["objects"], start=1):
        label = shape["label"]
        # A licence plate is part of its car.
        if shape.get("deleted") or label == "license plate" or len(shape["polygon"]) < 2:
            continue
        category = _NUMBER_OF_NAME.get(label.removesuffix("group"))
        if category is not None:
            instances[id] = (category, label.endswith("group"))
        draw.polygon([tuple(point) for point in shape["polygon"]], fill=id if category is not None else 0)
    return np.asarray(canvas), instances


def _read_id_map(files: CityscapesFiles) -> tuple[np.ndarray, _Instances]:
    with PathManager.open(files.annotations + "instanceIds.png", "rb") as file, Image.open(file) as image:
        id_map = np.asarray(image).astype(np.int32)
    instances = {}
    for id in np.unique(id_map).tolist():
        is_crowd = id < _INSTANCES_PER_CLASS
        category = _NUMBER_OF_ID.get(id if is_crowd else id // _INSTANCES_PER_CLASS)
        if category is not None:
            instances[id] = (category, is_crowd)
    return id_map, instances


def _to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Outlines of the parts of a mask, through the centres of its outer pixels."""
    import cv2  # slow to import

    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [(contour.reshape(-1) + 0.5).tolist() for contour in contours if len(contour) >= 3]


def load_cityscapes_semantic(image_dir: Path, gt_dir: Path) -> list[dict[str, Any]]:
    """List the images with their maps of training ids.

    Args:
        image_dir: such as `cityscapes/leftImg8bit/train`.
        gt_dir: such as `cityscapes/gtFine/train`.

    Returns:
        Dicts with `file_name`, `sem_seg_file_name`, `height` and `width`.

    Raises:
        FileNotFoundError: the maps have not been made.
    """
    records = []
    for files in list_files(image_dir, gt_dir):
        labels = files.annotations + "labelTrainIds.png"
        if not PathManager.isfile(labels):
            raise UserFileNotFoundError(
                f"{labels!r} does not exist. Make the maps of training ids with `csCreateTrainIdLabelImgs` "
                "of the package cityscapesscripts."
            )
        content = read_json(files.annotations + "polygons.json")
        records.append(
            {
                "file_name": files.image,
                "sem_seg_file_name": labels,
                "height": content["imgHeight"],
                "width": content["imgWidth"],
            }
        )
    return records


def main() -> None:
    """Check a copy of the data: `python -m detectron2.data.datasets.cityscapes IMAGE_DIR GT_DIR`."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Read Cityscapes and count what is there.")
    parser.add_argument("image_dir")
    parser.add_argument("gt_dir")
    parser.add_argument("--type", choices=("instance", "semantic"), default="instance")
    args = parser.parse_args()
    load = load_cityscapes_instances if args.type == "instance" else load_cityscapes_semantic
    records = load(args.image_dir, args.gt_dir)
    num_annotations = sum(len(record.get("annotations", ())) for record in records)
    logger.info("%d images, %d instances", len(records), num_annotations)


if __name__ == "__main__":
    main()
