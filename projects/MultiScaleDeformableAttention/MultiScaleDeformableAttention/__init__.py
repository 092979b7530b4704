"""Multi-scale deformable attention under the name and signatures that published projects call.

Shapes: N images, S cells of all feature levels, M heads of D channels, Q queries, L levels, P points;
`detectron2.layers.ms_deform_attn` says more. Arguments are taken by position, as the projects give them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detectron2.layers import ms_deform_attn
from detectron2.layers.ms_deform_attn import ms_deform_attn_backward as compute_gradients

__all__ = ["ms_deform_attn_backward", "ms_deform_attn_forward"]


@torch.no_grad()
def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_loc: Tensor,
    attn_weight: Tensor,
    im2col_step: int,
) -> Tensor:
    """Sum bilinear samples of feature levels; gradients are `ms_deform_attn_backward`'s.

    Args:
        value: (N, S, M, D).
        spatial_shapes: (L, 2) int64 heights and widths.
        level_start_index: (L,) int64.
        sampling_loc: (N, Q, M, L, P, 2), x before y, in [0, 1] over the level.
        attn_weight: (N, Q, M, L, P).
        im2col_step: how many images the operator of that name took at a time; any number does here.

    Returns:
        (N, Q, M*D).

    Raises:
        ValueError: shapes do not fit each other, or a level has cells that `value` has not.
    """
    return ms_deform_attn(value, spatial_shapes, level_start_index, sampling_loc, attn_weight)


@torch.no_grad()
def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_loc: Tensor,
    attn_weight: Tensor,
    grad_output: Tensor,
    im2col_step: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of `ms_deform_attn_forward`.

    Args:
        grad_output: (N, Q, M*D) gradient of the output.

    The other arguments are those of `ms_deform_attn_forward`.

    Returns:
        Gradients of value, sampling_loc and attn_weight, each in the shape of its own.

    Raises:
        ValueError: as `ms_deform_attn_forward`, or the gradient has another shape than the output.
    """
    return compute_gradients(grad_output, value, spatial_shapes, level_start_index, sampling_loc, attn_weight)
