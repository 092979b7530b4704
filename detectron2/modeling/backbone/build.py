"""The registry of backbones, and the function that makes the one a config names."""

from __future__ import annotations

from detectron2.config.config import CfgNode
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.utils.registry import Registry

from .backbone import Backbone

BACKBONE_REGISTRY = Registry("BACKBONE")
BACKBONE_REGISTRY.__doc__ = """
Functions `(cfg, input_shape: ShapeSpec) -> Backbone` by the name that `MODEL.BACKBONE.NAME` gives.
"""


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
        raise TypeError(
            f"MODEL.BACKBONE.NAME {name!r} must build a Backbone, it built a {type(backbone).__name__}"
        )
    return backbone
