"""From scored boxes of regions to the detections of an image, for any class of boxes and its NMS.

Shapes: Ri regions; K foreground classes, class K is background; Kb boxes per region, K or 1; B numbers a box.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, zeros_like

from detectron2.structures.boxes import Boxes
from detectron2.structures.instances import Instances


def choose_detections(
    boxes: Tensor,
    scores: Tensor,
    image_shape: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
    box_type: type[Boxes],
    nms: Callable[[Tensor, Tensor, Tensor, float], Tensor],
) -> tuple[Instances, Tensor]:
    """Choose the detections of one image.

    Args:
        boxes: (Ri, Kb, B).
        scores: (Ri, K + 1).
        box_type: `Boxes` or `RotatedBoxes`.
        nms: (boxes, scores, classes, threshold) -> indices to keep, best first.

    Returns:
        `Instances` with `pred_boxes`, `scores` and `pred_classes`, best first, and (detections,) int64 the
        region that each came from. Regions with non-finite predictions are dropped.
    """
    finite = boxes.flatten(1).isfinite().all(dim=1) & scores.isfinite().all(dim=1)
    foreground_scores = scores[:, :-1]
    # Every (region, class) with a score above the threshold is a candidate. NaN is above nothing.
    candidates = ((foreground_scores > score_thresh) & finite[:, None]).nonzero()
    regions, classes = candidates.unbind(dim=1)
    candidate_scores = foreground_scores[regions, classes]
    box_column = classes if boxes.shape[1] > 1 else zeros_like(classes)
    candidate_boxes = box_type(boxes[regions, box_column])
    candidate_boxes.clip(image_shape)

    keep = nms(candidate_boxes.tensor, candidate_scores, classes, nms_thresh)
    if topk_per_image >= 0:
        keep = keep[:topk_per_image]
    detections = Instances(
        image_shape,
        pred_boxes=candidate_boxes[keep],
        scores=candidate_scores[keep],
        pred_classes=classes[keep],
    )
    return detections, regions[keep]
