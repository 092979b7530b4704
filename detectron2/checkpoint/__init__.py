"""Saving and loading models; importing this package makes `catalog://` addresses known."""

from fvcore.common.checkpoint import Checkpointer as Checkpointer

from . import compat_names as compat_names
from .catalog import ModelCatalog as ModelCatalog
from .catalog import ModelCatalogHandler as ModelCatalogHandler
from .detection_checkpoint import DetectionCheckpointer as DetectionCheckpointer
from .periodic import PeriodicCheckpointer as PeriodicCheckpointer
from .published_weights import PublishedWeights as PublishedWeights
from .published_weights import register_published_weights as register_published_weights
from .weight_translation import WEIGHT_TRANSLATOR_REGISTRY as WEIGHT_TRANSLATOR_REGISTRY
from .weight_translation import BackboneLayout as BackboneLayout
from .weight_translation import ConvertedBackbone as ConvertedBackbone
from .weight_translation import WeightTranslator as WeightTranslator
from .weight_translation import require_whole as require_whole
