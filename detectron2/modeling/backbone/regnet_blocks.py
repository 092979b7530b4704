"""Stems, blocks and stages of RegNet.

Shapes: N images, H x W their size at the input of a part.
`w_in` and `w_out` are channels; callers pass them by these names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from detectron2.layers.batch_norm import Norm, get_norm
from detectron2.layers.blocks import CNNBlockBase
from detectron2.utils.user_errors import UserValueError

MakeActivation = Callable[[], nn.Module]
BlockParams = Mapping[str, Any]
"""Of a block: "bot_mul" (bottleneck channels per output channel), "group_w" (channels per group of the 3x3
convolution) and "se_r" (squeezed channels per input channel; 0 means no squeeze and excitation)."""


def conv2d(
    w_in: int, w_out: int, k: int, *, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """Make a convolution with an odd kernel that keeps the size but for its stride."""
    if k % 2 == 0:
        raise UserValueError(f"only odd kernels can keep the size, got {k}")
    return nn.Conv2d(w_in, w_out, k, stride=stride, padding=k // 2, groups=groups, bias=bias)


def gap2d() -> nn.AdaptiveAvgPool2d:
    """Make global average pooling, (N, C, H, W) -> (N, C, 1, 1)."""
    return nn.AdaptiveAvgPool2d(1)


def pool2d(k: int, *, stride: int = 1) -> nn.MaxPool2d:
    """Make max pooling with an odd kernel that keeps the size but for its stride."""
    if k % 2 == 0:
        raise UserValueError(f"only odd kernels can keep the size, got {k}")
    return nn.MaxPool2d(k, stride=stride, padding=k // 2)


def init_weights(m: nn.Module) -> None:
    """Initialise one convolution, batch norm or linear module; others stay as they are."""
    if isinstance(m, nn.Conv2d):
        # Groups do not count: each output channel has k * k weights per output channel of a full convolution.
        fan_out = math.prod(m.kernel_size) * m.out_channels
        nn.init.normal_(m.weight, std=math.sqrt(2.0 / fan_out))
    elif isinstance(m, nn.modules.batchnorm._BatchNorm) and m.affine:
        nn.init.ones_(m.weight)
        nn.init.zeros_(m.bias)
    elif isinstance(m, nn.Linear):
        nn.init.normal_(m.weight, std=0.01)
        nn.init.zeros_(m.bias)


class _Chain(CNNBlockBase):
    """Modules that are called one after the other, in the order in which they were added."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, w_in, H, W) -> (N, w_out, H / stride, W / stride), rounded up."""
        for layer in self.children():
            x = layer(x)
        return x


def _add_convs(
    chain: nn.Module,
    convs: Mapping[str, nn.Conv2d],
    norm: Norm,
    activation_class: MakeActivation,
    *,
    last_is_linear: bool,
) -> None:
    """Add `<name>`, `<name>_bn` and `<name>_af` for each convolution; the last activation may be left out."""
    for name, conv in convs.items():
        chain.add_module(name, conv)
        chain.add_module(f"{name}_bn", get_norm(norm, conv.out_channels) or nn.Identity())
        if not (last_is_linear and conv is list(convs.values())[-1]):
            chain.add_module(f"{name}_af", activation_class())


class ResStem(_Chain):
    """7x7 convolution and max pooling, each of stride 2."""

    def __init__(self, w_in: int, w_out: int, norm: Norm, activation_class: MakeActivation) -> None:
        super().__init__(w_in, w_out, 4)
        self.conv = conv2d(w_in, w_out, 7, stride=2)
        self.bn = get_norm(norm, w_out)
        self.af = activation_class()
        self.pool = pool2d(3, stride=2)


class SimpleStem(_Chain):
    """3x3 convolution of stride 2."""

    def __init__(self, w_in: int, w_out: int, norm: Norm, activation_class: MakeActivation) -> None:
        super().__init__(w_in, w_out, 2)
        self.conv = conv2d(w_in, w_out, 3, stride=2)
        self.bn = get_norm(norm, w_out)
        self.af = activation_class()


class SE(nn.Module):
    """Squeeze and excitation: weigh channels by what their averages say."""

    def __init__(self, w_in: int, w_se: int, activation_class: MakeActivation) -> None:
        super().__init__()
        self.avg_pool = gap2d()
        squeeze, excite = conv2d(w_in, w_se, 1, bias=True), conv2d(w_se, w_in, 1, bias=True)
        self.f_ex = nn.Sequential(squeeze, activation_class(), excite, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        weight: Tensor = self.f_ex(self.avg_pool(x))
        return x * weight


class VanillaBlock(_Chain):
    """Two 3x3 convolutions without a shortcut."""

    def __init__(
        self,
        w_in: int,
        w_out: int,
        stride: int,
        norm: Norm,
        activation_class: MakeActivation,
        _params: BlockParams,
    ) -> None:
        super().__init__(w_in, w_out, stride)
        convs = {"a": conv2d(w_in, w_out, 3, stride=stride), "b": conv2d(w_out, w_out, 3)}
        _add_convs(self, convs, norm, activation_class, last_is_linear=False)


class BasicTransform(_Chain):
    """Two 3x3 convolutions, no activation behind the second."""

    def __init__(
        self,
        w_in: int,
        w_out: int,
        stride: int,
        norm: Norm,
        activation_class: MakeActivation,
        _params: BlockParams,
    ) -> None:
        super().__init__(w_in, w_out, stride)
        convs = {"a": conv2d(w_in, w_out, 3, stride=stride), "b": conv2d(w_out, w_out, 3)}
        _add_convs(self, convs, norm, activation_class, last_is_linear=True)


class BottleneckTransform(_Chain):
    """1x1 convolution, grouped 3x3 convolution, squeeze and excitation where asked for, 1x1 convolution."""

    def __init__(
        self,
        w_in: int,
        w_out: int,
        stride: int,
        norm: Norm,
        activation_class: MakeActivation,
        params: BlockParams,
    ) -> None:
        super().__init__(w_in, w_out, stride)
        w_b = round(w_out * params["bot_mul"])
        w_se = round(w_in * params["se_r"])
        convs = {
            "a": conv2d(w_in, w_b, 1),
            "b": conv2d(w_b, w_b, 3, stride=stride, groups=w_b // params["group_w"]),
        }
        _add_convs(self, convs, norm, activation_class, last_is_linear=False)
        if w_se:
            self.se = SE(w_b, w_se, activation_class)
        _add_convs(self, {"c": conv2d(w_b, w_out, 1)}, norm, activation_class, last_is_linear=True)


class _ResBlock(CNNBlockBase):
    """activation(transform(x) + shortcut(x)); the shortcut is the identity where shapes allow it."""

    transform_class: type[BasicTransform] | type[BottleneckTransform]

    def __init__(
        self,
        w_in: int,
        w_out: int,
        stride: int,
        norm: Norm,
        activation_class: MakeActivation,
        params: BlockParams,
    ) -> None:
        super().__init__(w_in, w_out, stride)
        self.proj: nn.Conv2d | None = None
        self.bn: nn.Module | None = None
        if w_in != w_out or stride != 1:
            self.proj = conv2d(w_in, w_out, 1, stride=stride)
            self.bn = get_norm(norm, w_out)
        self.f = self.transform_class(w_in, w_out, stride, norm, activation_class, params)
        self.af = activation_class()

    def forward(self, x: Tensor) -> Tensor:
        """(N, w_in, H, W) -> (N, w_out, H / stride, W / stride), rounded up."""
        shortcut = x if self.proj is None else self.proj(x)
        if self.bn is not None:
            shortcut = self.bn(shortcut)
        y: Tensor = self.af(shortcut + self.f(x))
        return y


class ResBasicBlock(_ResBlock):
    """Residual block of two 3x3 convolutions."""

    transform_class = BasicTransform


class ResBottleneckBlock(_ResBlock):
    """Residual bottleneck block, that of the published RegNets."""

    transform_class = BottleneckTransform


class AnyStage(nn.Module):
    """Blocks `b1`, `b2`, ... of equal width, of which the first has the stride."""

    def __init__(
        self,
        w_in: int,
        w_out: int,
        stride: int,
        d: int,
        block_class: Callable[..., nn.Module],
        norm: Norm,
        activation_class: MakeActivation,
        params: BlockParams,
    ) -> None:
        """
        Args:
            d: number of blocks.
            block_class: makes a block from (w_in, w_out, stride, norm, activation_class, params).
        """
        super().__init__()
        for i in range(d):
            first = i == 0
            block = block_class(
                w_in if first else w_out, w_out, stride if first else 1, norm, activation_class, params
            )
            self.add_module(f"b{i + 1}", block)

    def forward(self, x: Tensor) -> Tensor:
        """(N, w_in, H, W) -> (N, w_out, H / stride, W / stride), rounded up."""
        for block in self.children():
            x = block(x)
        return x
