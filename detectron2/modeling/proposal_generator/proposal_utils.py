"""From dense predictions to a few proposals per image, and ground truth among the proposals.

Shapes: N images; L feature levels; Ri predictions on level i per image; B numbers per box.
Boxes are XYXY (B=4), or XYWHA (B=5) where the class of boxes is `RotatedBoxes`, in input-image pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from detectron2.structures.boxes import Boxes
from detectron2.structures.instances import Instances
from detectron2.utils.user_errors import UserFloatingPointError, UserValueError

from ..box_kinds import UPRIGHT, BoxKind
from ..inference import choose_proposals, is_finite, top_per_level


def find_top_rpn_proposals(
    proposals: list[Tensor],
    pred_objectness_logits: list[Tensor],
    image_sizes: list[tuple[int, int]],
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
) -> list[Instances]:
    """Keep the best proposals of every image: top-k per level, clip, NMS per level, top-k over all levels.

    Args:
        proposals: L tensors (N, Ri, 4).
        pred_objectness_logits: L tensors (N, Ri).
        image_sizes: N (height, width) without padding.
        nms_thresh: IoU above which the lower-scored of two proposals of a level goes.
        pre_nms_topk: how many enter NMS, per level and image.
        post_nms_topk: how many leave NMS, per image.
        min_box_size: proposals narrower or lower than this are dropped (pixels of the input image).
        training: whether non-finite predictions are an error (they are dropped otherwise).

    Returns:
        N `Instances` with `proposal_boxes` and `objectness_logits`, best first.

    Raises:
        FloatingPointError: a prediction is not finite while training.
    """
    return select_top_proposals(
        proposals,
        pred_objectness_logits,
        image_sizes,
        nms_thresh,
        pre_nms_topk,
        post_nms_topk,
        min_box_size,
        training,
        kind=UPRIGHT,
    )


def select_top_proposals(
    proposals: list[Tensor],
    pred_objectness_logits: list[Tensor],
    image_sizes: list[tuple[int, int]],
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
    *,
    kind: BoxKind,
) -> list[Instances]:
    """Do what `find_top_rpn_proposals` does for any kind of boxes."""
    boxes, scores, levels = top_per_level(proposals, pred_objectness_logits, int(pre_nms_topk))
    if training and not is_finite(boxes, scores).all():
        raise UserFloatingPointError(
            "The proposal generator predicts NaN or infinite boxes or scores: training has diverged. Lower "
            "SOLVER.BASE_LR, lengthen SOLVER.WARMUP_ITERS or set SOLVER.CLIP_GRADIENTS.ENABLED."
        )
    results = []
    for boxes_of_image, scores_of_image, image_size in zip(boxes.unbind(), scores.unbind(), image_sizes):
        chosen_boxes, chosen_scores = choose_proposals(
            boxes_of_image,
            scores_of_image,
            levels,
            image_size,
            nms_thresh=nms_thresh,
            topk=post_nms_topk,
            min_size=min_box_size,
            kind=kind,
        )
        results.append(
            Instances(
                image_size, proposal_boxes=kind.structure(chosen_boxes), objectness_logits=chosen_scores
            )
        )
    return results


def add_ground_truth_to_proposals(
    gt: Sequence[Instances | Boxes], proposals: list[Instances]
) -> list[Instances]:
    """Append the ground truth boxes to the proposals of every image, so that training always sees good ones.

    Args:
        gt: per image, `Instances` with `gt_boxes`, or boxes.
        proposals: per image, with `proposal_boxes` and `objectness_logits`.

    Returns:
        New proposals per image, ground truth last.
    """
    if len(gt) != len(proposals):
        raise UserValueError(f"Got ground truth of {len(gt)} images for proposals of {len(proposals)}")
    return [add_ground_truth_to_proposals_single_image(g, p) for g, p in zip(gt, proposals)]


def add_ground_truth_to_proposals_single_image(gt: Instances | Boxes, proposals: Instances) -> Instances:
    """Do what `add_ground_truth_to_proposals` does for one image.

    Fields that proposals have besides boxes and logits must exist in `gt` under the same name.
    """
    gt_fields = gt.get_fields() if isinstance(gt, Instances) else {}
    gt_boxes = gt.gt_boxes if isinstance(gt, Instances) else gt
    logits = proposals.objectness_logits
    known: dict[str, object] = {
        **gt_fields,
        "proposal_boxes": gt_boxes,
        "objectness_logits": logits.new_full((len(gt_boxes),), _GT_LOGIT),
    }
    missing = [name for name in proposals.get_fields() if name not in known]
    if missing:
        raise UserValueError(f"Proposals have the fields {missing}, which the ground truth to append lacks")
    as_proposals = Instances(proposals.image_size, **{name: known[name] for name in proposals.get_fields()})
    return Instances.cat([proposals, as_proposals])


# Ground truth is a proposal of objectness all but 1.
_GT_OBJECTNESS = 1.0 - 1e-10
_GT_LOGIT = math.log(_GT_OBJECTNESS / (1.0 - _GT_OBJECTNESS))
