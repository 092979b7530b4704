"""From a file with an ImageNet backbone to one of ours, with the config that goes with it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.torch
import torch
import yaml
from torch import Tensor

from detectron2.utils.file_io import atomic_write
from detectron2.utils.user_errors import UserFileNotFoundError, UserValueError

from .reading import read_checkpoint_file
from .weight_translation import BackboneLayout, ConvertedBackbone, convert_backbone

__all__ = ["convert_file", "describe_conversion", "suggest_config"]

_SUFFIXES = (".pkl", ".pth", ".safetensors")

# How images must look for weights that were trained on RGB, and for those that came out of Caffe.
_TORCH_INPUT = {
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "INPUT.FORMAT": "RGB",
}
_CAFFE_INPUT = {
    "MODEL.PIXEL_MEAN": [103.939, 116.779, 123.68],
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "INPUT.FORMAT": "BGR",
}


def convert_file(source: str, target: str) -> ConvertedBackbone[Tensor]:
    """Read a backbone in another package's names and write it in ours.

    Args:
        source: `.pth`, `.pt`, `.safetensors`, ...
        target: ends in `.pkl`, `.pth` or `.safetensors`, which decides the format.

    Raises:
        ValueError: the suffix of `target`, the file or the names in it are not known.
    """
    suffix = os.path.splitext(target)[1]
    if suffix not in _SUFFIXES:
        raise UserValueError(f"{target} must end in one of {', '.join(_SUFFIXES)}, the formats to write")
    if not os.path.isfile(source):
        raise UserFileNotFoundError(f"there is no file {source}")
    weights = read_checkpoint_file(source)["model"]
    arrays = [name for name, value in weights.items() if not isinstance(value, (Tensor, np.ndarray))]
    if arrays:
        raise UserValueError(f"{source} must hold a dict of tensors; these are none: {arrays[:5]}")
    try:
        converted = convert_backbone({name: _as_float(value) for name, value in weights.items()})
    except ValueError as error:
        raise UserValueError(f"{source}: {error}") from error
    _write(converted.weights, target, suffix)
    return converted


def _as_float(value: Tensor | np.ndarray) -> Tensor:
    """Return a tensor, in float32 if it was of a shorter type."""
    tensor = torch.as_tensor(value)
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _write(weights: Mapping[str, Tensor], target: str, suffix: str) -> None:
    contiguous = {name: value.contiguous() for name, value in weights.items()}
    notes: dict[str, Any] = {"__author__": "convert-torchvision-to-d2", "matching_heuristics": True}
    with atomic_write(target) as file:
        if suffix == ".safetensors":
            file.write(safetensors.torch.save(contiguous, {key: str(value) for key, value in notes.items()}))
        elif suffix == ".pkl":
            pickle.dump({"model": {name: value.numpy() for name, value in contiguous.items()}} | notes, file)
        else:
            torch.save({"model": contiguous} | notes, file)


def suggest_config(layout: BackboneLayout, weights: str, *, is_caffe: bool = False) -> str:
    """Return the YAML lines that train on a converted backbone.

    Args:
        weights: path of the converted file.
        is_caffe: the weights came out of Caffe (MSRA): BGR, unscaled values, and what else the architecture
            has of its own there.
    """
    values: dict[str, Any] = {
        "MODEL.WEIGHTS": weights,
        "MODEL.BACKBONE.NAME": layout.pyramid_builder,
        **layout.config_values(),
        **layout.flavour_values(is_caffe=is_caffe),
        **(_CAFFE_INPUT if is_caffe else _TORCH_INPUT),
    }
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return yaml.safe_dump(tree, sort_keys=False, default_flow_style=None)


def describe_conversion(converted: ConvertedBackbone[Tensor], target: str, *, is_caffe: bool = False) -> str:
    """Say what was converted, what was dropped, and which config goes with it."""
    counters = [name for name in converted.dropped if name.endswith("num_batches_tracked")]
    others = [name for name in converted.dropped if name not in counters]
    dropped = ", ".join(others) if others else "nothing"
    if counters:
        dropped += f" (and {len(counters)} batch counters, which nothing reads)"
    flavour = (
        "Caffe's flavour, as asked for"
        if is_caffe
        else (
            "Names do not tell the flavour: these lines are for weights trained with torch, on RGB images.\n"
            "# For those out of Caffe (stride in the first 1x1 convolution of a block, BGR): --bgr-caffe."
        )
    )
    return (
        f"{converted.layout.title}: {len(converted.weights)} tensors written to {target}\n"
        f"dropped: {dropped}\n\n"
        f"# {flavour}\n"
        "# To be added to a config with a feature pyramid, such as Base-RCNN-FPN.yaml.\n"
        + suggest_config(converted.layout, target, is_caffe=is_caffe)
    )
