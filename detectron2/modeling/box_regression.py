"""Box regression: numbers that a network predicts <-> boxes, and the losses between them.

Shapes: N images; R boxes of an image; K sets of predictions per box, usually one per class.
Boxes are XYXY (4 numbers) or XYWHA (5; degrees, counter-clockwise), source and target in one frame.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from detectron2.layers.losses import ciou_loss, diou_loss, giou_loss, smooth_l1_loss
from detectron2.layers.tracing import constant_like, is_tracing
from detectron2.structures.boxes import Boxes
from detectron2.utils.user_errors import UserTypeError, UserValueError

# No box grows by more than this in one step: 1000 / 16 is the largest anchor over the smallest stride.
_DEFAULT_SCALE_CLAMP = math.log(1000.0 / 16)

_IOU_LOSSES = {"giou": giou_loss, "diou": diou_loss, "ciou": ciou_loss}


class BoxTransform(Protocol):
    """What heads need of a transform."""

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor: ...

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor: ...


def _center_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 4) XYXY -> (..., 2) centres and (..., 2) sizes."""
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * size, size


def _check_sources(sizes: Tensor) -> None:
    # Only on the CPU: asking a GPU would make every step wait for it. There the loss shows as non-finite.
    if not is_tracing() and sizes.device.type == "cpu" and not bool((sizes > 0).all()):
        raise UserValueError(
            "Boxes to regress from must have positive width and height. Remove degenerate proposals and "
            "ground truth first (`Boxes.nonempty`)."
        )


class Box2BoxTransform:
    """R-CNN's parametrisation: shift relative to the source's size, and log of the change in size."""

    def __init__(
        self, weights: tuple[float, float, float, float], scale_clamp: float = _DEFAULT_SCALE_CLAMP
    ) -> None:
        """
        Args:
            weights: factors of dx, dy, dw, dh, which bring the regression targets to about unit variance.
            scale_clamp: largest dw and dh (before weighting) that is believed when decoding.
        """
        self.weights = weights
        self.scale_clamp = scale_clamp

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Encode targets relative to sources, so that `apply_deltas(get_deltas(s, t), s) == t`.

        Args:
            src_boxes: (R, 4) XYXY with positive sizes, such as anchors.
            target_boxes: (R, 4) XYXY.

        Returns:
            (R, 4) dx, dy, dw, dh.

        Raises:
            TypeError: an argument is not a tensor (a `Boxes` has one in `.tensor`).
            ValueError: a source has no area (checked on the CPU).
        """
        _require_tensors(src_boxes, target_boxes)
        src_center, src_size = _center_size(src_boxes)
        target_center, target_size = _center_size(target_boxes)
        _check_sources(src_size)
        shift = (target_center - src_center) / src_size
        growth = torch.log(target_size / src_size)
        return torch.cat((shift, growth), dim=-1) * constant_like(self.weights, shift)

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Decode predictions.

        Args:
            deltas: (R, K*4); each group of four is applied to the same box.
            boxes: (R, 4) XYXY sources.

        Returns:
            (R, K*4) float32 XYXY.
        """
        # Half precision cannot hold pixel coordinates.
        shift, growth = _unpack(deltas.float(), self.weights, 2)  # (R, K, 2) each
        center, size = _center_size(boxes.to(shift.dtype).unsqueeze(-2))  # (R, 1, 2)
        new_center = shift * size + center
        half_size = 0.5 * torch.exp(growth.clamp(max=self.scale_clamp)) * size
        return torch.cat((new_center - half_size, new_center + half_size), dim=-1).flatten(-2)


class Box2BoxTransformRotated:
    """The same for rotated boxes, with a fifth number for the turn."""

    def __init__(
        self, weights: tuple[float, float, float, float, float], scale_clamp: float = _DEFAULT_SCALE_CLAMP
    ) -> None:
        """
        Args:
            weights: factors of dx, dy, dw, dh, da; da is in radians before weighting.
            scale_clamp: largest dw and dh (before weighting) that is believed when decoding.
        """
        self.weights = weights
        self.scale_clamp = scale_clamp

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Encode targets relative to sources.

        Args:
            src_boxes: (R, 5) XYWHA with positive sizes.
            target_boxes: (R, 5) XYWHA.

        Returns:
            (R, 5) dx, dy, dw, dh, da. The turn is the short way round, in [-180, 180) degrees.
        """
        _require_tensors(src_boxes, target_boxes)
        src_center, src_size, src_angle = src_boxes.split((2, 2, 1), dim=-1)
        target_center, target_size, target_angle = target_boxes.split((2, 2, 1), dim=-1)
        _check_sources(src_size)
        shift = (target_center - src_center) / src_size
        growth = torch.log(target_size / src_size)
        turn = _short_turn(target_angle - src_angle) * (math.pi / 180)
        return torch.cat((shift, growth, turn), dim=-1) * constant_like(self.weights, shift)

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Decode predictions.

        Args:
            deltas: (R, K*5).
            boxes: (R, 5) XYWHA sources.

        Returns:
            (R, K*5) float32 XYWHA with angles in [-180, 180).
        """
        shift, growth, turn = _unpack(deltas.float(), self.weights, 2, 2)
        center, size, angle = boxes.to(shift.dtype).unsqueeze(-2).split((2, 2, 1), dim=-1)  # (R, 1, .)
        new_center = shift * size + center
        new_size = torch.exp(growth.clamp(max=self.scale_clamp)) * size
        new_angle = _short_turn(turn * (180 / math.pi) + angle)
        return torch.cat((new_center, new_size, new_angle), dim=-1).flatten(-2)


class Box2BoxTransformLinear:
    """Distances from the source's centre to the four sides of the target (FCOS)."""

    def __init__(self, normalize_by_size: bool = True) -> None:
        """
        Args:
            normalize_by_size: measure distances in sizes of the source instead of pixels.
        """
        self.normalize_by_size = normalize_by_size

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Encode targets whose sides lie around the centres of the sources.

        Args:
            src_boxes: (R, 4) XYXY.
            target_boxes: (R, 4) XYXY.

        Returns:
            (R, 4) distances to the left, top, right and bottom side; negative where the centre lies outside.
        """
        _require_tensors(src_boxes, target_boxes)
        center, size = _center_size(src_boxes)
        distances = torch.cat((center - target_boxes[..., :2], target_boxes[..., 2:] - center), dim=-1)
        if not self.normalize_by_size:
            return distances
        _check_sources(size)
        return distances / torch.cat((size, size), dim=-1)

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Decode predictions; negative distances count as zero.

        Args:
            deltas: (R, K*4).
            boxes: (R, 4) XYXY sources.

        Returns:
            (R, K*4) float32 XYXY.
        """
        distances = F.relu(deltas.float()).unflatten(-1, (-1, 4))  # (R, K, 4)
        center, size = _center_size(boxes.to(distances.dtype).unsqueeze(-2))  # (R, 1, 2)
        if self.normalize_by_size:
            distances = distances * torch.cat((size, size), dim=-1)
        return torch.cat((center - distances[..., :2], center + distances[..., 2:]), dim=-1).flatten(-2)


def dense_box_regression_loss(
    anchors: list[Boxes | Tensor],
    box2box_transform: BoxTransform,
    pred_anchor_deltas: list[Tensor],
    gt_boxes: list[Tensor],
    fg_mask: Any,
    box_reg_loss_type: str = "smooth_l1",
    smooth_l1_beta: float = 0.0,
) -> Tensor:
    """Sum the regression losses of the foreground anchors of all images.

    Args:
        anchors: per level, the anchors that all images share.
        box2box_transform: how deltas stand for boxes.
        pred_anchor_deltas: per level, (N, Ri, B) predictions.
        gt_boxes: per image, (R, B) the target of each anchor, R over all levels.
        fg_mask: (N, R) bool, or any index of the leading dimensions of an (N, R, B) tensor.
        box_reg_loss_type: "smooth_l1" compares deltas; "giou", "diou" and "ciou" compare decoded boxes.
        smooth_l1_beta: where the smooth L1 loss turns from quadratic to linear.

    Returns:
        A float32 scalar that depends on every prediction, whatever the mask.
    """
    sources = torch.cat([a.tensor if isinstance(a, Boxes) else a for a in anchors])
    targets = torch.stack(gt_boxes)[fg_mask]  # (fg, B)
    # Only foreground is encoded or decoded; the targets of other anchors may be no boxes at all.
    sources = sources.expand(len(gt_boxes), *sources.shape)[fg_mask]
    deltas = torch.cat(pred_anchor_deltas, dim=1)[fg_mask].float()
    if box_reg_loss_type == "smooth_l1":
        return smooth_l1_loss(deltas, box2box_transform.get_deltas(sources, targets), smooth_l1_beta, "sum")
    if box_reg_loss_type in _IOU_LOSSES:
        decoded = box2box_transform.apply_deltas(deltas, sources)
        return _IOU_LOSSES[box_reg_loss_type](decoded, targets, reduction="sum")
    raise UserValueError(
        f"Unknown box regression loss {box_reg_loss_type!r}; use one of smooth_l1, {', '.join(_IOU_LOSSES)} "
        "(the keys BBOX_REG_LOSS_TYPE of MODEL.RPN, MODEL.ROI_BOX_HEAD and MODEL.RETINANET)."
    )


# The name under which this is imported from the published package.
_dense_box_regression_loss = dense_box_regression_loss


def _require_tensors(*boxes: Tensor) -> None:
    for b in boxes:
        if not isinstance(b, Tensor):
            raise UserTypeError(
                f"Expected a tensor of boxes, got {type(b).__name__}; a Boxes object has one in .tensor"
            )


def _unpack(deltas: Tensor, weights: tuple[float, ...], *sizes: int) -> tuple[Tensor, ...]:
    """(R, K*B) weighted deltas -> their parts, each (R, K, part), with the weights taken out."""
    parts = deltas.unflatten(-1, (-1, len(weights))) / constant_like(weights, deltas)
    unpacked: tuple[Tensor, ...] = parts.split((*sizes, len(weights) - sum(sizes)), dim=-1)
    return unpacked


def _short_turn(degrees: Tensor) -> Tensor:
    return (degrees + 180) % 360 - 180
