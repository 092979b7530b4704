"""All hooks, under the path that users import them from."""

from detectron2.engine.hooks.callback import CallbackHook as CallbackHook
from detectron2.engine.hooks.checkpoints import BestCheckpointer as BestCheckpointer
from detectron2.engine.hooks.checkpoints import PeriodicCheckpointer as PeriodicCheckpointer
from detectron2.engine.hooks.evaluation import EvalHook as EvalHook
from detectron2.engine.hooks.precise_bn import PreciseBN as PreciseBN
from detectron2.engine.hooks.profiling import AutogradProfiler as AutogradProfiler
from detectron2.engine.hooks.profiling import TorchMemoryStats as TorchMemoryStats
from detectron2.engine.hooks.profiling import TorchProfiler as TorchProfiler
from detectron2.engine.hooks.schedule import LRScheduler as LRScheduler
from detectron2.engine.hooks.timing import IterationTimer as IterationTimer
from detectron2.engine.hooks.writing import PeriodicWriter as PeriodicWriter
from detectron2.engine.train_loop.base import HookBase as HookBase

__all__ = [
    "AutogradProfiler",
    "BestCheckpointer",
    "CallbackHook",
    "EvalHook",
    "HookBase",
    "IterationTimer",
    "LRScheduler",
    "PeriodicCheckpointer",
    "PeriodicWriter",
    "PreciseBN",
    "TorchMemoryStats",
    "TorchProfiler",
]
