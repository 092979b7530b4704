"""Training and evaluating: the loop, its hooks, and defaults for a whole run."""

from . import defaults as defaults
from . import hooks as hooks
from .defaults.arguments import default_argument_parser as default_argument_parser
from .defaults.predictor import DefaultPredictor as DefaultPredictor
from .defaults.setup import create_ddp_model as create_ddp_model
from .defaults.setup import default_setup as default_setup
from .defaults.setup import default_writers as default_writers
from .defaults.trainer import DefaultTrainer as DefaultTrainer
from .evaluators import build_evaluator as build_evaluator
from .hooks.callback import CallbackHook as CallbackHook
from .hooks.checkpoints import BestCheckpointer as BestCheckpointer
from .hooks.checkpoints import PeriodicCheckpointer as PeriodicCheckpointer
from .hooks.evaluation import EvalHook as EvalHook
from .hooks.precise_bn import PreciseBN as PreciseBN
from .hooks.profiling import AutogradProfiler as AutogradProfiler
from .hooks.profiling import TorchMemoryStats as TorchMemoryStats
from .hooks.profiling import TorchProfiler as TorchProfiler
from .hooks.schedule import LRScheduler as LRScheduler
from .hooks.timing import IterationTimer as IterationTimer
from .hooks.writing import PeriodicWriter as PeriodicWriter
from .launch import DEFAULT_TIMEOUT as DEFAULT_TIMEOUT
from .launch import launch as launch
from .train_loop import AMPTrainer as AMPTrainer
from .train_loop import HookBase as HookBase
from .train_loop import SimpleTrainer as SimpleTrainer
from .train_loop import TrainerBase as TrainerBase
