"""Multi-scale deformable attention (Deformable DETR): every query looks at a few places of its own.

Shapes: N images, S cells of all feature levels one level after the other, M heads of D channels, Q queries,
L levels, P points per query, head and level.

Locations are (x, y) as shares of a level's width and height: (0, 0) is its upper left corner, (1, 1) its
lower right one, and cell (i, j) has its centre at ((j + 0.5) / width, (i + 0.5) / height). A sample between
cells is bilinear; around a level values are 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detectron2.utils.user_errors import UserValueError

from .extension import differentiate, fake_kernel, find_operator, is_concrete, needs_determinism
from .ms_deform_attn_reference import ms_deform_attn_reference


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Sum bilinear samples of feature levels, weighted by attention (Zhu et al., 2020).

    Works in float64 for a float64 value and else in float32, also under autocast. A sample whose location is
    not finite, or a cell or more outside of its level, counts as nothing and has no gradient. On CUDA the
    gradient of `value` is summed in no fixed order; under `torch.use_deterministic_algorithms` plain PyTorch
    computes it.

    Args:
        value: (N, S, M, D) features, row after row of each level.
        spatial_shapes: (L, 2) int64 heights and widths of the levels.
        level_start_index: (L,) int64, the cell of S at which each level begins.
        sampling_locations: (N, Q, M, L, P, 2), x before y, in [0, 1] over the level.
        attention_weights: (N, Q, M, L, P) factors of the samples.

    Returns:
        (N, Q, M*D) in the dtype of `value`, head after head.

    Raises:
        ValueError: shapes do not fit each other, or a level has cells that `value` has not.
    """
    inputs = (value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    _check_inputs(*inputs)
    operator = find_operator("ms_deform_attn", value.device)
    # ONNX has no such operator, but all that the plain form is made of.
    is_plain = torch.onnx.is_in_onnx_export() or needs_determinism(
        value, sampling_locations, attention_weights
    )
    if operator is not None and not is_plain:
        output: Tensor = operator(*inputs)
        return output
    return ms_deform_attn_reference(*inputs)


def ms_deform_attn_backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of `ms_deform_attn`, for an autograd function that calls it by itself.

    Args:
        grad_output: (N, Q, M*D) gradient of the output.

    The other arguments are those of `ms_deform_attn`.

    Returns:
        Gradients of value (N, S, M, D), locations (N, Q, M, L, P, 2) and weights (N, Q, M, L, P).

    Raises:
        ValueError: as `ms_deform_attn`, or the gradient has another shape than the output.
    """
    levels = (spatial_shapes, level_start_index)
    _check_inputs(value, *levels, sampling_locations, attention_weights)
    expected = (value.shape[0], sampling_locations.shape[1], value.shape[2] * value.shape[3])
    if is_concrete(grad_output) and grad_output.shape != expected:
        raise UserValueError(f"expected grad_output of shape {expected}, got {tuple(grad_output.shape)}")
    operator = find_operator("ms_deform_attn_backward", value.device)
    is_fixed = torch.are_deterministic_algorithms_enabled() and value.is_cuda
    if operator is not None and not is_fixed:
        with torch.no_grad():
            grads: tuple[Tensor, Tensor, Tensor] = operator(
                grad_output, value, *levels, sampling_locations, attention_weights
            )
        return grads
    with torch.enable_grad():
        leaves = [t.detach().requires_grad_() for t in (value, sampling_locations, attention_weights)]
        output = ms_deform_attn_reference(leaves[0], *levels, *leaves[1:])
    by_value, by_location, by_weight = torch.autograd.grad(output, leaves, grad_output.to(output.dtype))
    return by_value, by_location, by_weight


@fake_kernel("ms_deform_attn")
def _(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    torch._check(
        value.ndim == 4 and sampling_locations.ndim == 6,
        lambda: f"{tuple(value.shape)}, {tuple(sampling_locations.shape)}",
    )
    return value.new_empty(value.shape[0], sampling_locations.shape[1], value.shape[2] * value.shape[3])


@fake_kernel("ms_deform_attn_backward")
def _(
    grad: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        value.new_empty(value.shape),
        sampling_locations.new_empty(sampling_locations.shape),
        attention_weights.new_empty(attention_weights.shape),
    )


def _save_for_backward(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grads = torch.ops.detectron2.ms_deform_attn_backward(grad, *ctx.saved_tensors)
    by_value, by_location, by_weight = grads
    return by_value, None, None, by_location, by_weight


differentiate("ms_deform_attn", _backward, _save_for_backward)


def _check_inputs(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> None:
    """Raise ValueError unless shapes fit each other and the levels lie in `value`."""
    if not is_concrete(value):
        return
    if value.ndim != 4:
        raise UserValueError(f"expected a value of shape (N, S, M, D), got {tuple(value.shape)}")
    if spatial_shapes.ndim != 2 or spatial_shapes.shape[1] != 2:
        raise UserValueError(
            f"expected spatial_shapes of shape (L, 2), height and width, got {tuple(spatial_shapes.shape)}"
        )
    num_images, num_cells, num_heads, _ = value.shape
    num_levels = len(spatial_shapes)
    if level_start_index.shape != (num_levels,):
        raise UserValueError(
            f"expected level_start_index of shape ({num_levels},), got {tuple(level_start_index.shape)}"
        )
    shape = sampling_locations.shape
    if len(shape) != 6 or (shape[0], *shape[2:4], shape[5]) != (num_images, num_heads, num_levels, 2):
        raise UserValueError(
            f"expected sampling_locations of shape ({num_images}, Q, {num_heads}, {num_levels}, P, 2), "
            f"got {tuple(shape)}"
        )
    if attention_weights.shape != shape[:5]:
        raise UserValueError(
            f"expected attention_weights of shape {tuple(shape[:5])}, got {tuple(attention_weights.shape)}"
        )
    if spatial_shapes.device.type == "cpu" and level_start_index.device.type == "cpu":
        _check_levels(spatial_shapes.tolist(), level_start_index.tolist(), num_cells)


def _check_levels(sizes: list[list[int]], starts: list[int], num_cells: int) -> None:
    for index, ((height, width), start) in enumerate(zip(sizes, starts)):
        if min(height, width, start) < 0 or start + height * width > num_cells:
            raise UserValueError(
                f"level {index} of {height} x {width} cells from cell {start} on does not fit into a value "
                f"of {num_cells} cells"
            )
