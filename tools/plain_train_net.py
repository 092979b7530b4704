#!/usr/bin/env python
"""Train and evaluate the model of a YAML config by a plain loop, for those who want to write their own.

    tools/plain_train_net.py --config-file configs/COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml --num-gpus 8

It uses the package as a library: models, data, optimizers and evaluators, but neither trainers nor hooks.
What `train_net.py` has beyond it: mixed precision, precise batch norm, test-time augmentation, scaling to
another number of processes.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from detectron2.checkpoint import DetectionCheckpointer, PeriodicCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.engine import (
    build_evaluator,
    create_ddp_model,
    default_argument_parser,
    default_setup,
    default_writers,
    launch,
)
from detectron2.engine.defaults import describe_run
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from detectron2.utils.logger import DETAILS
from detectron2.utils.user_errors import UserFloatingPointError, exit_on_user_error

logger = logging.getLogger("detectron2.tools.plain_train_net")

_LOG_PERIOD = 20


def load_config(args: argparse.Namespace) -> CfgNode:
    """Read the config file and the KEY VALUE pairs."""
    cfg = get_cfg()
    if args.config_file:
        cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    return cfg


def do_test(cfg: CfgNode, model: nn.Module) -> Mapping[str, Any]:
    """Evaluate on all of `DATASETS.TEST`; with one of them, the results are its own."""
    results = {}
    for name in cfg.DATASETS.TEST:
        folder = os.path.join(cfg.OUTPUT_DIR, "inference", name)
        evaluator = build_evaluator(cfg, name, folder)
        results[name] = inference_on_dataset(model, build_detection_test_loader(cfg, name), evaluator)
        if comm.is_main_process():
            logger.info("Results of %s in CSV format:", name)
            print_csv_format(results[name])
    return next(iter(results.values())) if len(results) == 1 else results


def do_train(cfg: CfgNode, model: nn.Module, resume: bool) -> None:
    """Train up to `SOLVER.MAX_ITER`."""
    solver, eval_period = cfg.SOLVER, cfg.TEST.EVAL_PERIOD
    model.train()
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    checkpointer = DetectionCheckpointer(model, cfg.OUTPUT_DIR, optimizer=optimizer, scheduler=scheduler)
    loaded = checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    start = loaded.get("iteration", -1) + 1 if resume else 0
    saver = PeriodicCheckpointer(
        checkpointer, solver.CHECKPOINT_PERIOD, solver.MAX_ITER, max_to_keep=solver.CHECKPOINT_KEEP or None
    )
    saver.adopt_earlier(start)
    writers = default_writers(cfg.OUTPUT_DIR, solver.MAX_ITER) if comm.is_main_process() else []

    logger.info("Training from iteration %d to %d", start, solver.MAX_ITER)
    batches = iter(build_detection_train_loader(cfg))
    checkpointer.notes = describe_run(cfg)  # after the data was loaded, which names the classes
    with EventStorage(start) as storage:
        for iteration, batch in zip(
            itertools.count(start), itertools.islice(batches, solver.MAX_ITER - start)
        ):
            storage.iter = iteration
            losses = train_step(model, optimizer, batch)
            if comm.is_main_process():
                for name, value in {"total_loss": sum(losses.values()), **losses}.items():
                    storage.put_scalar(name, value)
            storage.put_scalar("lr", optimizer.param_groups[0]["lr"], smoothing_hint=False)
            scheduler.step()

            # All processes take part in an evaluation; the last one follows the loop.
            done = iteration + 1
            if eval_period > 0 and done % eval_period == 0 and done < solver.MAX_ITER:
                do_test(cfg, model)
                comm.synchronize()
            if done % _LOG_PERIOD == 0 or done == solver.MAX_ITER:
                for writer in writers:
                    writer.write()
            if comm.is_main_process():
                saver.step(iteration)
    for writer in writers:
        writer.close()


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: list[Any]) -> dict[str, float]:
    """Update the weights once; return the losses, averaged over all processes.

    Raises:
        FloatingPointError: a loss is not finite, in any process. All raise it, so that none waits for
            another.
    """
    losses: dict[str, Tensor] = model(batch)
    per_process = comm.all_gather({name: loss.item() for name, loss in losses.items()})
    for rank, values in enumerate(per_process):
        if not math.isfinite(sum(values.values())):
            raise UserFloatingPointError(
                f"the loss is not finite in process {rank}: {values}. Lower SOLVER.BASE_LR, or look at the "
                "data of this batch."
            )
    optimizer.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    return {name: sum(values[name] for values in per_process) / len(per_process) for name in losses}


def main(args: argparse.Namespace) -> Mapping[str, Any]:
    """Run in every process of the run."""
    with exit_on_user_error():
        cfg = load_config(args)
        default_setup(cfg, args)
        model = build_model(cfg)
        logger.info("Model:\n%s", model, extra=DETAILS)
        if args.eval_only:
            DetectionCheckpointer(model, cfg.OUTPUT_DIR).resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
            return do_test(cfg, model)
        # Frozen statistics do not change, so there is nothing to broadcast.
        model = create_ddp_model(model, broadcast_buffers=False)
        do_train(cfg, model, args.resume)
        return do_test(cfg, model)


if __name__ == "__main__":
    arguments = default_argument_parser().parse_args()
    with exit_on_user_error():
        load_config(arguments)  # a typing error is told once, and not by every process
        launch(
            main,
            arguments.num_gpus,
            num_machines=arguments.num_machines,
            machine_rank=arguments.machine_rank,
            dist_url=arguments.dist_url,
            args=(arguments,),
        )
