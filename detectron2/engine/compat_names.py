"""Names that other people's code takes from modules of this package, and that nothing of ours uses."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from detectron2.checkpoint.detection_checkpoint import DetectionCheckpointer
from detectron2.collect_env import collect_env_info
from detectron2.config.config.node import CfgNode
from detectron2.data import transforms as T
from detectron2.data.build.loaders import build_detection_test_loader, build_detection_train_loader
from detectron2.data.catalog import MetadataCatalog
from detectron2.evaluation.evaluator import DatasetEvaluator, inference_on_dataset
from detectron2.evaluation.testing import flatten_results_dict, print_csv_format, verify_results
from detectron2.modeling.meta_arch.build import build_model
from detectron2.solver.build import build_lr_scheduler, build_optimizer
from detectron2.solver.lr_scheduler import LRMultiplier
from detectron2.utils import comm
from detectron2.utils.compat_names import log_api_usage
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events.storage import EventStorage, get_event_storage
from detectron2.utils.events.writers import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter
from detectron2.utils.logger import setup_logger
from detectron2.utils.offer import offer

from . import hooks
from .defaults.setup import find_setting


def _highlight(code: str, filename: str) -> str:
    """Colour source text for a terminal, where pygments is installed.

    Args:
        code: Python, or YAML.
        filename: its ending tells which.
    """
    try:
        pygments = importlib.import_module("pygments")
        lexers, formatters = (
            importlib.import_module(f"pygments.{part}") for part in ("lexers", "formatters")
        )
    except ModuleNotFoundError:
        return code
    lexer = lexers.PythonLexer() if filename.endswith(".py") else lexers.YamlLexer()
    colored: str = pygments.highlight(code, lexer, formatters.Terminal256Formatter(style="monokai"))
    return colored


def _try_get_key(cfg: Any, *keys: str, default: Any = None) -> Any:
    """The value of the first dotted key that a config of either kind has, or the default."""
    return find_setting(cfg, *keys, default=default)


def _set_float32_precision(precision: str = "high") -> None:
    """Say how exact products of float32 matrices are: "highest", "high" or "medium"; "" changes nothing."""
    if precision:
        torch.set_float32_matmul_precision(precision)


offer(
    "detectron2.engine.defaults",
    CfgNode,
    CommonMetricPrinter,
    DatasetEvaluator,
    DetectionCheckpointer,
    JSONWriter,
    TensorboardXWriter,
    _highlight,
    _set_float32_precision,
    _try_get_key,
    build_detection_test_loader,
    build_detection_train_loader,
    build_lr_scheduler,
    build_model,
    build_optimizer,
    collect_env_info,
    comm,
    hooks,
    inference_on_dataset,
    print_csv_format,
    seed_all_rng,
    setup_logger,
    verify_results,
    MetadataCatalog=MetadataCatalog,
    T=T,
    lazily={"LazyConfig": "detectron2.config.lazy:LazyConfig"},
)
offer("detectron2.engine.hooks", EventStorage, EventWriter, LRMultiplier, comm, flatten_results_dict)
offer("detectron2.engine.train_loop", EventStorage, comm, get_event_storage, _log_api_usage=log_api_usage)
