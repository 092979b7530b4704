"""Deformable convolution in plain PyTorch: for devices without a compiled operator, and to compare one with.

Shapes: C input channels, H x W input, O output channels, H' x W' output, K = kh * kw kernel taps,
D deformable groups (input channels that share offsets), G convolution groups.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from .roi_sampling import sum_rows, to_rows
from .wrappers import disable_torch_compiler


@disable_torch_compiler
def deform_conv_reference(
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """Gather what every tap sees, image by image, and multiply it with the kernel."""
    kernel, size = weight.shape[2:], offset.shape[2:]
    offset = offset.unflatten(1, (-1, math.prod(kernel), 2))  # (N, D, K, 2, H', W')
    mask = None if mask is None else mask.unflatten(1, (-1, math.prod(kernel)))  # (N, D, K, H', W')
    grid = _tap_grid(kernel, size, stride, padding, dilation, offset)  # (K, 2, H', W')
    kernel_matrix = weight.unflatten(0, (groups, -1)).flatten(2)  # (G, O/G, C/G*K)
    outputs = []
    for index, image in enumerate(input):
        position = grid + offset[index].to(torch.promote_types(offset.dtype, torch.float32))
        columns = _gather_taps(image, position, None if mask is None else mask[index])  # (C, K, H'*W')
        columns = columns.unflatten(0, (groups, -1)).flatten(1, 2)  # (G, C/G*K, H'*W')
        outputs.append(torch.bmm(kernel_matrix.to(columns.dtype), columns).flatten(0, 1))  # (O, H'*W')
    if not outputs:
        used = (input, offset, mask, weight, bias)  # all get a gradient, of nothing
        zero = sum(tensor.sum() * 0 for tensor in used if tensor is not None)
        return input.new_zeros(0, weight.shape[0], *size) + zero
    output: Tensor = torch.stack(outputs).unflatten(2, tuple(size))
    if bias is not None:
        output = output + bias[:, None, None]
    return output.to(input.dtype)


def _tap_grid(
    kernel: torch.Size,
    size: torch.Size,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    like: Tensor,
) -> Tensor:
    """(K, 2, H', W') rows and columns at which the taps of an ordinary convolution look."""
    axes: list[Any] = []
    for axis in range(2):
        tap = torch.arange(kernel[axis], device=like.device) * dilation[axis] - padding[axis]
        place = torch.arange(size[axis], device=like.device) * stride[axis]
        axes.append(tap[:, None] + place)  # (kernel, size)
    rows, columns = axes[0][:, None, :, None], axes[1][None, :, None, :]  # both (kh, kw, H', W')
    shape = (*kernel, *size)
    return torch.stack([rows.expand(shape), columns.expand(shape)], dim=2).flatten(0, 1)


def _gather_taps(image: Tensor, position: Tensor, mask: Tensor | None) -> Tensor:
    """Sample an image bilinearly, with zeros around it.

    Args:
        image: (C, H, W).
        position: (D, K, 2, H', W') rows and columns.
        mask: (D, K, H', W') factors, or None.

    Returns:
        (C, K, H'*W').
    """
    _, height, width = image.shape
    num_groups, num_taps = position.shape[:2]
    y, x = position.flatten(3).unbind(dim=2)  # (D, K, H'*W')
    # Exactly one cell outside every weight is 0, and so is the gradient; NaN is outside, too.
    is_near = (y > -1) & (y < height) & (x > -1) & (x < width)
    y, x = y.where(is_near, 0), x.where(is_near, 0)
    top, left = y.detach().floor(), x.detach().floor()
    down, right = y - top, x - left
    # On a cell, where bilinear interpolation has a kink, its slope is that towards larger positions.
    by_row, by_column = ((top, 1 - down), (top + 1, down)), ((left, 1 - right), (left + 1, right))
    indices, weights = [], []
    for (row, row_share), (column, column_share) in itertools.product(by_row, by_column):
        is_inside = (row >= 0) & (row < height) & (column >= 0) & (column < width) & is_near
        weights.append((row_share * column_share).where(is_inside, 0))
        indices.append((row * width + column).where(is_inside, 0).long())
    weight = torch.stack(weights, dim=-1)  # (D, K, H'*W', 4)
    if mask is not None:
        weight = weight * mask.flatten(2).unsqueeze(-1).to(weight.dtype)
    # One feature vector for each deformable group of each cell.
    rows = to_rows(image.unflatten(0, (num_groups, -1)))  # (D*H*W, C/D)
    first_row = torch.arange(num_groups, device=image.device) * (height * width)
    index = torch.stack(indices, dim=-1) + first_row.view(-1, 1, 1, 1)
    sums = sum_rows(rows, index.flatten(0, 2), weight.flatten(0, 2).to(rows.dtype))  # (D*K*H'*W', C/D)
    columns: Tensor = sums.unflatten(0, (num_groups, num_taps, -1))  # (D, K, H'*W', C/D)
    return columns.permute(0, 3, 1, 2).flatten(0, 1)
