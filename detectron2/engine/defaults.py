"""Building blocks of a usual run, under the path that users import them from."""

from detectron2.engine._arguments import default_argument_parser as default_argument_parser
from detectron2.engine._default_trainer import DefaultTrainer as DefaultTrainer
from detectron2.engine._predictor import DefaultPredictor as DefaultPredictor
from detectron2.engine._run_notes import describe_run as describe_run
from detectron2.engine._run_notes import load_run as load_run
from detectron2.engine._setup import create_ddp_model as create_ddp_model
from detectron2.engine._setup import default_setup as default_setup
from detectron2.engine._setup import default_writers as default_writers

__all__ = [
    "DefaultPredictor",
    "DefaultTrainer",
    "create_ddp_model",
    "default_argument_parser",
    "default_setup",
    "default_writers",
    "describe_run",
    "load_run",
]
