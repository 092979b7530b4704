"""Deformable convolution: every kernel tap of every output position looks at a place of its own.

Shapes: N images, C input channels, H x W input, O output channels, H' x W' output, K = kh * kw kernel taps,
D deformable groups (input channels that share offsets), G convolution groups.

Offsets are (N, D*K*2, H', W'): for each deformable group and tap first dy, then dx, in input cells. Masks are
(N, D*K, H', W'). A sample between cells is bilinear; cells outside of the input are 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from detectron2.utils.user_errors import UserValueError

from .deform_conv_reference import deform_conv_reference
from .extension import differentiate, fake_kernel, find_operator, needs_determinism
from .tracing import is_tracing

_Pair = int | tuple[int, int]


def deform_conv(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    stride: _Pair = 1,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    groups: int = 1,
    deformable_groups: int = 1,
    im2col_step: int = 64,
) -> Tensor:
    """Convolve at displaced positions (Dai et al., 2017).

    Args:
        input: (N, C, H, W).
        offset: (N, D*K*2, H', W').
        weight: (O, C/G, kh, kw).
        stride, padding, dilation, groups: as in a convolution.
        deformable_groups: D.
        im2col_step: accepted for compatibility; the memory in use is bounded in another way.

    Returns:
        (N, O, H', W').
    """
    return modulated_deform_conv(
        input, offset, None, weight, None, stride, padding, dilation, groups, deformable_groups
    )


def modulated_deform_conv(
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Pair = 1,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    groups: int = 1,
    deformable_groups: int = 1,
) -> Tensor:
    """Convolve at displaced positions, each scaled by a mask (Zhu et al., 2019).

    Works in float64 for a float64 input and else in float32, also under autocast; the output has the input's
    dtype. On CUDA the gradient of `input` is summed in no fixed order; under
    `torch.use_deterministic_algorithms` plain PyTorch computes it.

    Args:
        input: (N, C, H, W).
        offset: (N, D*K*2, H', W').
        mask: (N, D*K, H', W'), or None for ones.
        weight: (O, C/G, kh, kw).
        bias: (O,) or None.
        stride, padding, dilation, groups: as in a convolution.
        deformable_groups: D.

    Returns:
        (N, O, H', W').
    """
    geometry = (_as_pair(stride), _as_pair(padding), _as_pair(dilation))
    if not is_tracing():
        _check_shapes(input, offset, mask, weight, *geometry, groups, deformable_groups)
    operator = find_operator("deform_conv", input.device)
    if operator is not None and not needs_determinism(input, offset, mask, weight):
        lists = [list(pair) for pair in geometry]
        output: Tensor = operator(input, offset, mask, weight, *lists, groups, deformable_groups)
        return output if bias is None else output + bias.to(output.dtype)[:, None, None]
    with torch.autocast(input.device.type, enabled=False):
        return deform_conv_reference(input, offset, mask, weight, bias, *geometry, groups)


def _as_pair(value: _Pair) -> tuple[int, int]:
    """(rows, columns) from either one number for both or the two."""
    rows, columns = (value, value) if isinstance(value, int) else value
    return rows, columns


@fake_kernel("deform_conv")
def _(
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    deformable_groups: int,
) -> Tensor:
    torch._check(input.ndim == 4 and offset.ndim == 4, lambda: f"{tuple(input.shape)}, {tuple(offset.shape)}")
    sizes = zip(input.shape[2:], weight.shape[2:], stride, padding, dilation)
    return input.new_empty(input.shape[0], weight.shape[0], *(_output_size(*one) for one in sizes))


@fake_kernel("deform_conv_backward")
def _(
    grad: Tensor,
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    *settings: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_mask = input.new_empty(0) if mask is None else mask.new_empty(mask.shape)
    return (
        input.new_empty(input.shape),
        offset.new_empty(offset.shape),
        grad_mask,
        weight.new_empty(weight.shape),
    )


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.settings = inputs[4:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, offset, mask, weight = ctx.saved_tensors
    grads = torch.ops.detectron2.deform_conv_backward(grad, input, offset, mask, weight, *ctx.settings)
    grad_input, grad_offset, grad_mask, grad_weight = grads
    return grad_input, grad_offset, None if mask is None else grad_mask, grad_weight, *[None] * 5


differentiate("deform_conv", _backward, _save_for_backward)


class _DeformConvBase(nn.Module):
    """What both versions share: the settings and weights of a convolution, a norm and an activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Pair,
        stride: _Pair,
        padding: _Pair,
        dilation: _Pair,
        groups: int,
        deformable_groups: int,
        bias: bool,
        norm: nn.Module | None,
        activation: Callable[[Tensor], Tensor] | None,
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise UserValueError(
                f"{in_channels} and {out_channels} channels do not split into {groups} groups"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _as_pair(kernel_size)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.groups = groups
        self.deformable_groups = deformable_groups
        self.norm = norm
        self.activation = activation
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")

    def _convolve(self, x: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
        settings = (self.stride, self.padding, self.dilation, self.groups, self.deformable_groups)
        y = modulated_deform_conv(x, offset, mask, self.weight, self.bias, *settings)
        if self.norm is not None:
            y = self.norm(y)
        return y if self.activation is None else self.activation(y)

    def extra_repr(self) -> str:
        names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        settings = [f"{name}={getattr(self, name)}" for name in (*names, "deformable_groups")]
        return ", ".join([*settings, f"bias={self.bias is not None}"])


class DeformConv(_DeformConvBase):
    """Deformable convolution, then an optional norm, then an optional activation.

    Args:
        deformable_groups: input channels are split into so many groups, each with offsets of its own.
        norm: module for the output, or None.
        activation: function or module for the normalised output, or None.

    The other arguments are those of a convolution. There is no bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Pair,
        stride: _Pair = 1,
        padding: _Pair = 0,
        dilation: _Pair = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = False,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if bias:
            raise UserValueError("DeformConv has no bias; use ModulatedDeformConv, or a norm with a bias")
        geometry = (_as_pair(stride), _as_pair(padding), _as_pair(dilation))
        settings = (kernel_size, *geometry, groups, deformable_groups)
        super().__init__(in_channels, out_channels, *settings, False, norm, activation)

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        """(N, C, H, W), (N, D*K*2, H', W') offsets -> (N, O, H', W')."""
        return self._convolve(x, offset, None)


class ModulatedDeformConv(_DeformConvBase):
    """Deformable convolution whose samples are scaled by a mask, then an optional norm and activation.

    Args:
        deformable_groups: input channels are split into so many groups, each with offsets and masks of its
            own.
        norm: module for the output, or None.
        activation: function or module for the normalised output, or None.

    The other arguments are those of a convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Pair,
        stride: _Pair = 1,
        padding: _Pair = 0,
        dilation: _Pair = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = True,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        settings = (kernel_size, stride, padding, dilation, groups, deformable_groups)
        super().__init__(in_channels, out_channels, *settings, bias, norm, activation)

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """(N, C, H, W), (N, D*K*2, H', W') offsets, (N, D*K, H', W') mask -> (N, O, H', W')."""
        return self._convolve(x, offset, mask)


def _output_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _check_shapes(
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    deformable_groups: int,
) -> None:
    if input.ndim != 4:
        raise UserValueError(f"expected an input of shape (N, C, H, W), got {tuple(input.shape)}")
    channels, kernel = input.shape[1], weight.shape[2:]
    if channels != weight.shape[1] * groups or channels % deformable_groups:
        raise UserValueError(
            f"{channels} input channels do not fit weights of shape {tuple(weight.shape)} in {groups} groups "
            f"or do not split into {deformable_groups} deformable groups"
        )
    size = tuple(_output_size(*one) for one in zip(input.shape[2:], kernel, stride, padding, dilation))
    if min(size) < 1:
        raise UserValueError(
            f"an input of {tuple(input.shape[2:])} is too small for this kernel: the output is {size}"
        )
    num_taps = deformable_groups * math.prod(kernel)
    for name, tensor, depth in (("offset", offset, 2 * num_taps), ("mask", mask, num_taps)):
        expected = (len(input), depth, *size)
        if tensor is not None and tensor.shape != expected:
            raise UserValueError(f"expected {name} of shape {expected}, got {tuple(tensor.shape)}")
