"""What every run does before its first iteration: logs, seeds, saved config, writers, data parallelism."""

from __future__ import annotations

import argparse
import logging
import os
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detectron2.collect_env import collect_env_info
from detectron2.config.config.node import CfgNode
from detectron2.engine.defaults.output_folder import (
    choose_output_folder,
    make_writable_folder,
    set_output_folder,
    tell_of_other_folder,
)
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng, setup_environment
from detectron2.utils.events.writers import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)
from detectron2.utils.file_io import PathManager, atomic_write
from detectron2.utils.logger import DETAILS, setup_logger

__all__ = ["create_ddp_model", "default_setup", "default_writers"]

logger = logging.getLogger(__name__)


def default_setup(cfg: Any, args: argparse.Namespace) -> None:
    """Prepare this process for a run: logging, the output folder with the config in it, seeds, backends.

    Before all that, the set-up that DETECTRON2_ENV_MODULE names is run; `utils.env.setup_environment` tells
    what it is.

    A training that does not resume, in a folder where another process has trained before, goes to the next
    free one: `output_2` for `output`. The config then says so, a frozen one too.

    Args:
        cfg: a `CfgNode`, or a lazy config that keeps the same settings under `train`.
        args: parsed command line; it is logged. Where it has `resume`, a folder that is in use is left alone
            unless that is set or `eval_only` is.

    Raises:
        OSError: the output folder cannot be made or written to.
    """
    setup_environment()
    eval_only = bool(getattr(args, "eval_only", False))
    asked = output_dir = find_setting(cfg, "OUTPUT_DIR", "train.output_dir", default="")
    if output_dir:
        # Without the flag the script decides later whether it resumes.
        starts_anew = not eval_only and not getattr(args, "resume", True)
        output_dir = choose_output_folder(asked, starts_anew=starts_anew)
        if output_dir != asked:
            set_output_folder(cfg, output_dir)
        if comm.is_main_process():
            make_writable_folder(output_dir)
    rank = comm.get_rank()
    setup_logger(output_dir or None, distributed_rank=rank, name="fvcore")
    setup_logger(output_dir or None, distributed_rank=rank)

    tell_of_other_folder(asked, output_dir)
    logger.info("Process %d of %d", rank, comm.get_world_size())
    logger.info("Environment:\n%s", collect_env_info(), extra=DETAILS)
    logger.info("Command line arguments: %s", args)
    if output_dir and comm.is_main_process():
        _save_config(cfg, os.path.join(output_dir, "config.yaml"), eval_only=eval_only)
    _set_seeds_and_backends(cfg, eval_only=eval_only)


def find_setting(cfg: Any, *names: str, default: Any) -> Any:
    """Return the first of several dotted keys that the config has."""
    for name in names:
        node = cfg
        for part in name.split("."):
            node = node.get(part) if hasattr(node, "get") else None
            if node is None:
                break
        else:
            return node
    return default


def _save_config(cfg: Any, path: str, *, eval_only: bool) -> None:
    if eval_only and PathManager.isfile(path):
        text = cfg.dump() if isinstance(cfg, CfgNode) else str(cfg)
        logger.info(
            "Evaluating with this config; %s stays the one of the training:\n%s", path, text, extra=DETAILS
        )
        return
    if isinstance(cfg, CfgNode):
        with atomic_write(path, "w") as file:
            file.write(cfg.dump())
    else:
        from detectron2.config.lazy import LazyConfig  # needs omegaconf, which runs from YAML do without

        LazyConfig.save(cfg, path)
    with PathManager.open(path) as file:
        logger.info("Running with this config, saved to %s:\n%s", path, file.read(), extra=DETAILS)


def _set_seeds_and_backends(cfg: Any, eval_only: bool) -> None:
    seed = find_setting(cfg, "SEED", "train.seed", default=-1)
    # Ranks differ on purpose: equal ones would draw the same augmentations for different images.
    seed_all_rng(None if seed < 0 else seed + comm.get_rank())
    # Evaluation meets an image size too seldom for benchmarking to pay.
    if not eval_only:
        torch.backends.cudnn.benchmark = find_setting(
            cfg, "CUDNN_BENCHMARK", "train.cudnn_benchmark", default=False
        )
    precision = find_setting(cfg, "FLOAT32_PRECISION", "train.float32_precision", default="")
    if precision:
        torch.set_float32_matmul_precision(precision)


def default_writers(output_dir: str, max_iter: int | None = None) -> list[EventWriter]:
    """Make the writers of a usual run: the console, metrics.json and TensorBoard.

    Args:
        output_dir: folder of their files.
        max_iter: the end of the run, for the estimate of the time left.
    """
    PathManager.mkdirs(output_dir)
    return [
        CommonMetricPrinter(max_iter),
        JSONWriter(os.path.join(output_dir, "metrics.json")),
        TensorboardXWriter(output_dir),
    ]


def create_ddp_model(model: nn.Module, *, fp16_compression: bool = False, **kwargs: Any) -> nn.Module:
    """Wrap a model for data parallel training, or return it as it is in a run of one process.

    Args:
        model: lies on the device that this process uses.
        fp16_compression: exchange gradients in float16, which halves the traffic.
        kwargs: further arguments of `DistributedDataParallel`.
    """
    if comm.get_world_size() == 1:
        return model
    device = next(model.parameters()).device
    if device.type == "cuda" and "device_ids" not in kwargs:
        kwargs["device_ids"] = [comm.get_local_rank()]
    ddp = DistributedDataParallel(model, **kwargs)
    if fp16_compression:
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook

        ddp.register_comm_hook(state=None, hook=fp16_compress_hook)
    return ddp
