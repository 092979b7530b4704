"""Multi-scale deformable attention in plain PyTorch: to do without a compiled operator, or compare one with.

Shapes: N images, S cells of all feature levels, M heads of D channels, Q queries, L levels, P points per
query, head and level. B = N*Q*M sums are taken over L*P*4 cells, of R = N*S*M.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from .extension import is_concrete
from .roi_sampling import sum_rows


def ms_deform_attn_reference(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Gather the four cells around every sample; arguments and result are those of `ms_deform_attn`.

    No step depends on what a tensor holds, so every exporter can follow it, with levels of any size.
    """
    num_images, num_cells, num_heads, channels = value.shape
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    index, weight = _cells_and_weights(
        spatial_shapes, level_start_index, sampling_locations.to(dtype), attention_weights.to(dtype)
    )  # both (N, Q, M, L, P, 4)
    # One row for each head of each cell, and one of zeros, which stands for all that is around the levels.
    rows = F.pad(value.to(dtype).flatten(0, 2), (0, 0, 0, 1))  # (N*S*M + 1, D)
    image = torch.arange(num_images, device=value.device).view(-1, 1, 1, 1, 1, 1)
    head = torch.arange(num_heads, device=value.device).view(1, 1, -1, 1, 1, 1)
    row = (image * num_cells + index) * num_heads + head
    index = row.where(index >= 0, num_images * num_cells * num_heads)
    index, weight = index.flatten(3).flatten(0, 2), weight.flatten(3).flatten(0, 2)  # (N*Q*M, L*P*4)
    add_up = sum_rows if is_concrete(value) else _gather_and_sum
    sums = add_up(rows, index, weight)  # (N*Q*M, D)
    return sums.view(num_images, sampling_locations.shape[1], num_heads * channels).to(value.dtype)


def _gather_and_sum(rows: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Do what `sum_rows` does in operations that every exporter knows: (M, D), twice (B, L*P*4) -> (B, D)."""
    # One corner at a time, which takes a quarter of the memory.
    parts = [(rows[index[:, i::4]] * weight[:, i::4, None]).sum(dim=1) for i in range(4)]
    return parts[0] + parts[1] + (parts[2] + parts[3])


def _cells_and_weights(
    spatial_shapes: Tensor, level_start_index: Tensor, locations: Tensor, factors: Tensor
) -> tuple[Tensor, Tensor]:
    """The cells around every location and their shares of its factor; -1 and 0 for one outside of a level."""
    sizes = spatial_shapes.to(locations.device)[:, None, :]  # (L, 1, 2)
    start = level_start_index.to(locations.device)[:, None]  # (L, 1)
    height, width = sizes.unbind(dim=-1)  # (L, 1), against (N, Q, M, L, P)
    x, y = (locations * sizes.flip(-1).to(locations.dtype) - 0.5).unbind(dim=-1)
    # Exactly one cell outside every weight is 0, and so is the gradient; NaN is outside, too.
    is_near = (y > -1) & (y < height) & (x > -1) & (x < width)
    y, x, factors = y.where(is_near, 0), x.where(is_near, 0), factors.where(is_near, 0)
    top, left = y.detach().floor(), x.detach().floor()
    down, right = y - top, x - left
    # On a cell, where bilinear interpolation has a kink, its slope is that towards larger positions.
    by_row, by_column = ((top, 1 - down), (top + 1, down)), ((left, 1 - right), (left + 1, right))
    cells, shares = [], []
    for (row, row_share), (column, column_share) in itertools.product(by_row, by_column):
        is_inside = (row >= 0) & (row < height) & (column >= 0) & (column < width) & is_near
        cells.append((start + row.long() * width + column.long()).where(is_inside, -1))
        shares.append((row_share * column_share * factors).where(is_inside, 0))
    return torch.stack(cells, dim=-1), torch.stack(shares, dim=-1)
