"""COCO scores as results: metric names, tables for the log, and reasons for numbers that are missing."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from detectron2.evaluation.coco_evaluation.engine import mean_of_defined
from detectron2.evaluation.coco_evaluation.object_sizes import SIZES, annotated_area
from detectron2.evaluation.tables import format_category_table, format_metrics_table
from detectron2.utils.user_errors import UserValueError

logger = logging.getLogger(__name__)

METRICS = {
    "bbox": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "segm": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "keypoints": ("AP", "AP50", "AP75", "APm", "APl"),
}


def derive_results(
    coco_eval: Any, iou_type: str, class_names: Sequence[str] | None = None
) -> dict[str, float]:
    """The result mapping of one task, in percent, and the same as tables in the log.

    Args:
        coco_eval: a `COCOeval` with `stats` and `eval`; None when there was nothing to score, and every
            metric is nan.
        iou_type: the task.
        class_names: in the order of the model's classes; with more than one, AP per category is added.
    """
    names = METRICS[iou_type]
    if coco_eval is None:
        return dict.fromkeys(names, float("nan"))
    results = {name: _percent(value) for name, value in zip(names, coco_eval.stats)}
    logger.info("Evaluation results for %s:\n%s", iou_type, format_metrics_table(results))
    if class_names is None or len(class_names) <= 1:
        return results
    precision = np.asarray(coco_eval.eval["precision"])  # (T, R, K, A, M)
    if len(class_names) != precision.shape[2]:
        raise UserValueError(
            f"The metadata names {len(class_names)} classes, but the ground truth has {precision.shape[2]} "
            "categories. Both should come from the same data set: check `thing_classes` and the `json_file` "
            "of the metadata"
        )
    per_category = {
        name: 100 * mean_of_defined(precision[:, :, index, 0, -1]) for index, name in enumerate(class_names)
    }
    logger.info("Per-category %s AP:\n%s", iou_type, format_category_table(per_category, "AP"))
    num_absent = sum(np.isnan(ap) for ap in per_category.values())
    if num_absent:
        logger.info("AP is nan for %d categories without an object in the ground truth", num_absent)
    results.update({f"AP-{name}": ap for name, ap in per_category.items()})
    return results


def _percent(value: float) -> float:
    """-1 marks what has no ground truth."""
    return 100 * float(value) if value >= 0 else float("nan")


def explain_missing_numbers(
    results: Mapping[str, float],
    ground_truth: Mapping[str, Any],
    detections: Collection[Mapping[str, Any]],
    iou_type: str,
    img_ids: Collection[int] | None = None,
) -> list[str]:
    """Say why metrics are nan, and why an AP of zero may not mean a bad model.

    Returns:
        One sentence per finding; none when every main metric has a value.
    """
    image_ids = set(img_ids) if img_ids is not None else {image["id"] for image in ground_truth["images"]}
    objects = [
        a for a in ground_truth["annotations"] if a["image_id"] in image_ids and not a.get("iscrowd", 0)
    ]
    if not detections:
        return [
            "every metric is nan: no detections. The model predicted nothing above its score threshold "
            "(MODEL.ROI_HEADS.SCORE_THRESH_TEST); untrained or wrong weights are the usual reason"
        ]
    if not objects:
        return ["every metric is nan: no objects in the ground truth of the evaluated images"]
    reasons = []
    if iou_type == "keypoints" and not any(a.get("num_keypoints", 0) for a in objects):
        reasons.append(
            "every metric is nan: no object of the ground truth has a visible keypoint ('num_keypoints')"
        )
    num_maskless = sum(iou_type == "segm" and len(a["segmentation"]) == 0 for a in objects)
    if num_maskless:
        reasons.append(
            f"{num_maskless} of {len(objects)} objects of the ground truth have an empty 'segmentation' and "
            "count as missed; leave them out of the file or give them masks"
        )
    areas = np.asarray([annotated_area(a) for a in objects])
    for size in SIZES:
        metric = f"AP{size.suffix}"
        if np.isnan(results.get(metric, 0.0)) and not ((areas >= size.low) & (areas <= size.high)).any():
            reasons.append(f"{metric} is nan: no {size.name} objects ({size.bounds}) in the ground truth")
    reasons.extend(_disjoint_ids(objects, detections, image_ids))
    return reasons


def _disjoint_ids(
    objects: Collection[Mapping[str, Any]],
    detections: Collection[Mapping[str, Any]],
    image_ids: Collection[int],
) -> list[str]:
    found = []
    if not image_ids & {d["image_id"] for d in detections}:  # type: ignore[operator]
        found.append(
            "AP is 0: no detection belongs to an image of the ground truth; their image ids are disjoint"
        )
    if not {a["category_id"] for a in objects} & {d["category_id"] for d in detections}:
        found.append(
            "AP is 0: no detection has a category of the ground truth; check "
            "thing_dataset_id_to_contiguous_id in the metadata"
        )
    return found
