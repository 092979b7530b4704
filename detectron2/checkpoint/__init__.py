"""Saving and loading models; importing this package makes `catalog://` addresses known."""

from fvcore.common.checkpoint import Checkpointer as Checkpointer
from fvcore.common.checkpoint import PeriodicCheckpointer as PeriodicCheckpointer

from .catalog import ModelCatalog as ModelCatalog
from .catalog import ModelCatalogHandler as ModelCatalogHandler
from .detection_checkpoint import DetectionCheckpointer as DetectionCheckpointer
