"""IoU of rotated boxes.

Shapes: N and M boxes. Boxes are (centre x, centre y, width, height, angle in degrees); the angle turns
counter-clockwise on a screen whose y axis points down.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detectron2.utils.user_errors import UserValueError

from .extension import fake_kernel, find_operator

# Pairs compared at once; bounds the memory of the reference at a few dozen tensors of this size.
_MAX_PAIRS = 1 << 15
_MIN_AREA = 1e-14  # a smaller box overlaps nothing


def pairwise_iou_rotated(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of every pair of rotated boxes.

    Args:
        boxes1: (N, 5).
        boxes2: (M, 5).

    Returns:
        (N, M) IoU; 0 where one of the boxes has no area.
    """
    for name, boxes in (("boxes1", boxes1), ("boxes2", boxes2)):
        if boxes.ndim != 2 or boxes.shape[1] != 5:
            raise UserValueError(f"expected {name} of shape (N, 5), got {tuple(boxes.shape)}")
    operator = find_operator("box_iou_rotated", boxes1.device)
    # The operator has no gradient; the plain implementation has.
    is_differentiated = torch.is_grad_enabled() and (boxes1.requires_grad or boxes2.requires_grad)
    if operator is not None and not is_differentiated:
        ious: Tensor = operator(boxes1, boxes2)
        return ious
    return _pairwise_iou_rotated_reference(boxes1, boxes2)


@fake_kernel("box_iou_rotated")
def _(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    torch._check(boxes1.ndim == 2 and boxes1.shape[1] == 5, lambda: f"boxes1: {tuple(boxes1.shape)}")
    torch._check(boxes2.ndim == 2 and boxes2.shape[1] == 5, lambda: f"boxes2: {tuple(boxes2.shape)}")
    dtype = torch.promote_types(boxes1.dtype, torch.float32)
    return boxes1.new_empty(boxes1.shape[0], boxes2.shape[0], dtype=dtype)


def _pairwise_iou_rotated_reference(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    dtype = torch.promote_types(boxes1.dtype, torch.float32)
    if 0 in (len(boxes1), len(boxes2)):
        return boxes1.new_zeros(len(boxes1), len(boxes2), dtype=dtype)
    # Areas are differences of products: float64 keeps the IoU exact in float32.
    boxes1, boxes2 = boxes1.double(), boxes2.double()
    rows = boxes1.split(max(_MAX_PAIRS // len(boxes2), 1))
    return torch.cat([_iou_of_pairs(chunk, boxes2) for chunk in rows]).to(dtype)


def _iou_of_pairs(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    area1 = (boxes1[:, 2] * boxes1[:, 3])[:, None]  # (N, 1)
    area2 = boxes2[:, 2] * boxes2[:, 3]  # (M,)
    intersection = _intersection_area(boxes1[:, None], boxes2)
    iou = intersection / (area1 + area2 - intersection)
    return iou.where((area1 >= _MIN_AREA) & (area2 >= _MIN_AREA), 0)


def _intersection_area(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Area of the intersection, by Green's theorem.

    In the frame of box 2, which is [-a, a] x [-b, b] there, the area is the integral of clamp(x, -a, a) dy
    along that part of the outline of box 1 where |y| <= b. Nothing in it depends on a decision that rounding
    could turn: coinciding edges and equal boxes need no care.

    Args:
        boxes1: (N, 1, 5).
        boxes2: (M, 5).

    Returns:
        (N, M).
    """
    cos1, sin1 = _cos_sin(boxes1)
    cos2, sin2 = _cos_sin(boxes2)
    dx, dy = boxes1[..., 0] - boxes2[..., 0], boxes1[..., 1] - boxes2[..., 1]
    center_x, center_y = dx * cos2 - dy * sin2, dx * sin2 + dy * cos2  # (N, M)
    cos, sin = cos1 * cos2 + sin1 * sin2, sin1 * cos2 - cos1 * sin2  # of the angle between the boxes
    half_width, half_height = boxes1[..., 2].abs() / 2, boxes1[..., 3].abs() / 2  # (N, 1)
    side_x, side_y = half_width * cos, -half_width * sin  # from the centre along the width
    up_x, up_y = half_height * sin, half_height * cos  # from the centre along the height
    bound_x, bound_y = boxes2[..., 2].abs() / 2, boxes2[..., 3].abs() / 2  # (M,)

    corner_x = [center_x + i * side_x + j * up_x for i, j in _CORNERS]
    corner_y = [center_y + i * side_y + j * up_y for i, j in _CORNERS]
    area = torch.zeros_like(center_x)
    for start, end in ((0, 1), (1, 2), (2, 3), (3, 0)):
        area += _edge_integral(
            corner_x[start], corner_y[start], corner_x[end], corner_y[end], bound_x, bound_y
        )
    return area.abs()


_CORNERS = ((1, 1), (-1, 1), (-1, -1), (1, -1))


def _edge_integral(x0: Tensor, y0: Tensor, x1: Tensor, y1: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Integrate clamp(x, -a, a) dy along the edge from (x0, y0) to (x1, y1), where |y| <= b.

    The edge is cut where it enters and leaves |y| <= b, and there where it crosses |x| = a: between two cuts
    the integrand is linear, so the trapezoid rule is exact. Times run from 0 to 1 along the edge.
    """
    first, last = (t.clamp(0, 1) for t in _crossing_times(y0, y1, b))
    inner = [t.clamp(first, last) for t in _crossing_times(x0, x1, a)]
    times = [first, *inner, last]
    values = [torch.lerp(x0, x1, t).clamp(-a, a) for t in times]
    trapezoids = [
        (values[i] + values[i + 1]) * (times[i + 1] - times[i]) for i in range(3)
    ]  # twice their areas
    return sum(trapezoids[1:], trapezoids[0]) * (y1 - y0) / 2


def _crossing_times(start: Tensor, end: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    """When a linear motion from `start` to `end` is at -bound and at bound, the earlier first.

    Without motion the times are 0 and any: the integrals above do not depend on them.
    """
    motion = end - start
    motion = motion.where(motion != 0, 1)
    at_low, at_high = (-bound - start) / motion, (bound - start) / motion
    return torch.minimum(at_low, at_high), torch.maximum(at_low, at_high)


def _cos_sin(boxes: Tensor) -> tuple[Tensor, Tensor]:
    angle = torch.deg2rad(boxes[..., 4])
    return torch.cos(angle), torch.sin(angle)
