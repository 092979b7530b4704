"""From scored boxes of regions to the `Instances` of an image, for any kind of boxes.

Shapes: Ri regions; K foreground classes, class K is background; Kb boxes per region, K or 1; B numbers a box.
"""

from __future__ import annotations

from torch import Tensor

from detectron2.structures.instances import Instances

from ..box_kinds import UPRIGHT, BoxKind
from ..inference import choose_detections


def detect_in_image(
    boxes: Tensor,
    scores: Tensor,
    image_shape: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
    *,
    kind: BoxKind,
) -> tuple[Instances, Tensor]:
    """Choose the detections of one image.

    Args:
        boxes: (Ri, Kb * B).
        scores: (Ri, K + 1).
        image_shape: (height, width).
        score_thresh: only higher scores count.
        nms_thresh: IoU above which the lower-scored of two detections of a class goes.
        topk_per_image: most detections; negative for no limit.
        kind: of the boxes.

    Returns:
        `Instances` with `pred_boxes`, `scores` and `pred_classes`, best first, and (detections,) int64 the
        region that each came from. Regions with non-finite predictions are dropped.
    """
    found = choose_detections(
        boxes.unflatten(1, (-1, kind.dim)),
        scores,
        image_shape,
        score_thresh=score_thresh,
        nms_thresh=nms_thresh,
        topk=topk_per_image,
        kind=kind,
    )
    detections = Instances(
        image_shape,
        pred_boxes=kind.structure(found.boxes),
        scores=found.scores,
        pred_classes=found.classes,
    )
    return detections, found.regions


def fast_rcnn_inference(
    boxes: list[Tensor],
    scores: list[Tensor],
    image_shapes: list[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[list[Instances], list[Tensor]]:
    """Choose the detections of every image.

    Args:
        boxes: per image, (Ri, Kb * 4).
        scores: per image, (Ri, K + 1) probabilities, background last.
        image_shapes: per image, (height, width).
        score_thresh: only higher scores count.
        nms_thresh: IoU above which the lower-scored of two detections of a class goes.
        topk_per_image: most detections per image; negative for no limit.

    Returns:
        Per image, `Instances` with `pred_boxes`, `scores` and `pred_classes`, best first, and (detections,)
        int64 the region that each came from.
    """
    results = [
        fast_rcnn_inference_single_image(b, s, shape, score_thresh, nms_thresh, topk_per_image)
        for b, s, shape in zip(boxes, scores, image_shapes)
    ]
    return [instances for instances, _ in results], [rows for _, rows in results]


def fast_rcnn_inference_single_image(
    boxes: Tensor,
    scores: Tensor,
    image_shape: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[Instances, Tensor]:
    """Do what `fast_rcnn_inference` does for one image; regions with non-finite predictions are dropped."""
    return detect_in_image(boxes, scores, image_shape, score_thresh, nms_thresh, topk_per_image, kind=UPRIGHT)
