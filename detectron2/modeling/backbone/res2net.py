"""Res2Net as a plug-in: block, stem and the registered builders.

Gao et al., "Res2Net: A New Multi-scale Backbone Architecture", TPAMI 2020. Depth, width, groups, dilation,
norm and strides are those of `MODEL.RESNETS`; what only Res2Net has stands in `MODEL.RES2NET`.

Shapes: N images; a bottleneck has C = groups * width * scale channels and is worked on in `scale` splits of
C / scale channels each.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.config.config.node import CfgNode
from detectron2.layers.batch_norm import get_norm
from detectron2.layers.blocks import CNNBlockBase
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.weight_init import c2_msra_fill
from detectron2.utils.user_errors import UserValueError

from .backbone import stated
from .build import BACKBONE_REGISTRY, register_region_stage
from .fpn import FPN, LastLevelMaxPool, build_fpn, build_retinanet_fpn
from .residual import BottleneckBlock, Norm, conv_norm, make_deform_conv, make_offset_conv, run_deform_conv
from .resnet import BasicStem, ResNet
from .stage_plan import (
    BlockChoice,
    blocks_for_depth,
    build_stages,
    make_region_stage,
    plan_stages_from_config,
)

StagePool = bool | Literal["auto"]

# A config key has one type; this one is a string there.
_STAGE_POOL_BY_NAME: dict[str, StagePool] = {"auto": "auto", "true": True, "false": False}


def _norm_module(norm: Norm, channels: int) -> nn.Module:
    """Make a norm as a module of its own, the identity where there is none."""
    return get_norm(norm, channels) or nn.Identity()


class DeepStem(CNNBlockBase):
    """Three 3x3 convolutions and max pooling in place of the 7x7 convolution; the last norm is `bn1`."""

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: Norm = "BN") -> None:
        super().__init__(in_channels, out_channels, 4)
        if out_channels % 2:
            raise UserValueError(f"the deep stem needs an even number of output channels, got {out_channels}")
        half = out_channels // 2
        # The positions 0, 1, 3, 4 and 6 are checkpoint names.
        self.conv1 = nn.Sequential(
            conv_norm(in_channels, half, 3, stride=2, norm=""),
            _norm_module(norm, half),
            nn.ReLU(inplace=True),
            conv_norm(half, half, 3, norm=""),
            _norm_module(norm, half),
            nn.ReLU(inplace=True),
            conv_norm(half, out_channels, 3, norm=""),
        )
        self.bn1 = _norm_module(norm, out_channels)
        for layer in self.conv1:
            if isinstance(layer, nn.Conv2d):
                c2_msra_fill(layer)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / 4, W / 4)."""
        return F.max_pool2d(F.relu_(self.bn1(self.conv1(x))), kernel_size=3, stride=2, padding=1)


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
        c2_msra_fill(project)
        pool = nn.AvgPool2d(self.stride, self.stride, ceil_mode=True, count_include_pad=False)
        return nn.Sequential(pool, project)

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
        self.bns = nn.ModuleList(_norm_module(norm, width) for _ in convs)
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
        return self.convs[index](split)


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


@BACKBONE_REGISTRY.register()
def build_res2net_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Build the Res2Net that `MODEL.RESNETS` and `MODEL.RES2NET` describe."""
    resnets, res2net = cfg.MODEL.RESNETS, cfg.MODEL.RES2NET
    stem_class = DeepStem if res2net.DEEP_STEM else BasicStem
    stem = stem_class(
        stated(input_shape.channels, "input channels"), resnets.STEM_OUT_CHANNELS, norm=resnets.NORM
    )
    plans = plan_stages_from_config(cfg, blocks_per_stage=_blocks_per_stage(cfg), width_factor=res2net.SCALE)
    stages = build_stages(cfg, plans, _block_choice(cfg))
    return ResNet(stem, stages, out_features=resnets.OUT_FEATURES, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)


@register_region_stage("build_res2net_backbone")
def _build_res2net_region_stage(cfg: CfgNode) -> list[CNNBlockBase]:
    return make_region_stage(
        cfg,
        _block_choice(cfg),
        num_blocks=_blocks_per_stage(cfg)[-1],
        width_factor=cfg.MODEL.RES2NET.SCALE,
    )


def _block_choice(cfg: CfgNode) -> BlockChoice:
    node = cfg.MODEL.RES2NET
    options = {"scale": node.SCALE, "avg_down": node.AVG_DOWN, "stage_pool": _stage_pool(node.STAGE_POOL)}

    def choose(is_deformable: bool) -> tuple[type[CNNBlockBase], dict[str, Any]]:
        return (DeformRes2NetBottleneckBlock if is_deformable else Res2NetBottleneckBlock), options

    return choose


def _stage_pool(value: str | bool) -> StagePool:
    choice = _STAGE_POOL_BY_NAME.get(str(value).lower())
    if choice is None:
        raise UserValueError(f'MODEL.RES2NET.STAGE_POOL must be "auto", True or False, got {value!r}')
    return choice


def _blocks_per_stage(cfg: CfgNode) -> tuple[int, ...]:
    """Return the blocks in res2..res5: `MODEL.RES2NET.STAGE_BLOCKS`, or what `MODEL.RESNETS.DEPTH` means."""
    counts = tuple(cfg.MODEL.RES2NET.STAGE_BLOCKS)
    if counts:
        if len(counts) != 4 or any(not isinstance(n, int) or n < 1 for n in counts):
            raise UserValueError(
                f"MODEL.RES2NET.STAGE_BLOCKS must be four positive numbers or [], got {list(counts)}"
            )
        return counts
    depth = cfg.MODEL.RESNETS.DEPTH
    if depth < 50:
        raise UserValueError(
            f"Res2Net has bottleneck blocks, which MODEL.RESNETS.DEPTH {depth} does not; use 50, 101 or 152,"
            " or set MODEL.RES2NET.STAGE_BLOCKS, such as [2, 2, 2, 2]"
        )
    return blocks_for_depth(depth)


@BACKBONE_REGISTRY.register()
def build_res2net_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build a Res2Net with a feature pyramid, p6 made by pooling."""
    return build_fpn(cfg, build_res2net_backbone(cfg, input_shape), LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_retinanet_res2net_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build a Res2Net with a feature pyramid, p6 and p7 made from res5."""
    return build_retinanet_fpn(cfg, build_res2net_backbone(cfg, input_shape))
