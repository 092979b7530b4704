"""Weighted sums of feature vectors: the core of the reference implementations that sample feature maps.

Shapes: N images, C channels, H rows, W columns; P output vectors, each a sum over L of M input vectors,
where M = N*H*W.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from detectron2.utils.user_errors import UserValueError

from .extension import is_concrete

# Entries of an index table; bounds the memory of what is gathered at once.
_MAX_ENTRIES = 1 << 20
# Entries that cost less than another chunk.
_SMALL_TABLE = 1 << 15
# Numbers gathered at once for the gradient of the weights.
_MAX_GATHERED = 1 << 22


def check_roi_inputs(input: Tensor, boxes: Tensor, *, box_dim: int) -> None:
    """Raise ValueError unless features and boxes have the shapes of ROIAlign, and the images exist."""
    if not is_concrete(boxes):
        return
    if input.ndim != 4:
        raise UserValueError(f"expected features of shape (N, C, H, W), got {tuple(input.shape)}")
    if boxes.ndim != 2 or boxes.shape[1] != box_dim:
        raise UserValueError(
            f"expected boxes of shape (R, {box_dim}), image index first, got {tuple(boxes.shape)}"
        )
    if boxes.device.type == "cpu" and len(boxes):
        first, last = boxes[:, 0].aminmax()
        if first < 0 or last >= len(input):
            raise UserValueError(
                f"boxes name images {int(first)} to {int(last)}, but there are features of {len(input)}"
            )


def plan_chunks(num_rows: Tensor, num_columns: Tensor, num_cells: int) -> tuple[Tensor, list[int]]:
    """Order boxes by size, and cut the order into chunks whose index tables are small and well filled.

    The tables of a chunk are padded to its largest box, in both directions.

    Args:
        num_rows: (R,) table rows that an output cell of each box needs.
        num_columns: (R,) table columns that it needs.
        num_cells: output cells per box.

    Returns:
        (R,) order of the boxes, and the size of each chunk; one empty chunk if there are no boxes.
    """
    level = (2 * num_rows.clamp(min=1).log2()).ceil()  # similar heights first, then rising widths
    order = num_columns.argsort(stable=True)
    order = order[level[order].argsort(stable=True)]
    chunks: list[int] = []
    count, needed, most_rows, most_columns = 0, 0, 0, 0
    for rows, columns in torch.stack([num_rows, num_columns], dim=1)[order].tolist():
        most_rows, most_columns = max(most_rows, rows), max(most_columns, columns)
        needed += num_cells * rows * columns
        padded = (count + 1) * num_cells * most_rows * most_columns
        if count and (padded > _MAX_ENTRIES or padded > 1.5 * needed + _SMALL_TABLE):
            chunks.append(count)
            count, needed = 0, num_cells * rows * columns
            most_rows, most_columns = rows, columns
        count += 1
    return order, [*chunks, count]


def to_rows(features: Tensor) -> Tensor:
    """(N, C, H, W) -> (N*H*W, C), one feature vector per row; half precision becomes float32."""
    if features.dtype in (torch.float16, torch.bfloat16):
        features = features.float()
    return features.permute(0, 2, 3, 1).flatten(0, 2)


def sum_rows(rows: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Sum `rows[index[p, l]] * weight[p, l]` over l; differentiable once, in rows and weight.

    Args:
        rows: (M, C).
        index: (P, L) int64 in [0, M).
        weight: (P, L), dtype of rows.

    Returns:
        (P, C).
    """
    differentiable_sum: Callable[..., Tensor] = _SumRows.apply
    return differentiable_sum(rows, index, weight)


class _SumRows(torch.autograd.Function):
    """A product with a sparse (P, M) matrix, which embedding_bag computes faster than sparse tensors do.

    Its own backward is slow on the CPU; here the transposed matrix goes through the same fast kernel.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(rows if ctx.needs_input_grad[2] else None, index, weight)
        ctx.rows_shape = rows.shape
        if index.numel() == 0 or rows.numel() == 0:
            return rows.new_zeros(len(index), rows.shape[1])
        return F.embedding_bag(index, rows, per_sample_weights=weight, mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        rows, index, weight = ctx.saved_tensors
        grad_rows = (
            _sum_rows_transposed(grad, index, weight, ctx.rows_shape) if ctx.needs_input_grad[0] else None
        )
        grad_weight = _inner_products(rows, grad, index) if ctx.needs_input_grad[2] else None
        return grad_rows, None, grad_weight


def _sum_rows_transposed(grad: Tensor, index: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
    """(P, C) -> (M, C): each input row collects the gradients of the outputs that it entered."""
    if index.numel() == 0 or grad.numel() == 0:
        return grad.new_zeros(shape)
    used, length = weight.flatten().nonzero().squeeze(1), index.shape[1]
    by_row = index.flatten()[used]
    order = by_row.argsort(stable=True)
    ends = torch.bincount(by_row, minlength=shape[0]).cumsum(0)
    offsets = F.pad(ends, (1, -1))
    entries = used[order]
    return F.embedding_bag(
        entries // length,
        grad.contiguous(),
        offsets,
        per_sample_weights=weight.flatten()[entries],
        mode="sum",
    )


def _inner_products(rows: Tensor, grad: Tensor, index: Tensor) -> Tensor:
    """(M, C), (P, C) -> (P, L): the product of an output's gradient with each of its inputs."""
    chunk = max(_MAX_GATHERED // max(index.shape[1] * rows.shape[1], 1), 1)
    products = [
        (rows[chosen] @ part.unsqueeze(2)).squeeze(2)  # (p, L, C) @ (p, C, 1)
        for chosen, part in zip(index.split(chunk), grad.split(chunk))
    ]
    return torch.cat(products)
