#!/usr/bin/env python
"""Export a detector to ONNX or a torch.export program, and compare the result with the model.

tools/deploy/export_model.py --config-file configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml
    --format onnx --output model.onnx --sample-image street.jpg MODEL.WEIGHTS model.pth

Faster, Mask and Cascade R-CNN with a pyramid, Panoptic FPN and RetinaNet; docs/export.md says what the
exported program takes and returns.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.data.detection_utils import read_image
from detectron2.data.transforms import AugInput, ResizeShortestEdge
from detectron2.export import export_onnx, export_program, make_network
from detectron2.modeling import build_model
from detectron2.utils.file_io import atomic_write
from detectron2.utils.logger import setup_logger
from detectron2.utils.user_errors import exit_on_user_error

logger = logging.getLogger("detectron2.tools.export_model")

Outputs = dict[str, Tensor]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="YAML config of the model")
    parser.add_argument("--format", choices=["onnx", "torch_export"], default="onnx")
    parser.add_argument("--output", required=True, metavar="FILE", help="the file to write: .onnx or .pt2")
    parser.add_argument(
        "--sample-image", metavar="FILE", help="traced and compared with this picture; else with noise"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys and values")
    return parser.parse_args(argv)


def load_model(cfg: Any) -> nn.Module:
    model = build_model(cfg).eval()
    DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model


def sample_image(path: str | None, cfg: Any) -> Tensor | None:
    """(C, H, W) float32 picture, resized as for testing."""
    if path is None:
        return None
    resize = ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    picture = AugInput(read_image(path, format=cfg.INPUT.FORMAT, value_range=cfg.INPUT.VALUE_RANGE))
    resize(picture)
    return torch.as_tensor(np.ascontiguousarray(picture.image.transpose(2, 0, 1)), dtype=torch.float32)


def export(
    model: nn.Module, args: argparse.Namespace, image: Tensor | None
) -> Callable[[Tensor], Outputs] | None:
    """Write the file; return what runs it, if something here can."""
    output = Path(args.output)
    if args.format == "torch_export":
        program = export_program(model, image)
        with atomic_write(output, mode="wb") as file:
            torch.export.save(program, file)
        return torch.export.load(output).module()
    export_onnx(model, output, image)
    if importlib.util.find_spec("onnxruntime") is None:
        logger.warning("onnxruntime is not installed, so the file is not compared with the model")
        return None
    return onnx_runner(output)


def onnx_runner(path: Path) -> Callable[[Tensor], Outputs]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(image: Tensor) -> Outputs:
        values = session.run(names, {"image": image.cpu().numpy()})
        return {name: torch.as_tensor(value) for name, value in zip(names, values)}

    return run


def compare(model: nn.Module, run: Callable[[Tensor], Outputs], image: Tensor) -> None:
    with torch.no_grad():
        expected = make_network(model)(image)
    for name, value in run(image).items():
        reference = expected[name].cpu()
        if value.shape != reference.shape:
            logger.warning("%s: shape %s, the model has %s", name, tuple(value.shape), tuple(reference.shape))
            continue
        difference = (value.cpu() - reference).abs().max().item() if value.numel() else 0
        logger.info(
            "%s: shape %s, largest difference to the model %.2g", name, tuple(value.shape), difference
        )


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    setup_logger()
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    model = load_model(cfg)
    image = sample_image(args.sample_image, cfg)
    run = export(model, args, image)
    logger.info("Wrote %s", args.output)
    if run is not None:
        compare(model, run, torch.rand(len(cfg.MODEL.PIXEL_MEAN), 320, 480) * 255 if image is None else image)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
