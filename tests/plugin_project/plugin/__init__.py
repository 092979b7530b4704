"""Importing the package registers its parts."""

from .backbone import StripedBackbone, build_striped_backbone
from .config import add_plugin_config
from .evaluator import CountEvaluator
from .mapper import BrightnessMapper
from .meta_arch import WeightedRCNN
from .roi_heads import ScaledBoxHead, TaggedROIHeads
from .weights import StripedLayout, StripedWeights

__all__ = [
    "BrightnessMapper",
    "CountEvaluator",
    "ScaledBoxHead",
    "StripedBackbone",
    "StripedLayout",
    "StripedWeights",
    "TaggedROIHeads",
    "WeightedRCNN",
    "add_plugin_config",
    "build_striped_backbone",
]
