"""Weights under other packages' names, made from our models by rules of their own."""

from __future__ import annotations

import re
import zlib

import numpy as np
import torch
from torch import Tensor

from detectron2.config import CfgNode, get_cfg

STAGES = ["res2", "res3", "res4", "res5"]


def backbone_cfg(name: str = "build_resnet_backbone", **keys: object) -> CfgNode:
    """A backbone of tiny width with all its stages; `keys` are of RESNETS or RES2NET."""
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = name
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.FPN.IN_FEATURES, cfg.MODEL.FPN.OUT_CHANNELS = STAGES, 8
    node = cfg.MODEL.RESNETS
    node.OUT_FEATURES, node.NORM, node.STRIDE_IN_1X1 = STAGES, "BN", False
    node.WIDTH_PER_GROUP, node.STEM_OUT_CHANNELS, node.RES2_OUT_CHANNELS = 4, 8, 16
    if "res2net" in name:
        cfg.MODEL.RES2NET.STAGE_BLOCKS = [2, 1, 1, 1]
    for key, value in keys.items():
        (cfg.MODEL.RES2NET if key in cfg.MODEL.RES2NET else node)[key] = value
    return cfg


def torchvision_name(name: str) -> str:
    """What torchvision, timm and the authors of Res2Net call a tensor of ours."""
    name = re.sub(r"^res(\d)\.", lambda stage: f"layer{int(stage[1]) - 1}.", name)
    name = name.replace("stem.conv1.norm", "bn1").replace("stem.", "")
    name = name.replace("shortcut.1.norm", "downsample.2").replace("shortcut.1.", "downsample.1.")
    name = name.replace("shortcut.norm", "downsample.1").replace("shortcut.", "downsample.0.")
    return re.sub(r"conv(\d)\.norm", r"bn\1", name)


def mmdetection_name(name: str) -> str:
    """What mmdetection calls it: the deep stem is one numbered sequence."""
    name = torchvision_name(name)
    if name.startswith("bn1."):
        return name.replace("bn1.", "stem.7.")
    return re.sub(r"^conv1\.(\d)\.", r"stem.\1.", name)


def golden_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """The value that the reference numbers were made with; it depends on timm's name and the shape alone."""
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_var":
        value = rng.uniform(0.5, 1.5, shape)
    elif leaf == "running_mean":
        value = 0.1 * rng.randn(*shape)
    elif len(shape) == 1 and leaf == "weight":
        value = (0.9 + 0.1 * rng.rand(*shape)) * (0.2 if ".bn3." in name else 1.0)
    elif len(shape) == 1:
        value = 0.05 * rng.randn(*shape)
    else:
        value = rng.randn(*shape) * np.sqrt(2 / np.prod(shape[1:]))
    return torch.as_tensor(value, dtype=torch.float32)
