"""The registries of backbones and of their last stages, and the functions that make what a config names."""

from __future__ import annotations

from collections.abc import Callable

from detectron2.config.config.node import CfgNode
from detectron2.layers.blocks import CNNBlockBase
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.utils.registry import Registry
from detectron2.utils.user_errors import UserTypeError

from .backbone import Backbone

BACKBONE_REGISTRY = Registry("BACKBONE")
BACKBONE_REGISTRY.__doc__ = """
Functions `(cfg, input_shape: ShapeSpec) -> Backbone` by the name that `MODEL.BACKBONE.NAME` gives.
"""

RegionStageBuilder = Callable[[CfgNode], list[CNNBlockBase]]

REGION_STAGE_REGISTRY = Registry("REGION_STAGE")
REGION_STAGE_REGISTRY.__doc__ = """
Functions `cfg -> blocks of res5` for models that run this stage on regions (C4), by the name of the backbone
that it belongs to.
"""


# Stages of backbones that give way to others of their name.
_STAGES_GIVING_WAY: set[str] = set()


def register_region_stage(
    backbone_name: str, *, overridable: bool = False
) -> Callable[[RegionStageBuilder], RegionStageBuilder]:
    """Register the decorated function as the maker of res5 for models on this backbone.

    Args:
        backbone_name: what the backbone is registered as.
        overridable: whether the backbone gives way to another of its name, which then has no such stage.
    """

    def register(builder: RegionStageBuilder) -> RegionStageBuilder:
        REGION_STAGE_REGISTRY._do_register(backbone_name, builder)
        if overridable:
            _STAGES_GIVING_WAY.add(backbone_name)
        return builder

    return register


def build_region_stage(cfg: CfgNode) -> list[CNNBlockBase]:
    """Build the blocks of res5 that belong to `MODEL.BACKBONE.NAME`.

    A backbone that registers no such stage gets the one of ResNet.
    """
    name = cfg.MODEL.BACKBONE.NAME
    was_replaced = name in _STAGES_GIVING_WAY and not BACKBONE_REGISTRY.gives_way(name)
    if name not in REGION_STAGE_REGISTRY or was_replaced:
        name = "build_resnet_backbone"
    builder: RegionStageBuilder = REGION_STAGE_REGISTRY.get(name)
    return builder(cfg)


def build_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> Backbone:
    """Build the backbone `MODEL.BACKBONE.NAME`.

    Args:
        cfg: the whole config.
        input_shape: what the backbone is fed; None means images with a channel per entry of
            `MODEL.PIXEL_MEAN`.

    Raises:
        KeyError: no backbone of this name is registered.
        TypeError: the registered function gave something else than a `Backbone`.
    """
    name = cfg.MODEL.BACKBONE.NAME
    if input_shape is None:
        input_shape = ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    backbone = BACKBONE_REGISTRY.get(name)(cfg, input_shape)
    if not isinstance(backbone, Backbone):
        raise UserTypeError(
            f"MODEL.BACKBONE.NAME {name!r} must build a Backbone, it built a {type(backbone).__name__}"
        )
    return backbone
