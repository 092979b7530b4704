"""Losses for classification and box regression.

Shapes: R boxes. Boxes are XYXY with x2 >= x1 and y2 >= y1, in any one frame.
`reduction` is "none" (a loss per element), "mean" or "sum"; the mean of nothing is 0 and has a gradient path.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from detectron2.utils.user_errors import UserValueError


def smooth_l1_loss(input: Tensor, target: Tensor, beta: float, reduction: str = "none") -> Tensor:
    """Penalise errors below `beta` quadratically and larger ones linearly.

    Unlike torch's, it is the plain L1 loss for beta = 0 and accepts empty inputs.
    """
    error = (input - target).abs()
    if beta >= 1e-5:  # the quadratic part divides by beta
        error = torch.where(error < beta, error.square() * (0.5 / beta), error - 0.5 * beta)
    return _reduce(error, reduction)


def sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, alpha: float = -1, gamma: float = 2, reduction: str = "none"
) -> Tensor:
    """Binary cross entropy that counts well-classified elements less (RetinaNet).

    Args:
        inputs: logits of any shape.
        targets: probabilities, usually 0 or 1, of the same shape.
        alpha: weight of the positive class in [0, 1]; negative for no weighting.
        gamma: exponent of the modulating factor.
    """
    inputs, targets = inputs.float(), targets.float()
    cross_entropy = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    prob = torch.sigmoid(inputs)
    prob_of_wrong = prob + targets - 2 * prob * targets
    loss = cross_entropy * prob_of_wrong**gamma
    if alpha >= 0:
        loss = loss * (targets * (2 * alpha - 1) + (1 - alpha))
    return _reduce(loss, reduction)


def giou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """1 - generalised IoU of matched boxes (Rezatofighi et al., 2019).

    Args:
        boxes1: (R, 4).
        boxes2: (R, 4).
        eps: keeps divisions by empty areas finite.

    Returns:
        (R,) losses in [0, 2], or their reduction.
    """
    overlap = _compare_boxes(boxes1, boxes2, eps)
    enclosing_area = _area(overlap.enclosing_size)
    unused = (enclosing_area - overlap.union) / (enclosing_area + eps)
    return _reduce(1 - overlap.iou + unused, reduction)


def diou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """1 - IoU + squared distance of centres over squared diagonal of the hull (Zheng et al., 2020).

    Args:
        boxes1: (R, 4).
        boxes2: (R, 4).
        eps: keeps divisions by empty areas finite.

    Returns:
        (R,) losses, or their reduction.
    """
    return _reduce(_distance_iou_loss(boxes1, boxes2, _compare_boxes(boxes1, boxes2, eps), eps), reduction)


def ciou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """DIoU loss plus a term for the difference in aspect ratio (Zheng et al., 2020).

    Args:
        boxes1: (R, 4).
        boxes2: (R, 4).
        eps: keeps divisions by empty areas finite.

    Returns:
        (R,) losses, or their reduction.
    """
    overlap = _compare_boxes(boxes1, boxes2, eps)
    loss = _distance_iou_loss(boxes1, boxes2, overlap, eps)
    width1, height1 = (boxes1[..., 2:] - boxes1[..., :2]).unbind(-1)
    width2, height2 = (boxes2[..., 2:] - boxes2[..., :2]).unbind(-1)
    angle_error = torch.atan(width2 / height2) - torch.atan(width1 / height1)
    aspect = (4 / math.pi**2) * angle_error.square()
    # The paper's trade-off is a constant for the gradient.
    trade_off = (aspect / (1 - overlap.iou + aspect + eps)).detach()
    return _reduce(loss + trade_off * aspect, reduction)


class _Overlap(NamedTuple):
    iou: Tensor  # (R,)
    union: Tensor  # (R,) area
    enclosing_size: Tensor  # (R, 2) width and height of the smallest box around both


def _compare_boxes(boxes1: Tensor, boxes2: Tensor, eps: float) -> _Overlap:
    start1, end1 = boxes1[..., :2], boxes1[..., 2:]
    start2, end2 = boxes2[..., :2], boxes2[..., 2:]
    common_size = (torch.minimum(end1, end2) - torch.maximum(start1, start2)).clamp(min=0)
    intersection = _area(common_size)
    union = _area(end1 - start1) + _area(end2 - start2) - intersection
    enclosing_size = torch.maximum(end1, end2) - torch.minimum(start1, start2)
    return _Overlap(intersection / (union + eps), union, enclosing_size)


def _area(size: Tensor) -> Tensor:
    return size[..., 0] * size[..., 1]


def _distance_iou_loss(boxes1: Tensor, boxes2: Tensor, overlap: _Overlap, eps: float) -> Tensor:
    doubled_offset = (boxes1[..., :2] + boxes1[..., 2:]) - (boxes2[..., :2] + boxes2[..., 2:])
    distance = doubled_offset.square().sum(dim=-1) / 4
    diagonal = overlap.enclosing_size.square().sum(dim=-1) + eps
    return 1 - overlap.iou + distance / diagonal


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.sum() / max(loss.numel(), 1)
    raise UserValueError(f"reduction must be 'none', 'mean' or 'sum', got {reduction!r}")
