"""Backbones of the timm package, for those who have it installed.

Shapes: N images, H x W their size; map `res<l>` is (N, C_l, H / 2^l, W / 2^l), whatever timm calls it.
"""

from __future__ import annotations

import ast
import importlib
import math
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detectron2.config.config.node import CfgNode
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.utils.user_errors import UserImportError, UserValueError, near

from .backbone import Backbone, stated
from .build import BACKBONE_REGISTRY
from .fpn import FPN, LastLevelMaxPool, build_fpn, build_retinanet_fpn

__all__ = [
    "TimmBackbone",
    "build_retinanet_timm_fpn_backbone",
    "build_timm_backbone",
    "build_timm_fpn_backbone",
]


class TimmBackbone(Backbone):
    """A timm model that gives feature maps, named `res<l>` by the logarithm of their stride."""

    def __init__(
        self,
        name: str,
        *,
        in_channels: int = 3,
        pretrained: bool = False,
        out_indices: Sequence[int] = (),
        freeze_at: int = 0,
        freeze_bn: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            name: of a model in timm, such as "resnet50d".
            in_channels: channels of the images.
            pretrained: let timm download the weights that it has for the model.
            out_indices: which of the model's maps to compute, counted as timm does; none means all. Of
                several maps of one stride the last is given.
            freeze_at: 0 trains everything; otherwise parts up to the map of stride 2^freeze_at are frozen, at
                least what comes before the first map.
            freeze_bn: keep statistics, scales and shifts of batch norms as they are.
            options: further arguments of `timm.create_model`.
        """
        super().__init__()
        self.net = _create_model(
            name, in_chans=in_channels, pretrained=pretrained, out_indices=out_indices, options=options or {}
        )
        info = self.net.feature_info
        self._names = [f"res{_level_of(stride)}" for stride in info.reduction()]
        self._out_features = list(dict.fromkeys(self._names))
        self._out_feature_channels = dict(zip(self._names, info.channels()))
        self._out_feature_strides = dict(zip(self._names, info.reduction()))
        self._is_channels_last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"

        self._frozen = self._first_modules(freeze_at) if freeze_at > 0 else []
        if freeze_bn:
            self._frozen += [module for module in self.net.modules() if isinstance(module, _BatchNorm)]
        for module in self._frozen:
            for parameter in module.parameters(recurse=False):  # modules inside have their own entries
                parameter.requires_grad = False
        self.train(self.training)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) images -> {"res2": (N, C_2, H / 4, W / 4), ...}."""
        maps = self.net(x)
        if self._is_channels_last:
            maps = [map_.permute(0, 3, 1, 2) for map_ in maps]
        return dict(zip(self._names, maps))

    def train(self, mode: bool = True) -> TimmBackbone:
        """Switch between training and evaluation; frozen parts stay as in evaluation."""
        super().train(mode)
        for module in self._frozen:
            module.training = False
        return self

    def _first_modules(self, freeze_at: int) -> list[nn.Module]:
        """Find the modules up to those that give the maps of stride 2^freeze_at."""
        info = self.net.feature_info
        modules = list(self.net.named_modules())[1:]  # without the net itself
        spans = [_span([name for name, _ in modules], source) for source in info.module_name()]
        if None in spans:
            raise UserValueError(
                f"timm's {type(self.net).__name__} does not show which of its parts come first: "
                "set MODEL.BACKBONE.FREEZE_AT 0"
            )
        levels = [_level_of(stride) for stride in info.reduction()]
        ends = [span.stop for span, level in zip(spans, levels) if span and level <= freeze_at]
        end = max(ends) if ends else min(span.start for span in spans if span)
        return [module for _, module in modules[:end]]


def _span(names: Sequence[str], source: str) -> range | None:
    """Where among modules in order, by dotted names, a module and what is inside it stand."""
    # timm writes the dots of a name as underscores where it takes a model apart.
    for name in (source, source.replace(".", "_")):
        inside = [i for i, other in enumerate(names) if f"{other}.".startswith(f"{name}.")]
        if inside:
            return range(inside[0], inside[-1] + 1)
    return None


def _level_of(stride: int) -> int:
    level = round(math.log2(stride))
    if 2**level != stride:
        raise UserValueError(
            f"feature maps need strides that are powers of two, this model has one of {stride}"
        )
    return level


def _import_timm() -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise UserImportError(
            f"timm models need the packages timm and torchvision, and importing timm failed ({error}). "
            "Install both, or choose another MODEL.BACKBONE.NAME."
        ) from error


def _create_model(
    name: str, *, in_chans: int, pretrained: bool, out_indices: Sequence[int], options: Mapping[str, Any]
) -> Any:
    timm = _import_timm()
    if not timm.is_model(name):
        hint = near(name, timm.list_models())
        raise UserValueError(f"timm {timm.__version__} has no model {name!r} (MODEL.TIMM.NAME).{hint}")
    given = {"out_indices": tuple(out_indices)} if out_indices else {}
    return timm.create_model(
        name, features_only=True, pretrained=pretrained, in_chans=in_chans, **given, **options
    )


def _parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """Read ["name=value", ...]; a value that is no Python literal is text."""
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UserValueError(f"MODEL.TIMM.OPTIONS holds entries 'name=value', got {text!r}")
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name] = value
    return options


@BACKBONE_REGISTRY.register(overridable=True)
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """Build the timm model that `MODEL.TIMM` names."""
    node = cfg.MODEL.TIMM
    return TimmBackbone(
        node.NAME,
        in_channels=stated(input_shape.channels, "input channels"),
        pretrained=node.PRETRAINED,
        out_indices=node.OUT_INDICES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        freeze_bn=node.FREEZE_BN,
        options=_parse_options(node.OPTIONS),
    )


@BACKBONE_REGISTRY.register(overridable=True)
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build a timm model with a feature pyramid, p6 made by pooling."""
    return build_fpn(cfg, build_timm_backbone(cfg, input_shape), LastLevelMaxPool())


@BACKBONE_REGISTRY.register(overridable=True)
def build_retinanet_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build a timm model with a feature pyramid, p6 and p7 made from its map of stride 32."""
    return build_retinanet_fpn(cfg, build_timm_backbone(cfg, input_shape))
