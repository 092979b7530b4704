"""From registered data sets to COCO's instance format, for evaluators that read it."""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from detectron2.data.catalog import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.data.detection_utils.panoptic_png import read_segment_masks
from detectron2.structures import rle
from detectron2.structures.boxes import BoxMode
from detectron2.structures.polygons import polygon_area
from detectron2.utils.file_io import PathManager, atomic_write
from detectron2.utils.user_errors import UserTypeError

from .content_key import content_key
from .images import check_image_ids

logger = logging.getLogger(__name__)


def convert_to_coco_dict(dataset_name: str) -> dict[str, Any]:
    """Convert a registered data set to the content of a COCO instances file.

    Boxes become XYWH, rounded to three decimals (XYWHA boxes stay so); masks stay polygons or become RLE with
    text counts; annotation ids start at 1.

    Args:
        dataset_name: a registered data set.

    Raises:
        ValueError: two images have one id.
    """
    return _convert(dataset_name, DatasetCatalog.get(dataset_name))


def _convert(dataset_name: str, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    metadata = MetadataCatalog.get(dataset_name)
    dataset_id = _dataset_category_ids(metadata)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for position, record in enumerate(records):
        image_id = record.get("image_id", position)
        images.append(
            {
                "id": image_id,
                "width": record["width"],
                "height": record["height"],
                "file_name": record["file_name"],
            }
        )
        for annotation in _with_masks(record):
            converted = _convert_annotation(annotation, dataset_id)
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **converted})
    check_image_ids([image["id"] for image in images], f"Data set {dataset_name!r}")
    categories = [{"id": dataset_id(i), "name": name} for i, name in enumerate(metadata.thing_classes)]
    logger.info(
        "Converted data set %s: %d images, %d annotations", dataset_name, len(images), len(annotations)
    )
    return {
        "info": {
            "date_created": datetime.datetime.now().isoformat(timespec="seconds"),
            "description": f"Data set {dataset_name} in COCO's format.",
        },
        "licenses": None,
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


def _dataset_category_ids(metadata: Metadata) -> Callable[[int], int]:
    ids = metadata.get("thing_dataset_id_to_contiguous_id")
    if ids is None:
        return lambda contiguous: contiguous
    dataset_ids = {contiguous: id for id, contiguous in ids.items()}
    return lambda contiguous: dataset_ids[contiguous]


def _with_masks(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Annotations of an image; those that only name a panoptic segment get its mask as RLE."""
    annotations: list[dict[str, Any]] = record.get("annotations", [])
    pending = [a for a in annotations if "segment_id" in a and "segmentation" not in a]
    if not pending:
        return annotations
    masks = read_segment_masks(record["pan_seg_file_name"], [a["segment_id"] for a in pending])
    encoded = {a["segment_id"]: rle.encode_one(mask) for a, mask in zip(pending, masks)}
    return [{**a, "segmentation": encoded[a["segment_id"]]} if a in pending else a for a in annotations]


def _convert_annotation(annotation: dict[str, Any], dataset_id: Callable[[int], int]) -> dict[str, Any]:
    is_rotated = len(annotation["bbox"]) == 5
    mode = BoxMode.XYWHA_ABS if is_rotated else BoxMode.XYWH_ABS
    box = [float(v) for v in BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], mode)]
    converted: dict[str, Any] = {
        "bbox": [round(v, 3) for v in box],
        "area": box[2] * box[3],
        "iscrowd": int(annotation.get("iscrowd", 0)),
        "category_id": int(dataset_id(annotation["category_id"])),
    }
    if "segmentation" in annotation:
        converted["segmentation"], converted["area"] = _convert_mask(annotation["segmentation"])
    if "keypoints" in annotation:
        points = [float(v) for v in annotation["keypoints"]]
        # COCO counts from pixel centres, the data set dicts from the image's corner.
        converted["keypoints"] = [v if i % 3 == 2 else v - 0.5 for i, v in enumerate(points)]
        converted["num_keypoints"] = int(annotation.get("num_keypoints", sum(v > 0 for v in points[2::3])))
    return converted


def _convert_mask(segmentation: Any) -> tuple[Any, float]:
    """Mask that JSON can hold, and its area."""
    if isinstance(segmentation, list):
        polygons = [[float(v) for v in polygon] for polygon in segmentation]
        return polygons, float(sum(polygon_area(np.array(p[0::2]), np.array(p[1::2])) for p in polygons))
    if isinstance(segmentation, np.ndarray):
        segmentation = rle.encode_one(segmentation)
    if not isinstance(segmentation, dict):
        raise UserTypeError(
            f"A segmentation must be polygons, RLE or an (H, W) array, got {type(segmentation).__name__}."
        )
    return rle.as_json(segmentation), float(rle.areas([segmentation])[0])


def convert_to_coco_json(dataset_name: str, output_file: str, allow_cached: bool = True) -> None:
    """Write a registered data set as a COCO instances file.

    Args:
        dataset_name: a registered data set.
        output_file: path of the file.
        allow_cached: leave a file that was written from the same data. It holds a digest of them, so that one
            of another data set, or of another state of this one, is written anew.
    """
    records = DatasetCatalog.get(dataset_name)
    key = content_key(records, MetadataCatalog.get(dataset_name))
    if allow_cached and PathManager.exists(output_file):
        if key and _key_in_file(output_file) == key:
            logger.info("%s was written from the data that %s has now, and stays", output_file, dataset_name)
            return
        logger.warning(
            "%s was not written from the data that %s has now, and is replaced", output_file, dataset_name
        )
    logger.info("Converting data set %s to COCO's format, for the evaluation ...", dataset_name)
    content = _convert(dataset_name, records)
    content["info"]["content_key"] = key
    with atomic_write(output_file, "w") as file:
        json.dump(content, file)


def _key_in_file(path: str) -> str | None:
    try:
        with PathManager.open(path, "r") as file:
            info = json.load(file).get("info")
    except (OSError, ValueError, AttributeError):  # whatever it is, it is no file of ours
        return None
    return info.get("content_key") if isinstance(info, dict) else None
