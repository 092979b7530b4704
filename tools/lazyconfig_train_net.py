#!/usr/bin/env python
"""Train and evaluate the model of a Python config.

    tools/lazyconfig_train_net.py --config-file configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py
    --num-gpus 8 train.output_dir=./output dataloader.train.total_batch_size=32

The config defines `model`, `dataloader` (with `train`, and for evaluation `test` and `evaluator`),
`optimizer`, `lr_multiplier` and `train`; see configs/common/README.md. Settings behind the options replace
those of the file: `path.to.key=value`, `+key=value` for a new one, `~key` to delete one. For a training
procedure that this one does not cover, copy the file and change it: it is meant for that.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.class_names import expect_classes
from detectron2.config import LazyConfig, instantiate
from detectron2.data.class_names import find_class_names
from detectron2.engine import (
    AMPTrainer,
    HookBase,
    SimpleTrainer,
    create_ddp_model,
    default_argument_parser,
    default_setup,
    default_writers,
    hooks,
    launch,
)
from detectron2.engine.defaults import describe_classes
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.logger import DETAILS
from detectron2.utils.user_errors import UserValueError, exit_on_user_error

logger = logging.getLogger("detectron2.tools.lazyconfig_train_net")

_SECTIONS = ("model", "dataloader", "optimizer", "lr_multiplier", "train")


def load_config(args: argparse.Namespace) -> DictConfig:
    """Read the config file and the overrides, and refuse what cannot work before anything starts."""
    if not args.config_file:
        raise UserValueError("--config-file is needed: the path of a Python config")
    cfg = LazyConfig.apply_overrides(LazyConfig.load(args.config_file), args.opts)
    needed = ("model", "dataloader", "train") if args.eval_only else _SECTIONS
    missing = [name for name in needed if name not in cfg]
    if missing:
        raise UserValueError(
            f"{args.config_file} must define {', '.join(needed)}; it lacks {', '.join(missing)}"
        )
    if args.eval_only and not args.resume and not cfg.train.init_checkpoint:
        raise UserValueError(
            "--eval-only needs weights to evaluate: add train.init_checkpoint=path/to/model_final.pth to the "
            "end of the command, or --resume for the last checkpoint in train.output_dir."
        )
    return cfg


def find_training_sets(cfg: DictConfig) -> list[str]:
    """Names of the data sets that the config trains on; none where it reads its data in another way."""
    names = OmegaConf.select(cfg, "dataloader.train.dataset.names") or ()
    return [names] if isinstance(names, str) else list(names)


def make_model(cfg: DictConfig) -> nn.Module:
    """Make the model on its device, with random weights, and say which classes it is for."""
    model: nn.Module = instantiate(cfg.model).to(cfg.train.device)
    logger.info("Model:\n%s", model, extra=DETAILS)
    names = find_training_sets(cfg)
    expect_classes(
        model, lambda: find_class_names(names), is_checked=cfg.train.get("check_class_names", True)
    )
    return model


def do_test(cfg: DictConfig, model: nn.Module) -> Mapping[str, Any]:
    """Evaluate a model by `dataloader.evaluator`; without one there are no results."""
    if "evaluator" not in cfg.dataloader:
        return {}
    evaluator = instantiate(cfg.dataloader.evaluator)
    results = inference_on_dataset(
        model,
        instantiate(cfg.dataloader.test),
        list(evaluator) if isinstance(evaluator, ListConfig) else evaluator,
    )
    if comm.is_main_process():
        print_csv_format(results)
    return results


def build_hooks(
    cfg: DictConfig, model: nn.Module, checkpointer: DetectionCheckpointer
) -> list[HookBase | None]:
    """Make the hooks of a run; they are called in this order, which has the reasons of `DefaultTrainer`'s."""
    options = cfg.train
    is_main = comm.is_main_process()
    return [
        hooks.IterationTimer(),
        hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
        hooks.PeriodicCheckpointer(checkpointer, **options.checkpointer) if is_main else None,
        hooks.EvalHook(options.eval_period, lambda: do_test(cfg, model)),
        hooks.PeriodicWriter(default_writers(options.output_dir, options.max_iter), options.log_period)
        if is_main
        else None,
    ]


def do_train(cfg: DictConfig, model: nn.Module, resume: bool) -> None:
    """Train, evaluating on the way and at the end as the config says."""
    options = cfg.train
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    data_loader = instantiate(cfg.dataloader.train)
    model = create_ddp_model(model, **options.ddp)
    trainer_class = AMPTrainer if options.amp.enabled else SimpleTrainer
    trainer = trainer_class(model, data_loader, optimizer)
    checkpointer = DetectionCheckpointer(model, options.output_dir, trainer=trainer)
    checkpointer.notes = describe_classes(find_training_sets(cfg))
    trainer.register_hooks(build_hooks(cfg, model, checkpointer))

    continues = resume and checkpointer.has_checkpoint()
    checkpointer.resume_or_load(options.init_checkpoint, resume=resume)
    # The stored iteration was finished.
    trainer.train(trainer.iter + 1 if continues else 0, options.max_iter)


def main(args: argparse.Namespace) -> Mapping[str, Any] | None:
    """Run in every process of the run."""
    with exit_on_user_error():
        cfg = load_config(args)
        default_setup(cfg, args)
        model = make_model(cfg)
        if not args.eval_only:
            do_train(cfg, model, args.resume)
            return None
        checkpointer = DetectionCheckpointer(model, cfg.train.output_dir)
        checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=args.resume)
        return do_test(cfg, create_ddp_model(model))


if __name__ == "__main__":
    parser = default_argument_parser(__doc__)
    arguments = parser.parse_args()
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
