"""What turns predictions into results; one core for forward, augmentation at test time, cascades and export.

Tensors in, tensors out. No function looks at how many boxes there are, nor at their values, so that each can
become part of a graph that is made once; `image_size` may then be a pair of symbols.

Shapes: N images; L feature levels; Ri predictions on level i, R regions or predictions of an image; K
foreground classes, class K is background; Kb boxes per region, K or 1; B numbers a box; M side of a mask.
Boxes are XYXY (B=4) or XYWHA (B=5) in input-image pixels. Results are ordered by falling score; NMS keeps
the order of equal scores, `by_falling_score` says what decides elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from detectron2.layers.tracing import arange_like, fixed_size
from detectron2.layers.wrappers import smaller_size
from detectron2.structures.instances import Instances

from .box_kinds import UPRIGHT, BoxKind
from .box_regression import BoxTransform

Sources = TypeVar("Sources")


class Detections(NamedTuple):
    """Detections of one image, best first.

    Attributes:
        boxes: (D, B).
        scores: (D,).
        classes: (D,) int64.
        regions: (D,) int64, the region or, for several levels or versions, the candidate each came from.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    regions: Tensor


def in_anchor_order(predictions: Tensor, size: int) -> Tensor:
    """Bring what a convolution predicts into the order of anchors: (N, A*size, Hi, Wi) -> (N, Ri, size)."""
    per_anchor = predictions.unflatten(1, (-1, size))  # (N, A, size, Hi, Wi)
    in_order: Tensor = per_anchor.permute(0, 3, 4, 1, 2).flatten(1, 3)
    return in_order


def first(values: Tensor, count: int) -> Tensor:
    """At most `count` first entries; all where `count` is negative."""
    return values if count < 0 else values[: smaller_size(values.shape[0], count)]


def split_by_image(values: Tensor, instances: Sequence[Instances]) -> list[Tensor]:
    """Split what was computed for the instances of all images: (R, ...) -> per image, (Ri, ...)."""
    # Not len(x): while torch.jit.trace records, it would be a constant.
    return list(values.split([x.__len__() for x in instances]))


def by_falling_score(scores: Tensor) -> Tensor:
    """Order in which published results take detections of equal score.

    The order of ties is that of `torch.sort` without `stable`: fixed for a version of torch and a processor's
    instruction set, but no simple rule. Published maps were made with it, and where many scores are
    saturated the rule decides which detections are left: with ties by index, RetinaNet's detections and the
    panoptic maps of R2-101 on the reference's weights are others.

    Args:
        scores: (R,).

    Returns:
        (R,) indices, best first.
    """
    return scores.argsort(descending=True)


def suppress(
    boxes: Tensor, scores: Tensor, groups: Tensor, nms_thresh: float, topk: int, kind: BoxKind = UPRIGHT
) -> Tensor:
    """Run NMS within each group, and keep the best over all groups.

    Args:
        boxes: (R, B).
        scores: (R,).
        groups: (R,) class or level of each box.
        nms_thresh: IoU above which the lower-scored of two boxes of a group goes.
        topk: most boxes to keep; negative for no limit.
        kind: of the boxes.

    Returns:
        Indices of the boxes kept, best first.
    """
    return first(kind.nms(boxes, scores, groups, nms_thresh), topk)


def top_per_level(
    boxes_per_level: Sequence[Tensor], logits_per_level: Sequence[Tensor], topk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the k best predictions of every level.

    Args:
        boxes_per_level: L tensors (N, Ri, B).
        logits_per_level: L tensors (N, Ri).
        topk: k.

    Returns:
        Boxes (N, R, B), logits (N, R) and levels (R,), level by level.
    """
    boxes, scores, levels = [], [], []
    for level, (boxes_of_level, logits_of_level) in enumerate(zip(boxes_per_level, logits_per_level)):
        count = smaller_size(logits_of_level.shape[1], topk)
        best, rows = logits_of_level.topk(count, dim=1)
        boxes.append(boxes_of_level.gather(1, rows[..., None].expand(-1, -1, boxes_of_level.shape[2])))
        scores.append(best)
        levels.append(rows.new_full((count,), level))
    return torch.cat(boxes, dim=1), torch.cat(scores, dim=1), torch.cat(levels)


def is_finite(boxes: Tensor, scores: Tensor) -> Tensor:
    """(..., B) boxes and (...) scores -> (...) bool."""
    return boxes.isfinite().all(dim=-1) & scores.isfinite()


def choose_proposals(
    boxes: Tensor,
    scores: Tensor,
    levels: Tensor,
    image_size: tuple[int, int],
    *,
    nms_thresh: float,
    topk: int,
    min_size: float,
    kind: BoxKind = UPRIGHT,
) -> tuple[Tensor, Tensor]:
    """Choose the proposals of one image: finite, clipped, large enough, not suppressed, the best.

    Args:
        boxes: (R, B).
        scores: (R,) logits.
        levels: (R,) feature level of each.
        image_size: (height, width) without padding.
        nms_thresh: IoU above which the lower-scored of two proposals of a level goes.
        topk: most proposals.
        min_size: proposals with a side that is not longer are dropped.
        kind: of the boxes.

    Returns:
        Boxes and logits, best first.
    """
    finite = is_finite(boxes, scores)  # before clipping, which makes infinite ones finite
    boxes = kind.clip(boxes, image_size)
    rows = (finite & kind.is_larger(boxes, min_size)).nonzero().squeeze(1)
    boxes, scores, levels = boxes[rows], scores[rows], levels[rows]
    keep = suppress(boxes, scores, levels, nms_thresh, topk, kind)
    return boxes[keep], scores[keep]


def class_probabilities(logits: Tensor, use_sigmoid: bool = False) -> Tensor:
    """(R, K + 1) class logits -> float32 probabilities, by one decision for all classes or one for each."""
    logits = logits.float()
    return logits.sigmoid() if use_sigmoid else F.softmax(logits, dim=-1)


def choose_detections(
    boxes: Tensor,
    scores: Tensor,
    image_size: tuple[int, int],
    *,
    score_thresh: float,
    nms_thresh: float,
    topk: int,
    kind: BoxKind = UPRIGHT,
) -> Detections:
    """Choose the detections of one image from the scored boxes of its regions.

    Args:
        boxes: (R, Kb, B).
        scores: (R, K + 1).
        image_size: (height, width) to clip to.
        score_thresh: only higher scores count.
        nms_thresh: IoU above which the lower-scored of two detections of a class goes.
        topk: most detections; negative for no limit.
        kind: of the boxes.

    Returns:
        The detections; regions with non-finite predictions have none.
    """
    finite = boxes.flatten(1).isfinite().all(dim=1) & scores.isfinite().all(dim=1)
    foreground_scores = scores[:, :-1]
    # Every (region, class) with a score above the threshold is a candidate. NaN is above nothing.
    candidates = ((foreground_scores > score_thresh) & finite[:, None]).nonzero()
    regions, classes = candidates.unbind(dim=1)
    candidate_scores = foreground_scores[regions, classes]
    box_column = classes if fixed_size(boxes, 1) > 1 else torch.zeros_like(classes)
    candidate_boxes = kind.clip(boxes[regions, box_column], image_size)
    keep = suppress(candidate_boxes, candidate_scores, classes, nms_thresh, topk, kind)
    return Detections(candidate_boxes[keep], candidate_scores[keep], classes[keep], regions[keep])


def run_cascade(
    num_stages: int,
    sources: Sources,
    run_stage: Callable[[int, Sources], tuple[list[Tensor], list[Tensor]]],
    next_sources: Callable[[list[Tensor]], Sources],
) -> tuple[list[Tensor], list[Tensor]]:
    """Refine boxes stage by stage. All stages have a say in the class, the last alone in the box.

    Args:
        num_stages: S.
        sources: what the first stage starts from.
        run_stage: stage and its sources -> per image boxes and (R, K + 1) probabilities.
        next_sources: boxes of a stage -> sources of the next.

    Returns:
        Per image, boxes of the last stage, and the mean probabilities.
    """
    boxes, probs = run_stage(0, sources)
    probs_per_stage = [probs]
    for stage in range(1, num_stages):
        boxes, probs = run_stage(stage, next_sources(boxes))
        probs_per_stage.append(probs)
    return boxes, [torch.stack(per_stage).mean(dim=0) for per_stage in zip(*probs_per_stage)]


def decode_level(
    anchors: Tensor,
    scores: Tensor,
    deltas: Tensor,
    transform: BoxTransform,
    *,
    score_thresh: float,
    topk: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Decode the best predictions of a level of a dense detector; an anchor may give one per class.

    Args:
        anchors: (Ri, 4).
        scores: (Ri, K) in [0, 1].
        deltas: (Ri, 4).
        transform: how deltas stand for boxes.
        score_thresh: only higher scores count.
        topk: most candidates.

    Returns:
        (C, 4) boxes, (C,) scores and (C,) classes, best first.
    """
    rows, classes = (scores > score_thresh).nonzero().unbind(dim=1)
    best_scores, best = scores[rows, classes].topk(smaller_size(rows.shape[0], topk))
    rows, classes = rows[best], classes[best]
    return transform.apply_deltas(deltas[rows], anchors[rows]), best_scores, classes


def choose_dense_detections(
    levels: Sequence[tuple[Tensor, Tensor, Tensor]], nms_thresh: float, topk: int
) -> Detections:
    """Choose the detections of one image among the candidates of all levels.

    Args:
        levels: per level what `decode_level` returned.
        nms_thresh: IoU above which the lower-scored of two detections of a class goes.
        topk: most detections; negative for no limit.
    """
    boxes, scores, classes = (torch.cat(parts) for parts in zip(*levels))
    keep = suppress(boxes, scores, classes, nms_thresh, topk=-1).sort().values
    keep = first(keep[by_falling_score(scores[keep])], topk)
    return Detections(boxes[keep], scores[keep], classes[keep], keep)


def own_class_masks(logits: Tensor, classes: Tensor) -> Tensor:
    """Pick the mask that was predicted for each region's class.

    Args:
        logits: (R, K, M, M), or (R, 1, M, M) where masks are class-agnostic.
        classes: (R,) int64 in [0, K).

    Returns:
        (R, M, M) logits.
    """
    if fixed_size(logits, 1) == 1:
        return logits[:, 0]
    rows = arange_like(logits.shape[0], logits)
    return logits[rows, classes]


def own_class_mask_probabilities(logits: Tensor, classes: Tensor) -> Tensor:
    """(R, K or 1, M, M) logits and (R,) classes -> (R, 1, M, M) float32 probabilities."""
    return own_class_masks(logits, classes).float().sigmoid()[:, None]
