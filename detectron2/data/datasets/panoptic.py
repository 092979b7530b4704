"""One call for a panoptic data set of one's own: everything is derived from the PNGs and the JSON."""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import Any

import numpy as np

from detectron2.structures.boxes import BoxMode
from detectron2.utils.user_errors import UserKeyError

from ..catalog import DatasetCatalog, MetadataCatalog
from ..detection_utils.panoptic_png import LABEL_OF_THINGS, read_panoptic_ids
from .coco_panoptic import iterate_panoptic_images
from .derived import derived_values
from .files import Path
from .panoptic_categories import PANOPTIC_KEYS, derive_separated

logger = logging.getLogger(__name__)

__all__ = ["register_panoptic"]


def register_panoptic(
    name: str,
    image_root: Path,
    panoptic_root: Path,
    panoptic_json: Path,
    *,
    instances_json: Path | None = None,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Register a data set in COCO's panoptic format, ready for Panoptic FPN and its evaluation.

    Nothing else is needed: instances and stuff maps are derived from the PNGs while loading, class names,
    colours and contiguous ids from the `categories` of the JSON (each with `id`, `name`, `isthing`
    and optionally `color`), when they are first asked for. Set `MODEL.ROI_HEADS.NUM_CLASSES` to the
    number of things and `MODEL.SEM_SEG_HEAD.NUM_CLASSES` to the number of stuff classes plus one (label 0,
    "things").

    Args:
        name: how configs call it.
        image_root: folder of the images.
        panoptic_root: folder of the panoptic PNGs.
        panoptic_json: the panoptic JSON.
        instances_json: the things in COCO's instance format, if such a file exists. Evaluation of masks then
            reads it instead of converting the PNGs.
        metadata: further metadata, or values to use instead of the derived ones.
    """
    given = dict(metadata or {})
    derived = derived_values(derive_separated, panoptic_json, PANOPTIC_KEYS, given)
    if instances_json is not None:
        given["json_file"] = instances_json
    DatasetCatalog.register(name, partial(_load_panoptic, name, image_root, panoptic_root, panoptic_json))
    MetadataCatalog.get(name).set(
        image_root=image_root,
        panoptic_root=panoptic_root,
        panoptic_json=panoptic_json,
        evaluator_type="coco_panoptic_seg",
        ignore_label=255,
        **derived,
        **given,
    )


def _load_panoptic(
    name: str, image_root: Path, panoptic_root: Path, panoptic_json: Path
) -> list[dict[str, Any]]:
    """Dicts with `annotations` of things, whose masks are the segments `segment_id` of
    `pan_seg_file_name`."""
    metadata = MetadataCatalog.get(name)
    things, stuff = metadata.thing_dataset_id_to_contiguous_id, metadata.stuff_dataset_id_to_contiguous_id
    records = []
    for record, segments in iterate_panoptic_images(panoptic_json, image_root, panoptic_root, name):
        if any("bbox" not in segment for segment in segments):
            segments = _with_boxes(record["pan_seg_file_name"], segments)
        translated, annotations, labels = [], [], {}
        for segment in segments:
            id, category = segment["id"], segment["category_id"]
            if category not in things and category not in stuff:
                raise UserKeyError(
                    f"Segment {id} of image {record['image_id']} in {os.fspath(panoptic_json)!r} has "
                    f"category_id {category}, which is not among the 'categories' of data set {name!r}."
                )
            is_thing = category in things
            contiguous = things[category] if is_thing else stuff[category]
            labels[id] = LABEL_OF_THINGS if is_thing else contiguous
            translated.append({**segment, "category_id": contiguous, "isthing": is_thing})
            if is_thing:
                annotations.append(
                    {
                        "bbox": segment["bbox"],
                        "bbox_mode": BoxMode.XYWH_ABS,
                        "category_id": contiguous,
                        "iscrowd": segment.get("iscrowd", 0),
                        "segment_id": id,
                    }
                )
        records.append(
            {**record, "annotations": annotations, "segments_info": translated, "sem_seg_labels": labels}
        )
    logger.info("Loaded %d images in panoptic format from %s", len(records), os.fspath(panoptic_json))
    return records


def _with_boxes(png_file: str, segments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Segments with `bbox` and `area` measured in the PNG; one that has no pixel there gets an empty
    box."""
    ids = read_panoptic_ids(png_file)
    measured = []
    for segment in segments:
        mask = ids == segment["id"]
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = [0, 0, 0, 0]
        if len(rows):
            x0, y0, x1, y1 = (int(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
            box = [x0, y0, x1 - x0, y1 - y0]
        measured.append({"bbox": box, "area": int(mask.sum()), **segment})
    return measured
