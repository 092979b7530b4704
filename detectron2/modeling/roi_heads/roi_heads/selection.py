"""Which proposals a head is trained on.

Shapes: Ri proposals of image i, K keypoints. Boxes are XYXY in input-image pixels.
"""

from __future__ import annotations

from torch import Tensor

from detectron2.modeling.metrics import put_metrics
from detectron2.structures.instances import Instances


def select_foreground_proposals(
    proposals: list[Instances], bg_label: int
) -> tuple[list[Instances], list[Tensor]]:
    """Keep the proposals of every image that were matched with an object.

    Args:
        proposals: per image, with `gt_classes`.
        bg_label: the class of background; -1 is ignored as well.

    Returns:
        Per image, the foreground proposals, and the (Ri,) bool mask that selected them.
    """
    masks = [(p.gt_classes != -1) & (p.gt_classes != bg_label) for p in proposals]
    return [p[m.nonzero().flatten()] for p, m in zip(proposals, masks)], masks


def select_proposals_with_visible_keypoints(proposals: list[Instances]) -> list[Instances]:
    """Keep the proposals of every image that contain at least one visible keypoint of their object.

    Args:
        proposals: per image, foreground only, with `proposal_boxes` and `gt_keypoints`.

    Returns:
        Per image, the proposals kept.
    """
    kept = [p[_has_visible_keypoint(p).nonzero().flatten()] if len(p) else p for p in proposals]
    put_metrics({"keypoint_head/num_fg_samples": sum(len(p) for p in kept) / max(len(kept), 1)})
    return kept


def _has_visible_keypoint(proposals: Instances) -> Tensor:
    """(Ri,) bool."""
    points, visibility = proposals.gt_keypoints.tensor.split((2, 1), dim=-1)  # (Ri, K, 2), (Ri, K, 1)
    boxes = proposals.proposal_boxes.tensor[:, None]  # (Ri, 1, 4)
    inside = (points >= boxes[..., :2]) & (points <= boxes[..., 2:])
    # Visibility 1 is "labelled but hidden" and counts: the position is known.
    has_visible: Tensor = (inside.all(dim=-1) & (visibility[..., 0] >= 1)).any(dim=-1)
    return has_visible
