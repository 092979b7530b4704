"""Turn a trained detector into a program that needs no model code: torch.export, and ONNX.

Shapes: C channels; H, W size of the image.
"""

from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detectron2.layers.extension import missing_reason
from detectron2.structures.boxes import Boxes
from detectron2.structures.instances import Instances
from detectron2.utils.file_io import atomic_write
from detectron2.utils.user_errors import UserImportError, UserValueError

from .networks import ImageNetwork, make_network
from .onnx_operators import STABLE_ONNX_OPSET_VERSION, make_translation_table, replace_operators

_LARGEST_SIDE = 1 << 14
_ONNX_PACKAGES = ("onnx", "onnxscript")


def export_program(model: nn.Module, example_image: Tensor | None = None) -> torch.export.ExportedProgram:
    """Export a model with dynamic height and width.

    Args:
        model: a `GeneralizedRCNN`, `PanopticFPN` or `RetinaNet` in eval mode; `make_network` says which.
        example_image: (C, H, W) float32, values in [0, 255], for tracing; by default noise. It must be larger
            than the coarsest stride, and so must be the images that the program is used for.

    Returns:
        A program from one such image to a dict of tensors; `output_names` of `make_network(model)` are its
        keys.
    """
    network = make_network(model)
    _require_operators()
    image = _example_image(network, example_image)
    sides = torch.export.Dim.DYNAMIC(min=1, max=_LARGEST_SIDE)
    with torch.no_grad():
        return torch.export.export(network, (image,), dynamic_shapes=({1: sides, 2: sides},), strict=False)


def export_onnx(
    model: nn.Module, path: str | os.PathLike[str], example_image: Tensor | None = None
) -> torch.onnx.ONNXProgram:
    """Export a model with dynamic height and width to a self-contained ONNX file.

    Args:
        model: a `GeneralizedRCNN`, `PanopticFPN` or `RetinaNet` in eval mode.
        path: the file to write.
        example_image: (C, H, W) float32, values in [0, 255], for tracing; by default noise.

    Returns:
        What was written. Its input is `image`, its outputs have the names of `output_names`.
    """
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserImportError(f"ONNX export needs {', '.join(missing)}: pip install 'detectron2[onnx]'")
    program = torch.onnx.export(
        replace_operators(export_program(model, example_image)),
        dynamo=True,
        opset_version=STABLE_ONNX_OPSET_VERSION,
        input_names=["image"],
        output_names=make_network(model).output_names,
        custom_translation_table=make_translation_table(),
        verbose=False,
    )
    assert program is not None
    with atomic_write(Path(path), mode="wb") as file:
        file.write(program.model_proto.SerializeToString())
    return program


def to_instances(outputs: dict[str, Tensor], image_size: tuple[int, int]) -> Instances:
    """Put what an exported detector returned into the form that `detector_postprocess` takes.

    Args:
        outputs: tensors by name; `sem_seg` is left out.
        image_size: (height, width) of the image that went in.

    Returns:
        `pred_boxes`, `scores`, `pred_classes`, and `pred_masks` (D, 1, M, M) where there are masks.
    """
    instances = Instances(
        image_size,
        pred_boxes=Boxes(outputs["boxes"]),
        scores=outputs["scores"],
        pred_classes=outputs["classes"],
    )
    if "masks" in outputs:
        instances.pred_masks = outputs["masks"]
    return instances


def _require_operators() -> None:
    reason = missing_reason()
    if reason:
        raise RuntimeError(f"Export needs the compiled operators: {reason}")


def _example_image(network: ImageNetwork, image: Tensor | None) -> Tensor:
    model = network.model
    channels = len(model.pixel_mean)
    if image is None:
        # Sides that differ, and are no multiples of anything, so that no coincidence becomes a rule.
        side = 2 * _coarsest_stride(model)
        noise: Any = torch.rand(channels, side + 17, 2 * side + 5, generator=torch.Generator().manual_seed(0))
        image = noise.to(model.device) * 255
    if image.ndim != 3 or image.shape[0] != channels or image.dtype != torch.float32:
        raise UserValueError(
            f"Expected a float32 image of shape ({channels}, H, W), got {image.dtype} of {tuple(image.shape)}"
        )
    return image


def _coarsest_stride(model: Any) -> int:
    return math.ceil(max(shape.stride or 1 for shape in model.backbone.output_shape().values()))
