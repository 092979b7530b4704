"""Deformable convolution with results written into tensors of the caller, as C++ extensions used to do it.

Shapes: as in `detectron2.layers.deform_conv`. `columns` and `ones` were scratch space, and are left alone.
Forward functions set `output`; backward ones add to the gradients that they are given, which start at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from detectron2.layers.deform_conv import deform_conv, modulated_deform_conv


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> int:
    """Set `output` to the convolution without a mask; d is the stride, and 1 is returned."""
    geometry = ((dH, dW), (padH, padW), (dilationH, dilationW))
    _write(output, deform_conv(input, offset, weight, *geometry, group, deformable_group))
    return 1


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> int:
    """Add the gradients of input and offset; 1 is returned."""
    geometry = ((dH, dW), (padH, padW), (dilationH, dilationW))
    options = (weight.detach(), *geometry, group, deformable_group)
    _add(_differentiate(deform_conv, (input, offset), options, gradOutput), gradInput, gradOffset)
    return 1


def deform_conv_backward_filter(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> int:
    """Add `scale` times the gradient of the weight; 1 is returned."""
    geometry = ((dH, dW), (padH, padW), (dilationH, dilationW))
    options = (*geometry, group, deformable_group)
    # Values of the weight do not matter: the convolution is linear in it.
    of_weight = partial(deform_conv, input.detach(), offset.detach())
    (grad,) = _differentiate(of_weight, (gradWeight,), options, gradOutput)
    _add((scale * grad,), gradWeight)
    return 1


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Set `output` to the convolution with a mask, and the bias where `with_bias` says so."""
    geometry = ((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w))
    used_bias = bias if with_bias else None
    _write(
        output,
        modulated_deform_conv(input, offset, mask, weight, used_bias, *geometry, group, deformable_group),
    )


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Add the gradients of everything that takes part."""
    geometry = ((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w))
    operands, options = (input, offset, mask, weight), (None, *geometry, group, deformable_group)
    grads = _differentiate(modulated_deform_conv, operands, options, grad_output)
    _add(grads, grad_input, grad_offset, grad_mask, grad_weight)
    if with_bias:
        _add((grad_output.sum(dim=(0, 2, 3)),), grad_bias)


def _differentiate(
    convolve: Callable[..., Tensor], operands: Sequence[Tensor], options: Sequence[Any], grad_output: Tensor
) -> tuple[Tensor, ...]:
    """The gradient of each operand of `convolve(*operands, *options)`."""
    leaves = [operand.detach().requires_grad_() for operand in operands]
    with torch.enable_grad():
        output = convolve(*leaves, *options)
    return torch.autograd.grad(output, leaves, grad_output)


def _write(output: Tensor, values: Tensor) -> None:
    with torch.no_grad():
        output.resize_(values.shape).copy_(values)


def _add(grads: Sequence[Tensor], *totals: Tensor) -> None:
    for grad, total in zip(grads, totals, strict=True):
        total.data.add_(grad)
