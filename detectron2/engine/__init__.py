"""Training and evaluating: the loop, its hooks, and defaults for a whole run."""

from . import defaults as defaults
from . import hooks as hooks
from ._arguments import default_argument_parser as default_argument_parser
from ._default_trainer import DefaultTrainer as DefaultTrainer
from ._hooks.callback import CallbackHook as CallbackHook
from ._hooks.checkpoints import BestCheckpointer as BestCheckpointer
from ._hooks.checkpoints import PeriodicCheckpointer as PeriodicCheckpointer
from ._hooks.evaluation import EvalHook as EvalHook
from ._hooks.precise_bn import PreciseBN as PreciseBN
from ._hooks.profiling import AutogradProfiler as AutogradProfiler
from ._hooks.profiling import TorchMemoryStats as TorchMemoryStats
from ._hooks.profiling import TorchProfiler as TorchProfiler
from ._hooks.schedule import LRScheduler as LRScheduler
from ._hooks.timing import IterationTimer as IterationTimer
from ._hooks.writing import PeriodicWriter as PeriodicWriter
from ._predictor import DefaultPredictor as DefaultPredictor
from ._setup import create_ddp_model as create_ddp_model
from ._setup import default_setup as default_setup
from ._setup import default_writers as default_writers
from .evaluators import build_evaluator as build_evaluator
from .launch import DEFAULT_TIMEOUT as DEFAULT_TIMEOUT
from .launch import launch as launch
from .train_loop import AMPTrainer as AMPTrainer
from .train_loop import HookBase as HookBase
from .train_loop import SimpleTrainer as SimpleTrainer
from .train_loop import TrainerBase as TrainerBase
