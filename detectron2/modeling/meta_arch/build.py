"""The registry of whole models, and the function that makes the one a config names."""

from __future__ import annotations

import torch
from torch import nn

from detectron2.config.config.node import CfgNode
from detectron2.config.model_registry import META_ARCH_REGISTRY as META_ARCH_REGISTRY
from detectron2.utils.user_errors import UserValueError


def build_model(cfg: CfgNode) -> nn.Module:
    """Build the model `MODEL.META_ARCHITECTURE` on `MODEL.DEVICE`; weights are not loaded.

    Raises:
        KeyError: no model of this name is registered.
        ValueError: this machine does not have the device.
    """
    device = _checked_device(cfg.MODEL.DEVICE)
    model: nn.Module = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    return model.to(device)


def _checked_device(name: str) -> torch.device:
    """Find out that a device is missing before minutes go into building a model for it."""
    device = torch.device(name)
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
