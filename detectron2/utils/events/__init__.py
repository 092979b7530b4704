"""Numbers, pictures and histograms of a run: one storage that collects them, writers that publish them.

Code anywhere below a training loop calls `get_event_storage().put_scalar(...)`; the loop owns the storage and
decides when the writers look at it. Nothing here knows what a model or a trainer is.
"""

from detectron2.utils.events.storage import EventStorage as EventStorage
from detectron2.utils.events.storage import get_event_storage as get_event_storage
from detectron2.utils.events.storage import has_event_storage as has_event_storage
from detectron2.utils.events.writers import CommonMetricPrinter as CommonMetricPrinter
from detectron2.utils.events.writers import EventWriter as EventWriter
from detectron2.utils.events.writers import JSONWriter as JSONWriter
from detectron2.utils.events.writers import TensorboardXWriter as TensorboardXWriter

__all__ = [
    "CommonMetricPrinter",
    "EventStorage",
    "EventWriter",
    "JSONWriter",
    "TensorboardXWriter",
    "get_event_storage",
    "has_event_storage",
]
