#!/usr/bin/env python
"""Does an installed package work? Build a tiny panoptic model from its configs, and run it on a picture.

    python -I tools/smoke_test.py

`-I` keeps a checkout in the current folder out of the way. It needs no data, no weights and no compiler.
"""

from __future__ import annotations

import argparse
import shutil

import torch

import detectron2
from detectron2 import model_zoo
from detectron2.config import CfgNode
from detectron2.data.datasets.shapes import render_scene
from detectron2.engine import DefaultPredictor
from detectron2.layers import extension
from detectron2.utils.logger import setup_logger


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--compiled", choices=["yes", "no"], help="fail if operators are not as told here")
    args = parser.parse_args()
    setup_logger()
    check_operators(args.compiled)
    torch.manual_seed(0)
    image = render_scene(seed=0, index=0).image  # (H, W, 3) uint8, RGB
    outputs = DefaultPredictor(tiny_config())(image[:, :, ::-1])
    segments, _ = outputs["panoptic_seg"]
    assert segments.shape == image.shape[:2], f"segments of {tuple(segments.shape)} for {image.shape[:2]}"
    assert torch.isfinite(outputs["sem_seg"]).all(), "the semantic logits are not finite"
    print(
        f"detectron2 {detectron2.__version__} from {detectron2.__path__[0]}, torch {torch.__version__},"
        f" operators: {extension.missing_reason() or 'compiled'};"
        f" {len(outputs['instances'])} instances in {image.shape[1]} x {image.shape[0]} pixels: it works"
    )


def check_operators(expected: str | None) -> None:
    reason = extension.missing_reason()
    if expected == "yes":
        assert not reason, reason
    if expected == "no":
        assert reason, "this wheel was to be without compiled operators"
        assert not any(map(shutil.which, ("gcc", "g++", "c++", "cc"))), "a compiler is here"


def tiny_config() -> CfgNode:
    cfg = model_zoo.get_config("Quickstart/panoptic_fpn_R2_shapes.yaml")
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.DEVICE = "cpu"
    return cfg


if __name__ == "__main__":
    main()
