"""From dense predictions to a few proposals per image, and ground truth among the proposals.

Shapes: N images; L feature levels; Ri predictions on level i per image; B numbers per box.
Boxes are XYXY (B=4), or XYWHA (B=5) where the class of boxes is `RotatedBoxes`, in input-image pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from detectron2.layers.nms import batched_nms
from detectron2.layers.wrappers import smaller_size
from detectron2.structures.boxes import Boxes
from detectron2.structures.instances import Instances
from detectron2.utils.user_errors import UserFloatingPointError, UserValueError

# (boxes (R, B), scores (R,), groups (R,), IoU threshold) -> indices to keep, best first.
BatchedNms = Callable[[Tensor, Tensor, Tensor, float], Tensor]


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
        box_type=Boxes,
        nms=batched_nms,
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
    box_type: type[Boxes],
    nms: BatchedNms,
) -> list[Instances]:
    """Do what `find_top_rpn_proposals` does for any class of boxes and its NMS."""
    boxes, scores, levels = top_per_level(proposals, pred_objectness_logits, pre_nms_topk)
    finite = boxes.isfinite().all(dim=-1) & scores.isfinite()  # (N, R)
    all_finite = bool(finite.all())
    if training and not all_finite:
        raise UserFloatingPointError(
            "The proposal generator predicts NaN or infinite boxes or scores: training has diverged. Lower "
            "SOLVER.BASE_LR, lengthen SOLVER.WARMUP_ITERS or set SOLVER.CLIP_GRADIENTS.ENABLED."
        )
    results = []
    for i, image_size in enumerate(image_sizes):
        boxes_i, scores_i, levels_i = boxes[i], scores[i], levels
        if not all_finite:
            boxes_i, scores_i, levels_i = boxes_i[finite[i]], scores_i[finite[i]], levels[finite[i]]
        candidates = box_type(boxes_i)
        candidates.clip(image_size)
        large = candidates.nonempty(threshold=min_box_size).nonzero().flatten()
        candidates, scores_i, levels_i = candidates[large], scores_i[large], levels_i[large]
        keep = nms(candidates.tensor, scores_i, levels_i, nms_thresh)[:post_nms_topk]
        results.append(
            Instances(image_size, proposal_boxes=candidates[keep], objectness_logits=scores_i[keep])
        )
    return results


def top_per_level(proposals: list[Tensor], logits: list[Tensor], topk: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (N, R, B), scores (N, R) and level (R,) of the k best of every level, level by level."""
    boxes, scores, levels = [], [], []
    for level, (boxes_of_level, logits_of_level) in enumerate(zip(proposals, logits)):
        count = smaller_size(logits_of_level.shape[1], int(topk))
        best, rows = logits_of_level.topk(count, dim=1)
        boxes.append(boxes_of_level.gather(1, rows[..., None].expand(-1, -1, boxes_of_level.shape[2])))
        scores.append(best)
        levels.append(torch.full((count,), level, dtype=torch.int64, device=best.device))
    return torch.cat(boxes, dim=1), torch.cat(scores, dim=1), torch.cat(levels)


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
