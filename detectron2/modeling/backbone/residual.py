"""Residual blocks: a branch of convolutions plus a shortcut.

Shapes: N images, C_in and C_out channels of the block, C bottleneck channels; H, W at the block's input and
H', W' = H / stride, W / stride (rounded up) at its output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.layers.batch_norm import Norm, get_norm
from detectron2.layers.blocks import CNNBlockBase
from detectron2.layers.deform_conv import DeformConv, ModulatedDeformConv
from detectron2.layers.weight_init import c2_msra_fill
from detectron2.layers.wrappers import Conv2d


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    norm: Norm,
    stride: int = 1,
    dilation: int = 1,
    num_groups: int = 1,
) -> Conv2d:
    """Make a bias-free convolution that keeps the size but for its stride, followed by `norm`."""
    return Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=dilation * (kernel_size // 2),
        dilation=dilation,
        groups=num_groups,
        bias=False,
        norm=get_norm(norm, out_channels),
    )


class ResidualBlock(CNNBlockBase):
    """relu(branch(x) + shortcut(x)); the shortcut is the identity where shapes allow it.

    A subclass builds the shortcut before its branch and initialises both at its end, the shortcut last (this
    order decides seeded initialisation), and it defines `branch`.
    """

    shortcut: nn.Module | None

    def branch(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H', W'), without the last ReLU."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H', W')."""
        out = self.branch(x)
        out = out + (x if self.shortcut is None else self.shortcut(x))
        return F.relu_(out)

    @property
    def changes_shape(self) -> bool:
        """Whether input and output differ in channels or size, as in the first block of a stage."""
        return self.in_channels != self.out_channels or self.stride != 1

    def _build_shortcut(self, norm: Norm) -> nn.Module | None:
        """Make the projection of a block that changes shape, None for any other block."""
        if not self.changes_shape:
            return None
        return conv_norm(self.in_channels, self.out_channels, 1, stride=self.stride, norm=norm)

    @property
    def _shortcut_convs(self) -> list[nn.Module]:
        """The convolutions of the shortcut, for their initialisation."""
        modules = () if self.shortcut is None else self.shortcut.modules()
        return [module for module in modules if isinstance(module, nn.Conv2d)]


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions, the block of ResNet-18 and ResNet-34."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, norm: Norm = "BN") -> None:
        super().__init__(in_channels, out_channels, stride)
        self.shortcut = self._build_shortcut(norm)
        self.conv1 = conv_norm(in_channels, out_channels, 3, stride=stride, norm=norm)
        self.conv2 = conv_norm(out_channels, out_channels, 3, norm=norm)
        for conv in (self.conv1, self.conv2, *self._shortcut_convs):
            c2_msra_fill(conv)

    def branch(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(F.relu_(self.conv1(x)))
        return out


class BottleneckBlock(ResidualBlock):
    """1x1 convolution -> middle -> 1x1 convolution, the block of ResNet-50 and deeper.

    The middle is one 3x3 convolution. A variant overrides `_build_middle` and `middle`, and gets its own
    options as keyword arguments of `_build_middle`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: Norm = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
        **middle_options: Any,
    ) -> None:
        """
        Args:
            bottleneck_channels: channels of the middle, over all groups.
            num_groups: groups of the 3x3 convolution.
            norm: any norm that `get_norm` knows, after each convolution.
            stride_in_1x1: put the stride into the first 1x1 convolution (Caffe's models) instead of the 3x3
                (torchvision's).
            dilation: of the 3x3 convolution.
            middle_options: for `_build_middle`.
        """
        super().__init__(in_channels, out_channels, stride)
        self.stride_in_1x1 = stride_in_1x1
        self.shortcut = self._build_shortcut(norm)
        self.conv1 = conv_norm(
            in_channels, bottleneck_channels, 1, stride=stride if stride_in_1x1 else 1, norm=norm
        )
        middle_convs = self._build_middle(
            bottleneck_channels,
            stride=1 if stride_in_1x1 else stride,
            num_groups=num_groups,
            dilation=dilation,
            norm=norm,
            **middle_options,
        )
        self.conv3 = conv_norm(bottleneck_channels, out_channels, 1, norm=norm)
        for conv in self._convs_to_fill(middle_convs):
            c2_msra_fill(conv)

    def branch(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv3(self.middle(F.relu_(self.conv1(x))))
        return out

    def _convs_to_fill(self, middle_convs: Sequence[nn.Module]) -> list[nn.Module]:
        """List all convolutions in the order of their initialisation.

        Args:
            middle_convs: what `_build_middle` returned.
        """
        return [self.conv1, *middle_convs, self.conv3, *self._shortcut_convs]

    conv2: nn.Module

    def middle(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W'), the last ReLU included."""
        return F.relu_(self.conv2(x))

    def _build_middle(
        self, channels: int, *, stride: int, num_groups: int, dilation: int, norm: Norm
    ) -> list[nn.Module]:
        """Make the modules that `middle` uses.

        Returns:
            The convolutions that start from the block's common initialisation.
        """
        self.conv2 = conv_norm(
            channels, channels, 3, stride=stride, dilation=dilation, num_groups=num_groups, norm=norm
        )
        return [self.conv2]


class DeformBottleneckBlock(BottleneckBlock):
    """Bottleneck whose 3x3 convolution is deformable: `conv2_offset` predicts where it samples."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: Norm = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
        deform_modulated: bool = False,
        deform_num_groups: int = 1,
    ) -> None:
        """
        Args:
            deform_modulated: also predict a weight in (0, 1) for every sampled point (version 2).
            deform_num_groups: channel groups with offsets of their own.
        """
        super().__init__(
            in_channels,
            out_channels,
            bottleneck_channels=bottleneck_channels,
            stride=stride,
            num_groups=num_groups,
            norm=norm,
            stride_in_1x1=stride_in_1x1,
            dilation=dilation,
            deform_modulated=deform_modulated,
            deform_num_groups=deform_num_groups,
        )

    def _build_middle(
        self,
        channels: int,
        *,
        stride: int,
        num_groups: int,
        dilation: int,
        norm: Norm,
        deform_modulated: bool = False,
        deform_num_groups: int = 1,
    ) -> list[nn.Module]:
        self.deform_modulated = deform_modulated
        self.conv2_offset = make_offset_conv(
            channels,
            modulated=deform_modulated,
            deform_num_groups=deform_num_groups,
            stride=stride,
            dilation=dilation,
        )
        self.conv2 = make_deform_conv(
            channels,
            modulated=deform_modulated,
            deform_num_groups=deform_num_groups,
            stride=stride,
            dilation=dilation,
            num_groups=num_groups,
            norm=norm,
        )
        return [self.conv2]

    def middle(self, x: Tensor) -> Tensor:
        return F.relu_(run_deform_conv(self.conv2, self.conv2_offset, x))


def make_deform_conv(
    channels: int,
    *,
    modulated: bool,
    deform_num_groups: int,
    stride: int,
    dilation: int,
    num_groups: int,
    norm: Norm,
) -> nn.Module:
    """Make a deformable 3x3 convolution that keeps the size but for its stride, followed by `norm`."""
    return (ModulatedDeformConv if modulated else DeformConv)(
        channels,
        channels,
        kernel_size=3,
        stride=stride,
        padding=dilation,
        dilation=dilation,
        groups=num_groups,
        deformable_groups=deform_num_groups,
        bias=False,
        norm=get_norm(norm, channels),
    )


def make_offset_conv(
    channels: int, *, modulated: bool, deform_num_groups: int, stride: int, dilation: int
) -> Conv2d:
    """Make the convolution that predicts where a 3x3 convolution samples; it starts at the regular grid.

    Its channels, per deformable group and kernel tap: two of offset and, if `modulated`, one of weight.
    """
    num_predicted = (3 if modulated else 2) * 9 * deform_num_groups
    conv = Conv2d(channels, num_predicted, 3, stride=stride, padding=dilation, dilation=dilation)
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv


def run_deform_conv(conv: nn.Module, offset_conv: nn.Module, x: Tensor) -> Tensor:
    """Run `conv` on `x` where `offset_conv` says and, if it is modulated, with the weights that it says."""
    predicted: Tensor = offset_conv(x)
    if isinstance(conv, ModulatedDeformConv):
        first, second, weight_logits = predicted.chunk(3, dim=1)
        out: Tensor = conv(x, torch.cat((first, second), dim=1), weight_logits.sigmoid())
    else:
        out = conv(x, predicted)
    return out
