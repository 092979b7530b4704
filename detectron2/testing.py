"""Helpers for the tests of projects that build on this package."""

from __future__ import annotations

import functools
import io
import logging
import os
import tempfile
import unittest
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detectron2.config.config.node import CfgNode
from detectron2.config.instantiate import instantiate
from detectron2.config.lazy import LazyConfig
from detectron2.data.catalog import DatasetCatalog
from detectron2.data.datasets.shapes.dataset import render_scene
from detectron2.data.detection_utils.image_io import read_image
from detectron2.model_zoo.model_zoo import get_config
from detectron2.modeling.meta_arch.build import build_model
from detectron2.structures.boxes import Boxes
from detectron2.structures.instances import Instances
from detectron2.structures.masks import ROIMasks
from detectron2.utils.torch_version_utils import min_torch_version

__all__ = [
    "assert_instances_allclose",
    "get_model_no_weights",
    "get_sample_coco_image",
    "has_dynamic_axes",
    "random_boxes",
    "register_custom_op_onnx_export",
    "reload_lazy_config",
    "reload_script_model",
    "skipIfOnCPUCI",
    "skipIfUnsupportedMinOpsetVersion",
    "skipIfUnsupportedMinTorchVersion",
    "unregister_custom_op_onnx_export",
]

logger = logging.getLogger(__name__)

_SAMPLE_SET = "coco_2017_val_100"
_SAMPLE_SIZE = (480, 640)


def get_model_no_weights(config_path: str) -> nn.Module:
    """Build a model of the zoo with random weights, on the CPU where there is no GPU.

    Args:
        config_path: name of a shipped config, as "COCO-Detection/retinanet_R_50_FPN_1x.yaml".
    """
    cfg = get_config(config_path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not isinstance(cfg, CfgNode):
        model: nn.Module = instantiate(cfg.model).to(device)
        return model
    cfg.MODEL.DEVICE = device
    return build_model(cfg)


def random_boxes(num_boxes: int, max_coord: float = 100, device: str | torch.device = "cpu") -> Tensor:
    """Draw boxes with sides of at least one pixel.

    Args:
        num_boxes: N.
        max_coord: no coordinate is larger than about 1.5 times this.
        device: where the boxes are.

    Returns:
        (N, 4) XYXY.
    """
    corners, sizes = torch.rand(2, num_boxes, 2, device=device) * (max_coord * 0.5)
    return torch.cat([corners, corners + 1 + sizes], dim=1)


def get_sample_coco_image(tensor: bool = True) -> Tensor | np.ndarray:
    """Return a picture with things on it: the first one of COCO where it is there, else a drawn one.

    Args:
        tensor: whether to return a tensor.

    Returns:
        (3, H, W) uint8 tensor, or (H, W, 3) uint8 array; channels in BGR order.
    """
    try:
        image = read_image(DatasetCatalog.get(_SAMPLE_SET)[0]["file_name"], format="BGR")
    except (FileNotFoundError, ImportError):
        image = render_scene(seed=0, index=0, image_size=_SAMPLE_SIZE).image[:, :, ::-1]
    image = np.ascontiguousarray(image)
    return torch.from_numpy(image.transpose(2, 0, 1).copy()) if tensor else image


def assert_instances_allclose(
    input: Instances, other: Instances, *, rtol: float = 1e-5, msg: str = "", size_as_tensor: bool = False
) -> None:
    """Raise an AssertionError unless two instances have the same fields with nearly equal values.

    Args:
        input, other: what to compare.
        rtol: boxes and scores may differ by this part of the largest value of a field; everything else must
            be equal.
        msg: starts the error's message.
        size_as_tensor: image sizes are tensors, as in traced models.
    """
    first_size, second_size = (
        torch.as_tensor(value.image_size).tolist() if size_as_tensor else tuple(value.image_size)
        for value in (input, other)
    )
    assert first_size == second_size, f"{msg}: image sizes are {first_size} and {second_size}"
    names = sorted(input.get_fields())
    assert names == sorted(other.get_fields()), f"{msg}: fields are {names} and {sorted(other.get_fields())}"
    for name in names:
        problem = _difference(input.get(name), other.get(name), rtol)
        assert problem is None, f"{msg}: {name} {problem}"


def _difference(first: Any, second: Any, rtol: float) -> str | None:
    if isinstance(first, (Boxes, ROIMasks)):
        first, second = first.tensor, second.tensor
    if not isinstance(first, Tensor):
        return None if first == second else f"is {first} and {second}"
    if first.shape != second.shape:
        return f"has shapes {tuple(first.shape)} and {tuple(second.shape)}"
    if first.numel() == 0 or torch.equal(first, second):
        return None
    if not first.is_floating_point():
        return f"differs in {int((first != second).sum())} of {first.numel()} values"
    allowed = rtol * float(first.abs().max())
    largest = float((first - second).abs().max())
    return None if largest <= allowed else f"differs by up to {largest}, allowed is {allowed}"


def reload_lazy_config(cfg: Any) -> Any:
    """Write a Python config to a file and read it back, which shows whether it can be saved."""
    with tempfile.TemporaryDirectory(prefix="detectron2") as folder:
        path = os.path.join(folder, "config.yaml")
        LazyConfig.save(cfg, path)
        return LazyConfig.load(path)


def reload_script_model(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """Save a TorchScript module to memory and load it back."""
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    buffer.seek(0)
    loaded: torch.jit.ScriptModule = torch.jit.load(buffer)
    return loaded


def has_dynamic_axes(onnx_model: Any) -> bool:
    """Tell whether every input and output of an ONNX model has an axis of unknown size."""
    values = [*onnx_model.graph.input, *onnx_model.graph.output]
    return all(any(axis.dim_param for axis in value.type.tensor_type.shape.dim) for value in values)


def register_custom_op_onnx_export(
    opname: str, symbolic_fn: Callable[..., Any], opset_version: int, min_version: str
) -> None:
    """Tell torch's TorchScript-based ONNX exporter how to write an operator, where torch does not know it.

    Args:
        opname: such as "aten::tril".
        symbolic_fn: writes the operator.
        opset_version: for this ONNX opset.
        min_version: the torch release that brought the operator; with it and later ones nothing is done.
    """
    if min_torch_version(min_version):
        logger.info("torch %s writes %s to ONNX by itself", torch.__version__, opname)
        return
    torch.onnx.register_custom_op_symbolic(  # type: ignore[attr-defined]  # not exported, and public
        opname, symbolic_fn, opset_version
    )


def unregister_custom_op_onnx_export(opname: str, opset_version: int, min_version: str) -> None:
    """Undo `register_custom_op_onnx_export`; the arguments are the same."""
    if not min_torch_version(min_version):
        torch.onnx.unregister_custom_op_symbolic(  # type: ignore[attr-defined]  # not exported, and public
            opname, opset_version
        )


def skipIfUnsupportedMinOpsetVersion(  # contract
    min_opset_version: int, current_opset_version: int | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Skip a test where the ONNX opset is too old.

    Args:
        min_opset_version: what the test needs.
        current_opset_version: what there is; None reads the attribute `opset_version` of the test case.
    """

    def reason(arguments: tuple[Any, ...]) -> str | None:
        current = current_opset_version
        if current is None:
            current = arguments[0].opset_version
        return f"needs ONNX opset {min_opset_version}" if current < min_opset_version else None

    return _skip_for(reason)


def skipIfUnsupportedMinTorchVersion(  # contract
    min_version: str,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Skip a test where torch is older than a release such as "2.4"."""
    return _skip_for(lambda _: None if min_torch_version(min_version) else f"needs torch {min_version}")


skipIfOnCPUCI = unittest.skipIf(
    bool(os.environ.get("CI")) and not torch.cuda.is_available(), "takes too long on a CPU of a CI machine"
)
"""Skip a test where the environment variable CI is set and there is no GPU."""


def _skip_for(
    reason: Callable[[tuple[Any, ...]], str | None],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> Any:
            why_not = reason(args)
            if why_not:
                raise unittest.SkipTest(why_not)
            return test(*args, **kwargs)

        return run

    return decorate
