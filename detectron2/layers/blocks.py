"""Building blocks that more than one network is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .batch_norm import FrozenBatchNorm2d, Norm, get_norm
from .weight_init import c2_msra_fill
from .wrappers import Conv2d

Activation = Callable[[Tensor], Tensor]


class CNNBlockBase(nn.Module):
    """A part of a backbone with known channels and stride, which can be frozen as a whole.

    Args:
        in_channels: channels of the (N, C, H, W) input.
        out_channels: channels of the output.
        stride: input rows per output row.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride

    def freeze(self) -> CNNBlockBase:
        """Stop training this block: no gradients for its parameters, and constant batch norms.

        Returns:
            The block itself.
        """
        self.requires_grad_(False)
        FrozenBatchNorm2d.convert_frozen_batchnorm(self)
        return self


class DepthwiseSeparableConv2d(nn.Module):
    """A convolution per channel, then a 1x1 convolution across channels, each with norm and activation.

    Args:
        norm1, activation1: after the depthwise convolution; the norm as `get_norm` takes it.
        norm2, activation2: after the pointwise convolution.

    The other arguments are those of a convolution; with the default padding 1 and kernel 3 it keeps the size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        padding: int = 1,
        dilation: int = 1,
        *,
        norm1: Norm = None,
        activation1: Activation | None = None,
        norm2: Norm = None,
        activation2: Activation | None = None,
    ) -> None:
        super().__init__()
        geometry: dict[str, Any] = {"kernel_size": kernel_size, "padding": padding, "dilation": dilation}
        self.depthwise = Conv2d(
            in_channels,
            in_channels,
            **geometry,
            **_norm_options(norm1, in_channels, activation1),
            groups=in_channels,
        )
        self.pointwise = Conv2d(
            in_channels, out_channels, kernel_size=1, **_norm_options(norm2, out_channels, activation2)
        )
        c2_msra_fill(self.depthwise)
        c2_msra_fill(self.pointwise)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        y: Tensor = self.pointwise(self.depthwise(x))
        return y


def _norm_options(norm: Norm, channels: int, activation: Activation | None) -> dict[str, Any]:
    """Arguments of a Conv2d whose bias is left to its norm, if it has one."""
    return {"bias": not norm, "norm": get_norm(norm, channels), "activation": activation}
