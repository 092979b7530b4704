#!/usr/bin/env python
"""Train and evaluate the model of a YAML config.

    tools/train_net.py --config-file configs/COCO-PanopticSegmentation/panoptic_fpn_R2_101_3x.yaml
    --num-gpus 8

`--help` shows more. The folder of the data sets is given by the environment variable DETECTRON2_DATASETS.
For a training procedure that this one does not cover, copy the file and change it: it is meant for that.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from detectron2 import modeling
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import (
    DefaultTrainer,
    HookBase,
    build_evaluator,
    default_argument_parser,
    default_setup,
    launch,
)
from detectron2.engine.hooks import EvalHook
from detectron2.evaluation import DatasetEvaluator, verify_results
from detectron2.utils import comm
from detectron2.utils.user_errors import UserValueError, exit_on_user_error

logger = logging.getLogger("detectron2.tools.train_net")


class Trainer(DefaultTrainer):
    """`DefaultTrainer`, and evaluation with test-time augmentation."""

    def build_hooks(self) -> list[HookBase | None]:
        hooks = super().build_hooks()
        if self.cfg.TEST.AUG.ENABLED:
            # Before the writers, which are last and publish its results.
            hooks.insert(-1, EvalHook(0, lambda: self.test_with_TTA(self.cfg, self.model)))
        return hooks

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None
    ) -> DatasetEvaluator:
        return build_evaluator(cfg, dataset_name, output_folder)

    @classmethod
    def test_with_TTA(cls, cfg: CfgNode, model: nn.Module) -> Mapping[str, Any]:
        """Evaluate on flipped and resized copies of each image; results are named `<task>_TTA`."""
        logger.info("Evaluating with test-time augmentation")
        augmented = modeling.find_tta_class(cfg)(cfg, model)
        evaluators = [
            cls.build_evaluator(cfg, name, f"{cfg.OUTPUT_DIR}/inference_TTA") for name in cfg.DATASETS.TEST
        ]
        results = cls.test(cfg, augmented, evaluators)
        return {f"{name}_TTA": value for name, value in results.items()}


def setup(args: argparse.Namespace) -> CfgNode:
    """Make the config from the command line, and prepare logs, seeds and the output folder."""
    cfg = load_config(args)
    default_setup(cfg, args)
    return cfg


def load_config(args: argparse.Namespace) -> CfgNode:
    """Read the config file and the KEY VALUE pairs, and refuse what cannot work before anything starts."""
    cfg = get_cfg()
    if args.config_file:
        cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    if cfg.TEST.AUG.ENABLED:
        modeling.find_tta_class(cfg)
    if args.eval_only and not args.resume and not cfg.MODEL.WEIGHTS:
        raise UserValueError(
            "--eval-only needs weights to evaluate: add MODEL.WEIGHTS path/to/model_final.pth to the end of "
            "the command, or --resume for the last checkpoint in OUTPUT_DIR."
        )
    cfg.freeze()
    return cfg


def evaluate(cfg: CfgNode, resume: bool) -> Mapping[str, Any]:
    """Evaluate `MODEL.WEIGHTS`, or with `resume` the last checkpoint in the output folder."""
    model = Trainer.build_model(cfg)
    DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR).resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    results = dict(Trainer.test(cfg, model))
    if cfg.TEST.AUG.ENABLED:
        results.update(Trainer.test_with_TTA(cfg, model))
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


def train(cfg: CfgNode, resume: bool) -> Mapping[str, Any]:
    """Train, evaluating on the way and at the end as the config says."""
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    return trainer.train()


def main(args: argparse.Namespace) -> Mapping[str, Any]:
    """Run in every process of the run."""
    with exit_on_user_error():
        cfg = setup(args)
        return evaluate(cfg, args.resume) if args.eval_only else train(cfg, args.resume)


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
