"""The bottleneck of Res2Net, with plain and with deformable convolutions.

Gao et al., "Res2Net: A New Multi-scale Backbone Architecture", TPAMI 2020.

Shapes: N images; a bottleneck has C = groups * width * scale channels and is worked on in `scale` splits of
C / scale channels each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.layers.batch_norm import Norm
from detectron2.modeling.backbone.residual import (
    BottleneckBlock,
    conv_norm,
    make_deform_conv,
    make_offset_conv,
    run_deform_conv,
)
from detectron2.utils.user_errors import UserValueError

from .stem import norm_module

StagePool = bool | Literal["auto"]


class Res2NetBottleneckBlock(BottleneckBlock):
    """Bottleneck whose 3x3 stage works on `scale` channel splits, each fed by the one before.

    Two variants are published under the same parameter names, so that the weights of one load into the
    other without an error and give wrong features. `stride_in_1x1` tells them apart:

    - False (ImageNet models): the 3x3 convolutions stride, and the last split of a block that changes shape
      goes through a 3x3 average pool of that stride, at stride 1 too.
    - True (the published COCO panoptic checkpoint): the first 1x1 strides, and the last split is passed on
      as it is.
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
        avg_down: bool = True,
        **middle_options: Any,
    ) -> None:
        """
        Args:
            bottleneck_channels: over all groups and splits.
            avg_down: let the shortcut pool and then project, instead of projecting with a stride.
            middle_options: `scale` and `stage_pool` of `_build_middle`.
        """
        self.avg_down = avg_down  # `_build_shortcut` reads it while the base class builds
        super().__init__(
            in_channels,
            out_channels,
            bottleneck_channels=bottleneck_channels,
            stride=stride,
            num_groups=num_groups,
            norm=norm,
            stride_in_1x1=stride_in_1x1,
            dilation=dilation,
            **middle_options,
        )

    def _build_shortcut(self, norm: Norm) -> nn.Module | None:
        if not self.avg_down or not self.changes_shape:
            return super()._build_shortcut(norm)
        project = conv_norm(self.in_channels, self.out_channels, 1, norm=norm)
        pool = nn.AvgPool2d(self.stride, self.stride, ceil_mode=True, count_include_pad=False)
        return nn.Sequential(pool, project)

    def _convs_to_fill(self, middle_convs: Sequence[nn.Module]) -> list[nn.Module]:
        # The order of the published code, for equal weights from equal seeds.
        return [self.conv1, self.conv3, *self._shortcut_convs, *middle_convs]

    def _build_middle(
        self,
        channels: int,
        *,
        stride: int,
        num_groups: int,
        dilation: int,
        norm: Norm,
        scale: int = 4,
        stage_pool: StagePool = "auto",
    ) -> list[nn.Module]:
        """
        Args:
            scale: number of splits; 1 means one convolution over all channels.
            stage_pool: whether a block that changes shape pools its last split; "auto" means: where the
                stride is in the 3x3 convolutions.
        """
        if scale < 1 or channels % scale:
            raise UserValueError(f"{channels} bottleneck channels do not split into scale={scale} groups")
        width = channels // scale
        self.scale = scale
        self.chained = not self.changes_shape
        # `convs` and `bns` are checkpoint names.
        convs = [
            self._make_split_conv(width, stride=stride, dilation=dilation, num_groups=num_groups)
            for _ in range(max(scale - 1, 1))
        ]
        self.convs = nn.ModuleList(convs)
        self.bns = nn.ModuleList(norm_module(norm, width) for _ in convs)
        self.pool = self._make_pool(stride, stage_pool) if scale > 1 else nn.Identity()
        return convs

    def _make_split_conv(self, width: int, *, stride: int, dilation: int, num_groups: int) -> nn.Module:
        return conv_norm(width, width, 3, stride=stride, dilation=dilation, num_groups=num_groups, norm="")

    def _make_pool(self, stride: int, stage_pool: StagePool) -> nn.Module:
        """Make what the last split, which no convolution sees, goes through."""
        if stage_pool not in (True, False, "auto"):
            raise UserValueError(f'stage_pool must be True, False or "auto", got {stage_pool!r}')
        wanted = not self.stride_in_1x1 if stage_pool == "auto" else stage_pool
        if self.changes_shape and wanted:
            return nn.AvgPool2d(3, stride, padding=1)
        if stride > 1:
            raise UserValueError(
                "without pooling, the last split keeps a size that the strided 3x3 convolutions halve: set"
                " MODEL.RES2NET.STAGE_POOL to True, or MODEL.RESNETS.STRIDE_IN_1X1 to True"
            )
        return nn.Identity()

    def middle(self, x: Tensor) -> Tensor:
        splits = x.chunk(self.scale, dim=1)  # scale x (N, C / scale, H, W)
        outputs: list[Tensor] = []
        for index, norm in enumerate(self.bns):
            split = splits[index] + outputs[-1] if self.chained and outputs else splits[index]
            outputs.append(F.relu_(norm(self._convolve(index, split))))
        if self.scale > 1:
            outputs.append(self.pool(splits[-1]))
        return torch.cat(outputs, dim=1)

    def _convolve(self, index: int, split: Tensor) -> Tensor:
        out: Tensor = self.convs[index](split)
        return out


class DeformRes2NetBottleneckBlock(Res2NetBottleneckBlock):
    """Res2Net bottleneck with deformable 3x3 convolutions; `conv2_offsets.{i}` belongs to `convs.{i}`."""

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
        **res2net_options: Any,
    ) -> list[nn.Module]:
        self.deform_modulated = deform_modulated
        self._deform_num_groups = deform_num_groups
        convs = super()._build_middle(
            channels, stride=stride, num_groups=num_groups, dilation=dilation, norm=norm, **res2net_options
        )
        self.conv2_offsets = nn.ModuleList(
            make_offset_conv(
                channels // self.scale,
                modulated=deform_modulated,
                deform_num_groups=deform_num_groups,
                stride=stride,
                dilation=dilation,
            )
            for _ in convs
        )
        return convs

    def _make_split_conv(self, width: int, *, stride: int, dilation: int, num_groups: int) -> nn.Module:
        return make_deform_conv(
            width,
            modulated=self.deform_modulated,
            deform_num_groups=self._deform_num_groups,
            stride=stride,
            dilation=dilation,
            num_groups=num_groups,
            norm="",
        )

    def _convolve(self, index: int, split: Tensor) -> Tensor:
        return run_deform_conv(self.convs[index], self.conv2_offsets[index], split)
