"""The registered builders: from `MODEL.RESNETS` and `MODEL.RES2NET` to a backbone."""

from __future__ import annotations

from detectron2.config.config.node import CfgNode
from detectron2.layers.blocks import CNNBlockBase
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.modeling.backbone.backbone import stated
from detectron2.modeling.backbone.build import BACKBONE_REGISTRY, register_region_stage
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, build_fpn, build_retinanet_fpn
from detectron2.modeling.backbone.resnet import BasicStem, ResNet
from detectron2.modeling.backbone.stage_plan import (
    BottleneckKind,
    blocks_for_depth,
    make_bottleneck_stages,
    make_region_stage,
)
from detectron2.utils.user_errors import UserValueError, near

from .block import DeformRes2NetBottleneckBlock, Res2NetBottleneckBlock, StagePool
from .stem import DeepStem

_STAGE_POOLS: dict[str, StagePool] = {"auto": "auto", "true": True, "false": False}


@BACKBONE_REGISTRY.register(overridable=True)
def build_res2net_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Build the Res2Net that `MODEL.RESNETS` and `MODEL.RES2NET` describe."""
    resnets = cfg.MODEL.RESNETS
    stem_class = DeepStem if cfg.MODEL.RES2NET.DEEP_STEM else BasicStem
    stem = stem_class(
        stated(input_shape.channels, "input channels"), resnets.STEM_OUT_CHANNELS, norm=resnets.NORM
    )
    stages = make_bottleneck_stages(cfg, _blocks(cfg), blocks_per_stage=_blocks_per_stage(cfg))
    return ResNet(stem, stages, out_features=resnets.OUT_FEATURES, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)


@register_region_stage("build_res2net_backbone", overridable=True)
def _build_region_stage(cfg: CfgNode) -> list[CNNBlockBase]:
    return make_region_stage(cfg, _blocks(cfg), num_blocks=_blocks_per_stage(cfg)[-1])


def _blocks(cfg: CfgNode) -> BottleneckKind:
    node = cfg.MODEL.RES2NET
    return BottleneckKind(
        Res2NetBottleneckBlock,
        DeformRes2NetBottleneckBlock,
        options={
            "scale": node.SCALE,
            "avg_down": node.AVG_DOWN,
            "stage_pool": _stage_pool(node.STAGE_POOL),
        },
        width_factor=node.SCALE,
    )


def _stage_pool(value: str) -> StagePool:
    choice = _STAGE_POOLS.get(str(value).lower())
    if choice is None:
        raise UserValueError(
            f'MODEL.RES2NET.STAGE_POOL must be "auto", "true" or "false", got {value!r}.'
            f"{near(value, _STAGE_POOLS)}"
        )
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


@BACKBONE_REGISTRY.register(overridable=True)
def build_res2net_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build a Res2Net with a feature pyramid, p6 made by pooling."""
    return build_fpn(cfg, build_res2net_backbone(cfg, input_shape), LastLevelMaxPool())


@BACKBONE_REGISTRY.register(overridable=True)
def build_retinanet_res2net_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build a Res2Net with a feature pyramid, p6 and p7 made from res5."""
    return build_retinanet_fpn(cfg, build_res2net_backbone(cfg, input_shape))
