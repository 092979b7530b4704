#!/usr/bin/env python
"""Export a model to TorchScript, ONNX or a torch.export program, and compare the result with the model.

tools/deploy/export_model.py --config-file configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml
    --format torchscript --output exported --sample-image street.jpg --run-eval MODEL.WEIGHTS model.pth

torchscript takes every model that can be traced, and images of any size then; its results are those of the
model. onnx and torch_export take Faster, Mask and Cascade R-CNN with a pyramid, Panoptic FPN and RetinaNet.
docs/export.md says what the exported programs take and return.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.data import build_detection_test_loader
from detectron2.data.detection_utils import read_image
from detectron2.data.transforms import AugInput, ResizeShortestEdge
from detectron2.engine import build_evaluator
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.export import (
    TracingAdapter,
    dump_torchscript_IR,
    export_onnx,
    export_program,
    flatten_to_tuple,
    make_network,
    to_instances,
)
from detectron2.modeling import GeneralizedRCNN, PanopticFPN, SemanticSegmentor, build_model
from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from detectron2.structures import Instances
from detectron2.utils.file_io import atomic_write
from detectron2.utils.logger import setup_logger
from detectron2.utils.user_errors import UserNotImplementedError, UserValueError, exit_on_user_error

logger = logging.getLogger("detectron2.tools.export_model")

# (C, H, W) float32 image -> what the model finds, in the frame of that image: `instances`, `sem_seg`, ...
Run = Callable[[Tensor], dict[str, Any]]

_SUFFIXES = {"torchscript": ".ts", "onnx": ".onnx", "torch_export": ".pt2"}
_REFUSED = {
    "caffe2": "Caffe2 is no longer part of PyTorch: use --format onnx",
    "caffe2_tracing": "Caffe2 is no longer part of PyTorch: use --export-method tracing --format onnx",
    "scripting": "torch.jit.script is deprecated by PyTorch, and models are not written for it: use "
    "--export-method tracing, whose programs take images of any size",
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", required=True, metavar="FILE", help="YAML config of the model")
    add("--format", choices=[*_SUFFIXES, "caffe2"], default="torchscript", help="default: %(default)s")
    add("--export-method", choices=["tracing", "caffe2_tracing", "scripting"], default="tracing")
    add(
        "--output",
        default="./output",
        metavar="PATH",
        help="the file to write, if it ends in .ts, .onnx or .pt2; else the folder of a file model.*",
    )
    add("--sample-image", metavar="FILE", help="traced and compared with this picture; else with noise")
    add("--run-eval", action="store_true", help="evaluate what was exported on the first of DATASETS.TEST")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys and values")
    args = parser.parse_args(argv)
    for choice in (args.export_method, args.format):
        if choice in _REFUSED:
            raise UserNotImplementedError(f"{choice} is not supported: {_REFUSED[choice]}")
    return args


def output_file(args: argparse.Namespace) -> Path:
    path, suffix = Path(args.output), _SUFFIXES[args.format]
    if path.suffix in _SUFFIXES.values() and path.suffix != suffix:
        raise UserValueError(
            f"--output {args.output} is no file of --format {args.format}, which are *{suffix}"
        )
    return path if path.suffix == suffix else path / f"model{suffix}"


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


def infer(model: Any, image: Tensor) -> dict[str, Any]:
    """What a model finds in one image, in the frame of that image and before masks are pasted."""
    inputs = [{"image": image}]
    if isinstance(model, PanopticFPN):
        instances, logits = model.inference(inputs, do_postprocess=False)
        return {"instances": instances[0], "sem_seg": logits[0]}
    if isinstance(model, GeneralizedRCNN):
        return {"instances": model.inference(inputs, do_postprocess=False)[0]}
    if isinstance(model, SemanticSegmentor):
        logits, _ = model.sem_seg_head(model.backbone(model.preprocess_image(inputs).tensor), None)
        return {"sem_seg": logits[0]}
    outputs: dict[str, Any] = model(inputs)[0]
    return outputs


def export_torchscript(model: nn.Module, path: Path, image: Tensor, with_text: bool) -> Run:
    """Write the program, and into files beside it, if asked for, what it consists of."""
    adapter = TracingAdapter(model, image.to(_device_of(model)), infer)
    with warnings.catch_warnings(), torch.no_grad():
        # That was the decision of whoever asked for this format.
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        torch.jit.save(torch.jit.trace(adapter, adapter.flattened_inputs, check_trace=False), path)
        program = torch.jit.load(path, map_location=_device_of(model))
        if with_text:
            dump_torchscript_IR(program, str(path.parent))
    schema = adapter.outputs_schema
    assert schema is not None

    def run(image: Tensor) -> dict[str, Any]:
        outputs: dict[str, Any] = schema(program(image.to(_device_of(model))))
        return outputs

    return run


def export_torch_program(model: nn.Module, path: Path, image: Tensor | None) -> Run:
    program = export_program(model, image)
    with atomic_write(path, mode="wb") as file:
        torch.export.save(program, file)
    module = torch.export.load(path).module()
    return lambda image: _structured(module(image.to(_device_of(model))), image)


def export_to_onnx(model: nn.Module, path: Path, image: Tensor | None) -> Run | None:
    export_onnx(model, path, image)
    if importlib.util.find_spec("onnxruntime") is None:
        logger.warning("onnxruntime is not installed, so the file is not compared with the model")
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(image: Tensor) -> dict[str, Any]:
        values = session.run(names, {"image": image.cpu().numpy()})
        return _structured({name: torch.as_tensor(value) for name, value in zip(names, values)}, image)

    return run


def _structured(outputs: dict[str, Tensor], image: Tensor) -> dict[str, Any]:
    """Named outputs of a program -> what `infer` returns."""
    height, width = image.shape[-2:]
    results: dict[str, Any] = {"instances": to_instances(outputs, (height, width))}
    return {**results, "sem_seg": outputs["sem_seg"]} if "sem_seg" in outputs else results


def _device_of(model: Any) -> torch.device:
    device: torch.device = model.device
    return device


def export(model: nn.Module, args: argparse.Namespace, path: Path, image: Tensor | None) -> Run | None:
    """Write the file; return what runs it, if something here can."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if args.format == "torchscript":
        is_folder = Path(args.output) != path
        return export_torchscript(model, path, _noise(model) if image is None else image, is_folder)
    if args.format == "torch_export":
        return export_torch_program(model, path, image)
    return export_to_onnx(model, path, image)


def _noise(model: Any) -> Tensor:
    return torch.rand(len(model.pixel_mean), 320, 480, generator=torch.Generator().manual_seed(0)) * 255


def compare(model: nn.Module, fmt: str, run: Run, image: Tensor) -> None:
    """Log how far what was exported is from the model on an image."""
    image = image.to(_device_of(model))
    with torch.no_grad():
        expected = (
            infer(model, image) if fmt == "torchscript" else _structured(make_network(model)(image), image)
        )
        found = run(image)
    for name, value in _named_tensors(found).items():
        reference = _named_tensors(expected)[name]
        if value.shape != reference.shape:
            logger.warning("%s: shape %s, the model has %s", name, tuple(value.shape), tuple(reference.shape))
            continue
        difference = (value.cpu().double() - reference.cpu().double()).abs()
        logger.info(
            "%s: shape %s, largest difference to the model %.2g",
            name,
            tuple(value.shape),
            difference.max().item() if value.numel() else 0,
        )


def _named_tensors(results: dict[str, Any]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, value in results.items():
        parts = value.get_fields() if isinstance(value, Instances) else {name: value}
        tensors |= {key: flatten_to_tuple(part)[0][0] for key, part in parts.items()}
    return tensors


class Exported:
    """What was exported, called as the model is; results are in the frames of the original images."""

    def __init__(self, model: Any, run: Run) -> None:
        self.model, self.run = model, run

    def __call__(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [self._process(x) for x in inputs]

    def _process(self, batched_input: dict[str, Any]) -> dict[str, Any]:
        image = batched_input["image"]
        image_size = tuple(image.shape[-2:])
        size = batched_input.get("height", image_size[0]), batched_input.get("width", image_size[1])
        results = self.run(image.float())
        for name in ("instances", "proposals"):
            if name in results:
                results[name] = detector_postprocess(results[name], *size)
        if "sem_seg" in results:
            results["sem_seg"] = sem_seg_postprocess(results["sem_seg"], image_size, *size)
        if isinstance(self.model, PanopticFPN):
            results["panoptic_seg"] = self.model.combine(results["instances"], results["sem_seg"])
        return results


def evaluate(model: nn.Module, run: Run, cfg: Any, folder: Path) -> None:
    """Score what was exported on the first test set."""
    if not cfg.DATASETS.TEST:
        raise UserValueError("--run-eval needs a data set: add DATASETS.TEST \"('name',)\" to the command")
    name = cfg.DATASETS.TEST[0]
    logger.info("Evaluating on %s, which takes long on a CPU", name)
    evaluator = build_evaluator(cfg, name, str(folder))
    exported: Any = Exported(model, run)
    print_csv_format(inference_on_dataset(exported, build_detection_test_loader(cfg, name), evaluator))


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    path = output_file(args)
    setup_logger()
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    model = load_model(cfg)
    image = sample_image(args.sample_image, cfg)
    run = export(model, args, path, image)
    logger.info("Wrote %s", path)
    if run is not None:
        compare(model, args.format, run, _noise(model) if image is None else image)
        if args.run_eval:
            evaluate(model, run, cfg, path.parent)
    elif args.run_eval:
        raise UserValueError(
            "--run-eval runs the ONNX file, which needs onnxruntime: pip install onnxruntime"
        )


if __name__ == "__main__":
    with exit_on_user_error():
        main()
