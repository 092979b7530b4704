"""Atrous spatial pyramid pooling.

Shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.utils.user_errors import UserValueError

from .batch_norm import Norm, get_norm
from .blocks import DepthwiseSeparableConv2d
from .weight_init import c2_xavier_fill
from .wrappers import Conv2d

Activation = Callable[[Tensor], Tensor]


class ASPP(nn.Module):
    """Five views of a feature map with different reach, merged by a 1x1 convolution (DeepLab v3).

    They are a 1x1 convolution, a 3x3 convolution for each of three dilations, and a pooled view that is
    resized back. `convs` holds them in this order, which is part of checkpoint names.

    Args:
        in_channels: C.
        out_channels: channels of each view and of the output.
        dilations: three dilations.
        norm: for every convolution, as `get_norm` takes it; "" or None means bias instead.
        activation: for every convolution, copied.
        pool_kernel_size: (height, width) of the average pool, which the input must be divisible by; None for
            a pool over the whole map.
        dropout: probability of dropping an output value while training.
        use_depthwise_separable_conv: whether the 3x3 convolutions are split into depthwise and pointwise
            ones.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dilations: Sequence[int],
        *,
        norm: Norm,
        activation: Activation,
        pool_kernel_size: tuple[int, int] | None = None,
        dropout: float = 0.0,
        use_depthwise_separable_conv: bool = False,
    ) -> None:
        super().__init__()
        if len(dilations) != 3:
            raise UserValueError(f"ASPP takes three dilations, got {dilations}")
        self.pool_kernel_size = pool_kernel_size
        self.dropout = dropout
        self._norm, self._activation = norm, activation
        self.convs = nn.ModuleList([self._make_conv(in_channels, out_channels)])
        for dilation in dilations:
            if use_depthwise_separable_conv:
                self.convs.append(self._make_separable_conv(in_channels, out_channels, dilation))
            else:
                self.convs.append(self._make_conv(in_channels, out_channels, dilation))
        self.convs.append(self._make_pooling(in_channels, out_channels))
        self.project = self._make_conv(len(self.convs) * out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out_channels, H, W)."""
        size = x.shape[-2:]
        if self.pool_kernel_size and any(n % k for n, k in zip(size, self.pool_kernel_size)):
            raise UserValueError(
                f"a feature map of {tuple(size)} is not divisible by {self.pool_kernel_size=}; "
                "pad or crop the input image accordingly"
            )
        views = [conv(x) for conv in self.convs]
        views[-1] = F.interpolate(views[-1], size=size, mode="bilinear", align_corners=False)
        merged = self.project(torch.cat(views, dim=1))
        return F.dropout(merged, self.dropout, training=self.training) if self.dropout > 0 else merged

    def _make_conv(self, in_channels: int, out_channels: int, dilation: int = 0) -> Conv2d:
        """A 3x3 convolution that keeps the size, or a 1x1 convolution for dilation 0."""
        conv = Conv2d(
            in_channels,
            out_channels,
            kernel_size=3 if dilation else 1,
            padding=dilation,
            dilation=dilation or 1,
            bias=not self._norm,
            norm=get_norm(self._norm, out_channels),
            activation=deepcopy(self._activation),
        )
        c2_xavier_fill(conv)
        return conv

    def _make_separable_conv(
        self, in_channels: int, out_channels: int, dilation: int
    ) -> DepthwiseSeparableConv2d:
        return DepthwiseSeparableConv2d(
            in_channels,
            out_channels,
            padding=dilation,
            dilation=dilation,
            norm1=self._norm,
            activation1=deepcopy(self._activation),
            norm2=self._norm,
            activation2=deepcopy(self._activation),
        )

    def _make_pooling(self, in_channels: int, out_channels: int) -> nn.Sequential:
        if self.pool_kernel_size is None:
            # One value per channel is too little for a batch norm: no norm, hence a bias.
            pool: nn.Module = nn.AdaptiveAvgPool2d(1)
            conv = Conv2d(in_channels, out_channels, 1, bias=True, activation=deepcopy(self._activation))
            c2_xavier_fill(conv)
        else:
            pool = nn.AvgPool2d(self.pool_kernel_size, stride=1)
            conv = self._make_conv(in_channels, out_channels)
        return nn.Sequential(pool, conv)
