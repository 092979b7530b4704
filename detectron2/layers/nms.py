"""Greedy non-maximum suppression, plain and per class, for upright and rotated boxes.

Shapes: R boxes. Boxes are XYXY in any one frame, or rotated: (centre x, centre y, width, height, degrees
counter-clockwise). Every function returns int64 indices of the boxes kept, best score first; boxes of equal
score keep their order. A box is dropped if its IoU with a box kept before it is greater than the threshold.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from detectron2.utils.user_errors import UserValueError

from .extension import fake_kernel, find_operator, is_concrete
from .rotated_boxes import pairwise_iou_rotated
from .wrappers import disable_torch_compiler

# (B, D) boxes, (M, D) boxes -> (B, M) bool: does the pair overlap too much?
_Conflicts = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Boxes swept at once: large enough to leave the work to numpy, small enough that boxes suppressed by one
# block are seldom looked at by the next.
_BLOCK_SIZE = 128


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Suppress boxes that overlap a better one.

    Args:
        boxes: (R, 4).
        scores: (R,).
        iou_threshold: largest IoU that two kept boxes may have.

    Returns:
        (K,) indices of the boxes kept.
    """
    _check_inputs(boxes, scores, box_dim=4)
    operator = find_operator("nms", boxes.device)
    if operator is not None:
        kept: Tensor = operator(boxes, scores, iou_threshold)
        return kept
    return _nms_reference(boxes, scores, iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Run `nms` within each group of boxes; boxes of different groups never suppress each other.

    Groups are compared, not moved apart, so that coordinates of any size keep their precision.

    Args:
        boxes: (R, 4).
        scores: (R,).
        idxs: (R,) group of each box, such as its class or feature level.
        iou_threshold: largest IoU that two kept boxes of a group may have.

    Returns:
        (K,) indices of the boxes kept.
    """
    _check_inputs(boxes, scores, box_dim=4, idxs=idxs)
    operator = find_operator("batched_nms", boxes.device)
    if operator is not None:
        kept: Tensor = operator(boxes, scores, idxs, iou_threshold)
        return kept
    return _batched_nms_reference(boxes, scores, idxs, iou_threshold)


def nms_rotated(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Suppress rotated boxes that overlap a better one.

    Args:
        boxes: (R, 5) rotated.
        scores: (R,).
        iou_threshold: largest IoU that two kept boxes may have.

    Returns:
        (K,) indices of the boxes kept.
    """
    _check_inputs(boxes, scores, box_dim=5)
    operator = find_operator("nms_rotated", boxes.device)
    if operator is not None:
        kept: Tensor = operator(boxes, scores, iou_threshold)
        return kept
    return _nms_rotated_reference(boxes, scores, iou_threshold)


def batched_nms_rotated(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Run `nms_rotated` within each group of boxes.

    Args:
        boxes: (R, 5) rotated.
        scores: (R,).
        idxs: (R,) group of each box.
        iou_threshold: largest IoU that two kept boxes of a group may have.

    Returns:
        (K,) indices of the boxes kept.
    """
    _check_inputs(boxes, scores, box_dim=5, idxs=idxs)
    operator = find_operator("batched_nms_rotated", boxes.device)
    if operator is not None:
        kept: Tensor = operator(boxes, scores, idxs, iou_threshold)
        return kept
    return _batched_nms_rotated_reference(boxes, scores, idxs, iou_threshold)


def _check_inputs(boxes: Tensor, scores: Tensor, *, box_dim: int, idxs: Tensor | None = None) -> None:
    if not is_concrete(boxes):
        return  # sizes may be unknown yet; the fake kernels state what must hold
    if boxes.ndim != 2 or boxes.shape[1] != box_dim:
        raise UserValueError(f"expected boxes of shape (R, {box_dim}), got {tuple(boxes.shape)}")
    for name, values in (("scores", scores), ("idxs", idxs)):
        if values is not None and values.shape != boxes.shape[:1]:
            raise UserValueError(
                f"expected one entry of {name} per box, shape ({len(boxes)},), got {tuple(values.shape)}"
            )


def _fake_suppression(boxes: Tensor, scores: Tensor, idxs: Tensor | None, box_dim: int) -> Tensor:
    torch._check(boxes.ndim == 2 and boxes.shape[1] == box_dim, lambda: f"boxes: {tuple(boxes.shape)}")
    for values in (scores, idxs):
        if values is not None:
            torch._check(values.ndim == 1, lambda: "scores and idxs must have one dimension")
            torch._check(values.shape[0] == boxes.shape[0], lambda: "expected one score and idx per box")
    num_kept = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(num_kept, dtype=torch.int64)


@fake_kernel("nms")
def _(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return _fake_suppression(boxes, scores, None, 4)


@fake_kernel("batched_nms")
def _(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    return _fake_suppression(boxes, scores, idxs, 4)


@fake_kernel("nms_rotated")
def _(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return _fake_suppression(boxes, scores, None, 5)


@fake_kernel("batched_nms_rotated")
def _(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    return _fake_suppression(boxes, scores, idxs, 5)


def _nms_reference(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return _suppress(boxes, scores, None, _upright_conflicts(iou_threshold))


def _batched_nms_reference(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    return _suppress(boxes, scores, idxs, _upright_conflicts(iou_threshold))


def _nms_rotated_reference(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return _suppress(boxes, scores, None, _rotated_conflicts(iou_threshold))


def _batched_nms_rotated_reference(
    boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float
) -> Tensor:
    return _suppress(boxes, scores, idxs, _rotated_conflicts(iou_threshold))


@disable_torch_compiler
def _suppress(boxes: Tensor, scores: Tensor, idxs: Tensor | None, conflicts: _Conflicts) -> Tensor:
    """Sort by score, sweep every group, and return what is left in that order."""
    order = torch.argsort(scores.detach(), descending=True, stable=True).cpu()
    sorted_boxes = boxes.detach().cpu()[order]
    if sorted_boxes.dtype not in (torch.float32, torch.float64):
        sorted_boxes = sorted_boxes.float()
    candidates = sorted_boxes.numpy()
    is_kept = np.zeros(len(candidates), dtype=bool)
    for members in _split_groups(None if idxs is None else idxs.cpu()[order].numpy(), len(candidates)):
        is_kept[members] = _sweep(candidates[members], conflicts)
    return order[torch.from_numpy(is_kept)].to(boxes.device)


def _split_groups(groups: np.ndarray | None, num_boxes: int) -> list[np.ndarray]:
    """Positions of the boxes of each group, ascending."""
    if groups is None:
        return [np.arange(num_boxes)]
    by_group = np.argsort(groups, kind="stable")
    boundaries = np.flatnonzero(np.diff(groups[by_group])) + 1
    return np.split(by_group, boundaries)


def _sweep(boxes: np.ndarray, conflicts: _Conflicts) -> np.ndarray:
    """Greedy choice among boxes (R, D) sorted by falling score; returns (R,) bool.

    Blocks of the best boxes left are decided among themselves; then all that they suppress leaves the race.
    """
    is_kept = np.zeros(len(boxes), dtype=bool)
    alive = np.arange(len(boxes))
    while alive.size:
        block, alive = alive[:_BLOCK_SIZE], alive[_BLOCK_SIZE:]
        kept = block[_sweep_block(conflicts(boxes[block], boxes[block]))]
        is_kept[kept] = True
        if alive.size:
            alive = alive[~conflicts(boxes[kept], boxes[alive]).any(axis=0)]
    return is_kept


def _sweep_block(conflicts: np.ndarray) -> list[int]:
    """Indices of the rows that no kept earlier row conflicts with; a row of bits is one Python integer."""
    rows = np.packbits(conflicts, axis=1, bitorder="little")
    kept, suppressed = [], 0
    for index, row in enumerate(rows):
        if not suppressed >> index & 1:
            kept.append(index)
            suppressed |= int.from_bytes(row.tobytes(), "little")
    return kept


def _upright_conflicts(iou_threshold: float) -> _Conflicts:
    def conflicts(boxes1: np.ndarray, boxes2: np.ndarray) -> np.ndarray:
        x1, y1, x2, y2 = np.ascontiguousarray(boxes1.T)[:, :, None]  # each (B, 1)
        x3, y3, x4, y4 = np.ascontiguousarray(boxes2.T)  # each (M,)
        width = np.minimum(x2, x4)
        width -= np.maximum(x1, x3)
        intersection = np.minimum(y2, y4)
        intersection -= np.maximum(y1, y3)
        np.maximum(intersection, 0, out=intersection)
        intersection *= np.maximum(width, 0, out=width)
        # Two boxes without area divide 0 by 0, infinite ones cancel out: NaN, which is no conflict.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            union = (x2 - x1) * (y2 - y1) + (x4 - x3) * (y4 - y3)
            union -= intersection
            intersection /= union
        exceeds: np.ndarray = intersection > _floor_to(iou_threshold, intersection.dtype)
        return exceeds

    return conflicts


def _rotated_conflicts(iou_threshold: float) -> _Conflicts:
    def conflicts(boxes1: np.ndarray, boxes2: np.ndarray) -> np.ndarray:
        iou = pairwise_iou_rotated(torch.from_numpy(boxes1), torch.from_numpy(boxes2)).numpy()
        return iou > _floor_to(iou_threshold, iou.dtype)

    return conflicts


def _floor_to(value: float, dtype: np.dtype) -> np.floating:
    """The largest number of `dtype` that is <= value: comparing with it is exact, and casts no array."""
    rounded: np.floating = dtype.type(value)
    below: np.floating = np.nextafter(rounded, dtype.type(-np.inf))
    return below if float(rounded) > value else rounded
