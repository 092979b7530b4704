"""How much of the ground truth a set of class-agnostic proposals covers.

Shapes: G ground-truth boxes of one image, R proposals, T IoU thresholds. Boxes are XYXY in original-image
pixels.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from detectron2.evaluation.coco_evaluation.object_sizes import ALL_SIZES, SIZES, annotated_area
from detectron2.structures.boxes import Boxes, BoxMode, pairwise_iou
from detectron2.structures.instances import Instances

_LIMITS = (100, 1000)


def proposal_metrics(
    predictions: Sequence[Mapping[str, Any]], ground_truth: Mapping[str, Any]
) -> dict[str, float]:
    """Average recall, in percent, at 100 and 1000 proposals per image, over all objects and by size.

    Args:
        predictions: entries with "image_id" and "proposals" (`Instances` with `proposal_boxes` and
            `objectness_logits`).
        ground_truth: a data set in COCO's JSON layout. Crowds are left out; where annotations lack
            "area", that of the mask or the box counts.
    """
    annotations_by_image = _object_boxes(ground_truth)
    metrics = {}
    for limit, size in itertools.product(_LIMITS, (ALL_SIZES, *SIZES)):
        covered = [
            best_coverage(
                entry["proposals"], *annotations_by_image[entry["image_id"]], (size.low, size.high), limit
            )
            for entry in predictions
        ]
        metrics[f"AR{size.suffix}@{limit}"] = 100 * average_recall(covered)
    return metrics


def _object_boxes(ground_truth: Mapping[str, Any]) -> Mapping[int, tuple[Tensor, Tensor]]:
    """Boxes (G, 4) and areas (G,) of the objects of each image."""
    rows: dict[int, list[list[float]]] = defaultdict(list)
    for annotation in ground_truth["annotations"]:
        if not annotation.get("iscrowd", 0):
            rows[annotation["image_id"]].append([*annotation["bbox"], annotated_area(annotation)])
    empty = (torch.zeros(0, 4), torch.zeros(0))
    objects: defaultdict[int, tuple[Tensor, Tensor]] = defaultdict(lambda: empty)
    for image_id, values in rows.items():
        table = torch.tensor(values, dtype=torch.float32)  # (G, 5)
        corners = torch.as_tensor(BoxMode.convert(table[:, :4], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS))
        objects[image_id] = (corners, table[:, 4])
    return objects


def best_coverage(
    proposals: Instances, gt_boxes: Tensor, gt_areas: Tensor, area_range: tuple[float, float], limit: int
) -> Tensor:
    """Pair objects with proposals, best pair first, each used once; return the IoU of every object, 0 if
    unpaired.

    Args:
        proposals: R proposals in any order; the `limit` most confident ones count.
        gt_boxes: (G, 4).
        gt_areas: (G,) areas as annotated.
        area_range: lowest and highest area of the objects that count.

    Returns:
        (g,) IoUs of the objects in the area range.
    """
    in_range = (gt_areas >= area_range[0]) & (gt_areas <= area_range[1])
    gt_boxes = gt_boxes[in_range]
    order = proposals.objectness_logits.argsort(descending=True, stable=True)[:limit]
    overlaps = pairwise_iou(Boxes(proposals.proposal_boxes.tensor[order].float()), Boxes(gt_boxes))  # (R, G)
    covered = torch.zeros(len(gt_boxes))
    for _ in range(min(overlaps.shape)):
        best_per_object, best_proposal = overlaps.max(dim=0)
        iou, index = best_per_object.max(dim=0)
        covered[index] = iou
        overlaps[best_proposal[index], :] = -1
        overlaps[:, index] = -1
    return covered


def average_recall(covered: Sequence[Tensor]) -> float:
    """Recall averaged over IoU thresholds 0.5, 0.55 ... 0.95; nan when there is no object."""
    ious = torch.cat(list(covered)) if covered else torch.zeros(0)
    if not len(ious):
        return float("nan")
    thresholds = torch.arange(0.5, 0.95 + 1e-5, 0.05, dtype=torch.float32)  # (T,)
    return (ious[None] >= thresholds[:, None]).float().mean().item()
