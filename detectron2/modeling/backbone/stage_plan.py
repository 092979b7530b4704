"""The stages of residual networks: their geometry, by depth or config, and the making of their blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detectron2.config.config.node import CfgNode
from detectron2.layers.blocks import CNNBlockBase
from detectron2.utils.user_errors import UserValueError

BLOCKS_PER_STAGE: dict[int, tuple[int, ...]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Depth -> blocks in res2..res5."""


def make_blocks(
    block_class: type[CNNBlockBase], num_blocks: int, *, in_channels: int, out_channels: int, **kwargs: Any
) -> list[CNNBlockBase]:
    """Make the blocks of one stage.

    Args:
        block_class: called as `block_class(in_channels=..., out_channels=..., **options)`.
        num_blocks: blocks in the stage.
        in_channels: of the first block; the others take `out_channels`.
        out_channels: of every block.
        kwargs: options of the blocks. `<option>_per_block` is a list with one value for each block.
    """
    options_per_block = [_block_options(kwargs, index, num_blocks) for index in range(num_blocks)]
    return [
        block_class(
            in_channels=in_channels if index == 0 else out_channels, out_channels=out_channels, **options
        )
        for index, options in enumerate(options_per_block)
    ]


def _block_options(options: dict[str, Any], index: int, num_blocks: int) -> dict[str, Any]:
    """Pick what block `index` gets out of the options of its stage."""
    suffix = "_per_block"
    chosen: dict[str, Any] = {}
    for name, value in options.items():
        if name.endswith(suffix):
            if len(value) != num_blocks:
                raise UserValueError(f"{name} needs one value for each of {num_blocks} blocks, got {value}")
            name, value = name.removesuffix(suffix), value[index]
            if name in options:
                raise UserValueError(f"give either {name} or {name}{suffix}, not both")
        chosen[name] = value
    return chosen


@dataclass(frozen=True)
class StagePlan:
    """The geometry of one stage, before any weight exists."""

    num_blocks: int
    in_channels: int
    out_channels: int
    bottleneck_channels: int
    stride: int  # of the first block
    dilation: int = 1

    def make(
        self, block_class: type[CNNBlockBase], *, has_bottleneck: bool = True, **options: Any
    ) -> list[CNNBlockBase]:
        """Make the blocks; `options` go to every one of them."""
        if has_bottleneck:
            options = {"bottleneck_channels": self.bottleneck_channels, "dilation": self.dilation} | options
        return make_blocks(
            block_class,
            self.num_blocks,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            stride_per_block=[self.stride] + [1] * (self.num_blocks - 1),
            **options,
        )


def plan_stages(
    blocks_per_stage: Sequence[int],
    *,
    stem_channels: int,
    res2_channels: int,
    bottleneck_channels: int,
    res5_dilation: int = 1,
) -> list[StagePlan]:
    """Lay out res2, res3, ...: channels double and resolution halves from one stage to the next.

    Args:
        bottleneck_channels: of res2, over all groups.
        res5_dilation: 2 keeps res5 at the resolution of res4 and dilates its convolutions instead.
    """
    plans: list[StagePlan] = []
    in_channels = stem_channels
    for index, num_blocks in enumerate(blocks_per_stage):
        dilation = res5_dilation if index == 3 else 1
        plan = StagePlan(
            num_blocks=num_blocks,
            in_channels=in_channels,
            out_channels=res2_channels * 2**index,
            bottleneck_channels=bottleneck_channels * 2**index,
            stride=1 if index == 0 or dilation == 2 else 2,
            dilation=dilation,
        )
        in_channels = plan.out_channels
        plans.append(plan)
    return plans


def blocks_for_depth(depth: int) -> tuple[int, ...]:
    """Return the number of blocks in res2..res5 of a ResNet of this depth."""
    if depth not in BLOCKS_PER_STAGE:
        raise UserValueError(f"MODEL.RESNETS.DEPTH must be one of {sorted(BLOCKS_PER_STAGE)}, got {depth}")
    return BLOCKS_PER_STAGE[depth]


@dataclass(frozen=True)
class BottleneckKind:
    """The bottleneck blocks of one family of networks.

    Attributes:
        block_class: of a stage with plain 3x3 convolutions.
        deform_block_class: of a deformable stage.
        options: what both classes take beside the options of every bottleneck.
        width_factor: bottleneck channels for each channel of `NUM_GROUPS * WIDTH_PER_GROUP`.
    """

    block_class: type[CNNBlockBase]
    deform_block_class: type[CNNBlockBase]
    options: Mapping[str, Any] = field(default_factory=dict)
    width_factor: int = 1


def plan_stages_from_config(
    cfg: CfgNode, *, blocks_per_stage: Sequence[int], width_factor: int = 1
) -> list[StagePlan]:
    """Lay out the stages that `MODEL.RESNETS` asks for.

    Stages behind the last one in `OUT_FEATURES` are laid out too: their weights are drawn before the network
    drops them, and so decide what the heads draw.

    Args:
        width_factor: as in `BottleneckKind`.
    """
    node = cfg.MODEL.RESNETS
    if node.RES5_DILATION not in (1, 2):
        raise UserValueError(f"MODEL.RESNETS.RES5_DILATION must be 1 or 2, got {node.RES5_DILATION}")
    plans = plan_stages(
        blocks_per_stage,
        stem_channels=node.STEM_OUT_CHANNELS,
        res2_channels=node.RES2_OUT_CHANNELS,
        bottleneck_channels=node.NUM_GROUPS * node.WIDTH_PER_GROUP * width_factor,
        res5_dilation=node.RES5_DILATION,
    )
    known = ["stem", *(f"res{i + 2}" for i in range(len(plans)))]
    unknown = [name for name in node.OUT_FEATURES if name not in known]
    if unknown or not node.OUT_FEATURES:
        raise UserValueError(f"MODEL.RESNETS.OUT_FEATURES must be some of {known}, got {node.OUT_FEATURES}")
    return plans


def make_bottleneck_stages(
    cfg: CfgNode, kind: BottleneckKind, *, blocks_per_stage: Sequence[int]
) -> list[list[CNNBlockBase]]:
    """Make the stages of bottlenecks that `MODEL.RESNETS` asks for.

    Args:
        kind: what the blocks are.
        blocks_per_stage: in res2, res3, ...
    """
    plans = plan_stages_from_config(cfg, blocks_per_stage=blocks_per_stage, width_factor=kind.width_factor)
    return [
        _make_stage(cfg, kind, plan, is_deformable)
        for plan, is_deformable in zip(plans, cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE)
    ]


def make_region_stage(cfg: CfgNode, kind: BottleneckKind, *, num_blocks: int = 3) -> list[CNNBlockBase]:
    """Make the blocks of res5 for a model that runs them on regions, and so never dilated.

    Args:
        kind: what the blocks are.
        num_blocks: 3 in every bottleneck network that has a name.
    """
    node = cfg.MODEL.RESNETS
    growth = 2**3  # channels double at each of the three stages from res2 to res5
    plan = StagePlan(
        num_blocks=num_blocks,
        in_channels=node.RES2_OUT_CHANNELS * growth // 2,
        out_channels=node.RES2_OUT_CHANNELS * growth,
        bottleneck_channels=node.NUM_GROUPS * node.WIDTH_PER_GROUP * kind.width_factor * growth,
        stride=2,
    )
    return _make_stage(cfg, kind, plan, is_deformable=node.DEFORM_ON_PER_STAGE[-1])


def _make_stage(
    cfg: CfgNode, kind: BottleneckKind, plan: StagePlan, is_deformable: bool
) -> list[CNNBlockBase]:
    node = cfg.MODEL.RESNETS
    deform_options = {"deform_modulated": node.DEFORM_MODULATED, "deform_num_groups": node.DEFORM_NUM_GROUPS}
    return plan.make(
        kind.deform_block_class if is_deformable else kind.block_class,
        norm=node.NORM,
        num_groups=node.NUM_GROUPS,
        stride_in_1x1=node.STRIDE_IN_1X1,
        **kind.options,
        **(deform_options if is_deformable else {}),
    )
