#!/usr/bin/env python
"""Say what a model costs: FLOPs (multiply-adds) and activations of inference, parameters, structure.

tools/analyze_model.py --tasks flop parameter --config-file configs/COCO-Detection/retinanet_R_50_FPN_1x.yaml
    --num-inputs 100 MODEL.WEIGHTS model.pth

Two-stage detectors do more work where they find more, so counts are averages over images of the test set,
with trained weights. With --image-size one image of noise stands for these: good enough for the backbone.
"""

from __future__ import annotations

import argparse
import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import tqdm
from torch import nn

from detectron2.analysis import activation_count_operators, flop_count_operators, parameter_count_table
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.data import build_detection_test_loader
from detectron2.modeling import build_model
from detectron2.utils.logger import setup_logger
from detectron2.utils.user_errors import UserValueError, exit_on_user_error

logger = logging.getLogger("detectron2.tools.analyze_model")

Count = Callable[[nn.Module, list[Any]], Mapping[str, float]]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="YAML config, or Python config")
    parser.add_argument(
        "--tasks", choices=["flop", "activation", "parameter", "structure"], nargs="+", required=True
    )
    parser.add_argument("-n", "--num-inputs", type=int, default=100, help="images of the test set to average")
    parser.add_argument("--image-size", type=int, nargs=2, metavar=("H", "W"), help="count on noise instead")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys and values")
    return parser.parse_args(argv)


def load_config(args: argparse.Namespace) -> Any:
    if args.config_file.endswith(".py"):
        return LazyConfig.apply_overrides(LazyConfig.load(args.config_file), args.opts)
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    return cfg


def load_model(cfg: Any) -> nn.Module:
    if isinstance(cfg, CfgNode):
        model, weights = build_model(cfg), cfg.MODEL.WEIGHTS
    else:
        model, weights = instantiate(cfg.model).to(cfg.train.device), cfg.train.init_checkpoint
    DetectionCheckpointer(model).load(weights)
    return model.eval()


def batches(cfg: Any, model: Any, args: argparse.Namespace) -> Iterable[list[Any]]:
    """The batches to count on, of one image each."""
    if args.image_size:
        noise = torch.rand(len(model.pixel_mean), *args.image_size) * 255
        return [[{"image": noise}]]
    if isinstance(cfg, CfgNode):
        loader = build_detection_test_loader(cfg, cfg.DATASETS.TEST[0])
    else:
        loader = instantiate(cfg.dataloader.test)
    return tqdm.tqdm(itertools.islice(loader, args.num_inputs), total=args.num_inputs)


def report_counts(count: Count, unit: str, model: nn.Module, inputs: Iterable[list[Any]]) -> None:
    per_operator: dict[str, list[float]] = defaultdict(list)
    totals = []
    for batch in inputs:
        counts = count(model, batch)
        for name, value in counts.items():
            per_operator[name].append(value)
        totals.append(sum(counts.values()))
    if not totals:
        raise UserValueError("There is no image to count on: the test set is empty, or --num-inputs is 0")
    means = {name: round(sum(values) / len(totals), 3) for name, values in per_operator.items()}
    logger.info("%s by operator: %s", unit, means)
    logger.info(
        "%s in total: %.3f, +- %.3f over %d images", unit, np.mean(totals), np.std(totals), len(totals)
    )


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    setup_logger()
    cfg = load_config(args)
    model = load_model(cfg)
    for task in args.tasks:
        if task == "flop":
            report_counts(flop_count_operators, "GFLOPs", model, batches(cfg, model, args))
        elif task == "activation":
            report_counts(activation_count_operators, "Million activations", model, batches(cfg, model, args))
        elif task == "parameter":
            logger.info("Parameters:\n%s", parameter_count_table(model, max_depth=5))
        else:
            logger.info("Structure:\n%s", model)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
