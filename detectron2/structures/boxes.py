"""Upright boxes and their formats.

Shapes: N and M boxes, P points. Boxes are XYXY in pixels of one image; the corner of pixel (0, 0) is (0, 0),
so a box has width x2 - x1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum, unique
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from detectron2.layers.tracing import is_tracing
from detectron2.utils.user_errors import (
    UserFloatingPointError,
    UserNotImplementedError,
    UserTypeError,
    UserValueError,
)

from .rows import TensorRows, cat_tensors

RawBox = list[float] | tuple[float, ...] | Tensor | np.ndarray
"""One box of 4 or 5 numbers, or an array or tensor of N of them."""


@unique
class BoxMode(IntEnum):
    """How the numbers of a box are to be read."""

    XYXY_ABS = 0
    """(x1, y1, x2, y2) in pixels."""
    XYWH_ABS = 1
    """(x1, y1, width, height) in pixels."""
    XYXY_REL = 2
    """(x1, y1, x2, y2) as fractions of the image; not convertible."""
    XYWH_REL = 3
    """(x1, y1, width, height) as fractions of the image; not convertible."""
    XYWHA_ABS = 4
    """(centre x, centre y, width, height, degrees counter-clockwise) in pixels."""

    @staticmethod
    def convert(box: RawBox, from_mode: BoxMode, to_mode: BoxMode) -> RawBox:
        """Rewrite boxes in another mode.

        From rotated to upright means the smallest upright box around the rotated one.

        Args:
            box: list or tuple of 4 (5 if rotated) numbers, or array or tensor (N, 4) or (N, 5).
            from_mode: how `box` is written.
            to_mode: how to write it.

        Returns:
            The same kind of object, with the same dtype; `box` itself when there is nothing to do.

        Raises:
            ValueError: if the numbers of a box are too few or too many for `from_mode`.
            NotImplementedError: if there is no conversion, as for relative modes, which lack the image's
            size.
        """
        from_mode, to_mode = BoxMode(from_mode), BoxMode(to_mode)
        if from_mode == to_mode:
            return box
        if (from_mode, to_mode) not in _CONVERSIONS:
            raise UserNotImplementedError(f"there is no conversion from {from_mode.name} to {to_mode.name}")
        _check_box_size(box, 5 if from_mode == BoxMode.XYWHA_ABS else 4, from_mode)
        boxes = torch.as_tensor(np.asarray(box) if isinstance(box, (list, tuple)) else box)
        convert = _CONVERSIONS[from_mode, to_mode]
        if not boxes.is_floating_point() and BoxMode.XYWHA_ABS not in (from_mode, to_mode):
            converted = convert(boxes)  # integers stay integers
        else:
            # float64 represents every float32 exactly; half pixels and angles have no place in integers.
            dtype = boxes.dtype if boxes.is_floating_point() else torch.float32
            converted = convert(boxes.double()).to(dtype)
        if isinstance(box, (list, tuple)):
            return type(box)(converted.tolist())
        return converted.numpy() if isinstance(box, np.ndarray) else converted


def _check_box_size(box: RawBox, expected: int, mode: BoxMode) -> None:
    size = len(box) if isinstance(box, (list, tuple)) else box.shape[-1]
    if size != expected:
        raise UserValueError(f"a box in {mode.name} has {expected} numbers, got {size}: {box!r}")


def _xywh_to_xyxy(boxes: Tensor) -> Tensor:
    return torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], dim=-1)


def _xyxy_to_xywh(boxes: Tensor) -> Tensor:
    return torch.cat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], dim=-1)


def _xywh_to_xywha(boxes: Tensor) -> Tensor:
    size = boxes[..., 2:]
    return torch.cat([boxes[..., :2] + size / 2, size, torch.zeros_like(boxes[..., :1])], dim=-1)


def _xywha_to_xyxy(boxes: Tensor) -> Tensor:
    center, (width, height, angle) = boxes[..., :2], boxes[..., 2:].unbind(-1)
    cos, sin = torch.deg2rad(angle).cos().abs(), torch.deg2rad(angle).sin().abs()
    half_size = torch.stack([cos * width + sin * height, sin * width + cos * height], dim=-1) / 2
    return torch.cat([center - half_size, center + half_size], dim=-1)


_CONVERSIONS: dict[tuple[BoxMode, BoxMode], Callable[[Tensor], Tensor]] = {
    (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS): _xyxy_to_xywh,
    (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS): _xywh_to_xyxy,
    (BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS): _xywh_to_xywha,
    (BoxMode.XYXY_ABS, BoxMode.XYWHA_ABS): lambda boxes: _xywh_to_xywha(_xyxy_to_xywh(boxes)),
    (BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS): _xywha_to_xyxy,
    (BoxMode.XYWHA_ABS, BoxMode.XYWH_ABS): lambda boxes: _xyxy_to_xywh(_xywha_to_xyxy(boxes)),
}


AnyBoxes = TypeVar("AnyBoxes", bound="Boxes")


class Boxes(TensorRows):
    """The boxes of one image.

    Attributes:
        tensor: (N, box_dim) float.
        box_dim: numbers per box: 4, and 5 for `RotatedBoxes`.
    """

    box_dim: ClassVar[int] = 4

    def __init__(self, tensor: Tensor) -> None:
        """
        Args:
            tensor: (N, box_dim); anything else that torch.as_tensor takes becomes float32 on the CPU.
        """
        super().__init__(_as_box_tensor(tensor, self.box_dim))

    def clone(self: AnyBoxes) -> AnyBoxes:
        """Copy the boxes."""
        return type(self)(self.tensor.clone())

    def to(self: AnyBoxes, device: torch.device | str) -> AnyBoxes:
        """Return the boxes on `device`."""
        return type(self)(self.tensor.to(device=device))

    @classmethod
    def cat(cls: type[AnyBoxes], boxes_list: Sequence[Boxes]) -> AnyBoxes:
        """Concatenate the boxes of a list or tuple, which may be empty.

        Raises:
            TypeError: the list holds something else, as upright boxes among rotated ones.
        """
        for boxes in boxes_list:
            if isinstance(boxes, Boxes) and boxes.box_dim != cls.box_dim:
                raise UserTypeError(
                    f"expected only {cls.__name__} to concatenate, got {type(boxes).__name__}"
                )
        return cls(cat_tensors(boxes_list, Boxes, torch.empty(0, cls.box_dim)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.tensor})"

    def __iter__(self) -> Iterator[Tensor]:
        """Yield one (box_dim,) tensor per box."""
        yield from self.tensor

    def area(self) -> Tensor:
        """Return (N,) areas."""
        width, height = _sizes(self.tensor)
        return width * height

    def clip(self, box_size: tuple[int, int]) -> None:
        """Move all corners into the image, in place.

        Args:
            box_size: (height, width) of the image; a tensor of both while torch.jit.trace records.

        Raises:
            FloatingPointError: if a coordinate is infinite or NaN.
        """
        if not is_tracing() and not torch.isfinite(self.tensor).all():
            bad = (~torch.isfinite(self.tensor)).any(dim=1).nonzero().flatten().tolist()
            raise UserFloatingPointError(
                f"boxes {bad[:10]} of {len(self)} have infinite or NaN coordinates and cannot be clipped; "
                "look for a learning rate that is too high or a broken annotation"
            )
        height, width = box_size[0], box_size[1]
        x, y = self.tensor[:, 0::2].clamp(0, width), self.tensor[:, 1::2].clamp(0, height)
        self.tensor = torch.stack([x, y], dim=2).flatten(1)  # (N, 2 corners, 2 axes) -> (N, 4)

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """Return (N,) bool: are both width and height greater than `threshold`?"""
        width, height = _sizes(self.tensor)
        return (width > threshold) & (height > threshold)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: int = 0) -> Tensor:
        """Tell which boxes lie in the image.

        Args:
            box_size: (height, width) of the image.
            boundary_threshold: pixels by which a box may stand out.

        Returns:
            (N,) bool.
        """
        height, width = box_size[0], box_size[1]
        x1, y1, x2, y2 = self.tensor.unbind(dim=-1)
        starts_inside = (x1 >= -boundary_threshold) & (y1 >= -boundary_threshold)
        return starts_inside & (x2 < width + boundary_threshold) & (y2 < height + boundary_threshold)

    def get_centers(self) -> Tensor:
        """Return (N, 2) centres, x first."""
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply all coordinates, in place."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y


def _as_box_tensor(values: Any, box_dim: int) -> Tensor:
    """Check and complete what a constructor of boxes was given; a tensor keeps its device."""
    if isinstance(values, Tensor):
        tensor = values.float()
        if is_tracing():
            return tensor  # a comparison of its sizes would become a constant of the trace
    else:
        tensor = torch.as_tensor(values, dtype=torch.float32, device="cpu")
    if (tensor.ndim != 2 or tensor.shape[-1] != box_dim) and tensor.numel() == 0:
        return tensor.reshape(-1, box_dim)
    if tensor.ndim != 2 or tensor.shape[-1] != box_dim:
        raise UserValueError(f"expected boxes of shape (N, {box_dim}), got {tuple(tensor.shape)}")
    return tensor


def _sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 4) boxes -> widths and heights."""
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    return x2 - x1, y2 - y1


def pairwise_intersection(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Return the (N, M) areas that N boxes share with M boxes."""
    first, second = boxes1.tensor[:, None], boxes2.tensor
    start = torch.maximum(first[..., :2], second[:, :2])  # (N, M, 2)
    width, height = (torch.minimum(first[..., 2:], second[:, 2:]) - start).clamp_(min=0).unbind(dim=2)
    return width * height


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Return the (N, M) intersection over union of N boxes with M boxes; 0 where they do not meet."""
    shared = pairwise_intersection(boxes1, boxes2)
    union = boxes1.area()[:, None] + boxes2.area() - shared
    return (shared / union).where(shared > 0, 0)


def pairwise_ioa(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Return (N, M): how much of each of the M boxes lies in each of the N boxes; 0 if they do not meet."""
    shared = pairwise_intersection(boxes1, boxes2)
    return (shared / boxes2.area()).where(shared > 0, 0)


def pairwise_point_box_distance(points: Tensor, boxes: Boxes) -> Tensor:
    """Measure how far each point is from the four edges of each box.

    Args:
        points: (P, 2), x first.
        boxes: M boxes.

    Returns:
        (P, M, 4) distances to the left, top, right and bottom edge; negative beyond an edge.
    """
    x, y = points[:, None].unbind(dim=2)  # (P, 1)
    x1, y1, x2, y2 = boxes.tensor.unbind(dim=1)  # (M,)
    return torch.stack([x - x1, y - y1, x2 - x, y2 - y], dim=2)


def matched_pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Return the (N,) intersection over union of each box with the box at the same position.

    Raises:
        ValueError: if there are not as many boxes in both.
    """
    if len(boxes1) != len(boxes2):
        raise UserValueError(f"expected as many boxes in both, got {len(boxes1)} and {len(boxes2)}")
    first, second = boxes1.tensor, boxes2.tensor
    start, end = torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])
    width, height = (end - start).clamp(min=0).unbind(dim=1)
    shared = width * height
    return shared / (boxes1.area() + boxes2.area() - shared)
