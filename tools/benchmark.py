#!/usr/bin/env python
"""Measure the speed of training, of inference, or of loading data, for a YAML or a Python config.

    tools/benchmark.py --task train --num-gpus 8 --config-file configs/COCO-Detection/fcos_R_50_FPN_1x.py
    tools/benchmark.py --task data_advanced --num-gpus 1 --config-file cfg.yaml DATALOADER.NUM_WORKERS 8

Tasks:

    train          steps on a hundred batches that were loaded before, so that loading takes no time
    eval           the model on a hundred images that were loaded before, in one process
    data           the training loader alone, all processes at once
    data_advanced  its parts one by one: reading, mapping, worker processes, passing between processes
"""

from __future__ import annotations

import argparse
import itertools
import logging
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.collect_env import collect_env_info
from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.data.benchmark import DataLoaderBenchmark
from detectron2.data.build.loaders import train_loader_from_config
from detectron2.engine import (
    AMPTrainer,
    HookBase,
    SimpleTrainer,
    create_ddp_model,
    default_argument_parser,
    hooks,
    launch,
)
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter
from detectron2.utils.logger import setup_logger
from detectron2.utils.user_errors import UserValueError, exit_on_user_error

logger = logging.getLogger("detectron2.tools.benchmark")

_NUM_LOADED = 100  # batches or images that train and eval go over again and again
_NUM_WARMUP = 5
_DEFAULT_ITERATIONS = {"train": 400, "eval": 300, "data": 250, "data_advanced": 100}
_DATA_ROUNDS = 10
# Untrained weights and a usual learning rate soon end in NaN.
_LEARNING_RATE = 0.001


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = default_argument_parser(__doc__)
    parser.add_argument("--task", choices=list(_DEFAULT_ITERATIONS), required=True)
    parser.add_argument(
        "--iterations", type=int, metavar="N", help="steps to time; by default as many as tell"
    )
    args = parser.parse_args(argv)
    if args.eval_only:
        raise UserValueError("--eval-only means nothing here: the speed of inference is --task eval")
    if args.task == "eval" and (args.num_gpus > 1 or args.num_machines > 1):
        raise UserValueError("--task eval measures one process: use --num-gpus 1, or 0 for the CPU")
    if args.iterations is None:
        args.iterations = _DEFAULT_ITERATIONS[args.task]
    if args.iterations < 1:
        raise UserValueError(f"--iterations must be at least 1, got {args.iterations}")
    return args


def load_config(args: argparse.Namespace) -> Any:
    """Read a YAML or a Python config and the settings behind the options."""
    if args.config_file.endswith(".py"):
        return LazyConfig.apply_overrides(LazyConfig.load(args.config_file), args.opts)
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.SOLVER.BASE_LR = _LEARNING_RATE
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    return cfg


def make_model(cfg: Any) -> nn.Module:
    if isinstance(cfg, CfgNode):
        model, weights = build_model(cfg), cfg.MODEL.WEIGHTS
    else:
        model, weights = instantiate(cfg.model).to(cfg.train.device), cfg.train.init_checkpoint
    DetectionCheckpointer(model).load(weights)
    return model


def make_optimizer(cfg: Any, model: nn.Module) -> torch.optim.Optimizer:
    if isinstance(cfg, CfgNode):
        return build_optimizer(cfg, model)
    cfg.optimizer.params.model = model
    cfg.optimizer.lr = _LEARNING_RATE
    optimizer: torch.optim.Optimizer = instantiate(cfg.optimizer)
    return optimizer


def make_train_loader(cfg: Any) -> Any:
    return (
        build_detection_train_loader(cfg) if isinstance(cfg, CfgNode) else instantiate(cfg.dataloader.train)
    )


def make_test_loader(cfg: Any) -> Any:
    if isinstance(cfg, CfgNode):
        return build_detection_test_loader(cfg, cfg.DATASETS.TEST[0], num_workers=0)
    cfg.dataloader.test.num_workers = 0
    return instantiate(cfg.dataloader.test)


def memory_in_use() -> str:
    """Say how much memory this process has used at most; of the whole machine, top knows more."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # from KiB
    return f"this process has used up to {peak:.2f} GiB"


def make_data_benchmark(cfg: Any) -> DataLoaderBenchmark:
    if isinstance(cfg, CfgNode):
        arguments = train_loader_from_config(cfg)
        del arguments["aspect_ratio_grouping"]
        return DataLoaderBenchmark(**arguments)
    loader = cfg.dataloader.train
    loader.pop("aspect_ratio_grouping", None)
    loader._target_ = DataLoaderBenchmark
    benchmark: DataLoaderBenchmark = instantiate(loader)
    return benchmark


def benchmark_data(cfg: Any, args: argparse.Namespace) -> None:
    logger.info("Before loading, %s", memory_in_use())
    benchmark = make_data_benchmark(cfg)
    benchmark.benchmark_distributed(args.iterations, 10)
    # Again and again: memory must not grow.
    for i in range(_DATA_ROUNDS):
        logger.info("Round %d, %s", i, memory_in_use())
        benchmark.benchmark_distributed(args.iterations, 1)


def benchmark_data_advanced(cfg: Any, args: argparse.Namespace) -> None:
    benchmark = make_data_benchmark(cfg)
    if comm.is_main_process():
        benchmark.benchmark_dataset(args.iterations)
        benchmark.benchmark_mapper(args.iterations)
        benchmark.benchmark_workers(args.iterations)
        benchmark.benchmark_IPC(args.iterations)
    comm.synchronize()
    benchmark.benchmark_distributed(args.iterations)


def benchmark_train(cfg: Any, args: argparse.Namespace) -> None:
    model = make_model(cfg)
    logger.info("Model:\n%s", model)
    model = create_ddp_model(model)
    optimizer = make_optimizer(cfg, model)
    is_yaml = isinstance(cfg, CfgNode)
    batches = list(itertools.islice(make_train_loader(cfg), min(_NUM_LOADED, args.iterations)))
    with_amp = cfg.SOLVER.AMP.ENABLED if is_yaml else cfg.train.amp.enabled
    trainer = (AMPTrainer if with_amp else SimpleTrainer)(model, itertools.cycle(batches), optimizer)
    last, folder = args.iterations - 1, cfg.OUTPUT_DIR if is_yaml else cfg.train.output_dir
    timing: list[HookBase | None] = [
        hooks.IterationTimer(),
        hooks.TorchProfiler(lambda trainer: trainer.iter == last, folder),
    ]
    if comm.is_main_process():
        timing.insert(1, hooks.PeriodicWriter([CommonMetricPrinter(args.iterations)]))
    trainer.register_hooks(timing)
    trainer.train(0, args.iterations)


@torch.no_grad()
def benchmark_eval(cfg: Any, args: argparse.Namespace) -> None:
    model = make_model(cfg).eval()
    logger.info("Model:\n%s", model)
    batches = list(itertools.islice(make_test_loader(cfg), _NUM_LOADED))
    if not batches:
        raise UserValueError("There is no image to run on: the test set is empty")
    endless = itertools.cycle(batches)
    for batch in itertools.islice(endless, _NUM_WARMUP):
        model(batch)
    seconds = _time(model, itertools.islice(endless, args.iterations))
    logger.info(
        "%d iterations in %.2f seconds: %.1f ms each",
        args.iterations,
        seconds,
        seconds / args.iterations * 1e3,
    )


def _time(model: nn.Module, batches: Iterator[Any]) -> float:
    """Seconds that the model takes, until the GPU is done."""
    _wait_for_gpu()
    start = time.perf_counter()
    for batch in batches:
        model(batch)
    _wait_for_gpu()
    return time.perf_counter() - start


def _wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


_TASKS: dict[str, Callable[[Any, argparse.Namespace], None]] = {
    "train": benchmark_train,
    "eval": benchmark_eval,
    "data": benchmark_data,
    "data_advanced": benchmark_data_advanced,
}


def run(args: argparse.Namespace) -> None:
    """Run in every process."""
    with exit_on_user_error():
        setup_logger(distributed_rank=comm.get_rank())
        _TASKS[args.task](load_config(args), args)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    setup_logger()
    load_config(args)  # a typing error is told once, and not by every process
    logger.info("Environment:\n%s", collect_env_info())
    launch(run, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url, args=(args,))


if __name__ == "__main__":
    with exit_on_user_error():
        main()
