"""The registry of whole models, and the function that makes the one a config names."""

from __future__ import annotations

import torch
from torch import nn

from detectron2.checkpoint.class_names import expect_classes
from detectron2.config.config.node import CfgNode
from detectron2.config.model_registry import META_ARCH_REGISTRY as META_ARCH_REGISTRY
from detectron2.data.build.class_ids import fill_class_counts
from detectron2.data.class_names import find_class_names
from detectron2.utils.user_errors import UserValueError

_AUTO = "auto"


def build_model(cfg: CfgNode) -> nn.Module:
    """Build the model `MODEL.META_ARCHITECTURE` on `MODEL.DEVICE`; weights are not loaded.

    A number of classes that is -1 becomes that of the data sets in the config.

    Raises:
        KeyError: no model of this name is registered.
        ValueError: this machine does not have the device.
    """
    device = find_device(cfg.MODEL.DEVICE)
    cfg = _with_device(fill_class_counts(cfg), device)
    model: nn.Module = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    model = model.to(device)
    names = tuple(cfg.DATASETS.TRAIN)
    expect_classes(model, lambda: find_class_names(names), is_checked=cfg.TEST.CHECK_CLASS_NAMES)
    return model


def _with_device(cfg: CfgNode, device: torch.device) -> CfgNode:
    """A config that names the device, for models that read it; itself where it does."""
    if cfg.MODEL.DEVICE != _AUTO:
        return cfg
    named: CfgNode = cfg.clone()
    named.defrost()
    named.MODEL.DEVICE = device.type
    if cfg.is_frozen():
        named.freeze()
    return named


def find_device(name: str) -> torch.device:
    """Look up the device that `MODEL.DEVICE` names, before minutes go into building a model for it.

    Args:
        name: a device of PyTorch, or "auto" for CUDA where there is a GPU and else the CPU.

    Raises:
        ValueError: there is no such device, or this machine does not have it.
    """
    if name == _AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserValueError(
            f"MODEL.DEVICE is {name!r}, which is no device of PyTorch. Set it to cuda, cuda:1 ..., cpu, or "
            f"{_AUTO} for CUDA where there is a GPU and else the CPU."
        ) from error
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserValueError(
            f"MODEL.DEVICE is {name!r}, but PyTorch finds no Metal device here. Set MODEL.DEVICE to {_AUTO}, "
            "cuda or cpu."
        )
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        why = (
            "this PyTorch is built without CUDA"
            if torch.version.cuda is None
            else "PyTorch finds no GPU here"
        )
        raise UserValueError(
            f"MODEL.DEVICE is {name!r}, but {why}. To use the CPU set MODEL.DEVICE to cpu: add `MODEL.DEVICE "
            "cpu` to the overrides at the end of the command, or `cfg.MODEL.DEVICE = 'cpu'` in code."
        )
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise UserValueError(f"MODEL.DEVICE is {name!r}, but there are only {torch.cuda.device_count()} GPUs")
    return device
