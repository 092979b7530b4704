"""Building blocks of a usual run, under the path that users import them from."""

from detectron2.engine.defaults.arguments import default_argument_parser as default_argument_parser
from detectron2.engine.defaults.predictor import DefaultPredictor as DefaultPredictor
from detectron2.engine.defaults.run_notes import describe_classes as describe_classes
from detectron2.engine.defaults.run_notes import describe_run as describe_run
from detectron2.engine.defaults.run_notes import load_metadata as load_metadata
from detectron2.engine.defaults.run_notes import load_run as load_run
from detectron2.engine.defaults.setup import create_ddp_model as create_ddp_model
from detectron2.engine.defaults.setup import default_setup as default_setup
from detectron2.engine.defaults.setup import default_writers as default_writers
from detectron2.engine.defaults.trainer import DefaultTrainer as DefaultTrainer
from detectron2.engine.train_loop.amp_trainer import AMPTrainer as AMPTrainer
from detectron2.engine.train_loop.base import TrainerBase as TrainerBase
from detectron2.engine.train_loop.simple_trainer import SimpleTrainer as SimpleTrainer

__all__ = [
    "AMPTrainer",
    "DefaultPredictor",
    "DefaultTrainer",
    "SimpleTrainer",
    "TrainerBase",
    "create_ddp_model",
    "default_argument_parser",
    "default_setup",
    "default_writers",
    "describe_classes",
    "describe_run",
    "load_metadata",
    "load_run",
]
