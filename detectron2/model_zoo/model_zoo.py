"""Configs and models by the name of a shipped config, as "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml"."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detectron2.checkpoint.detection_checkpoint import DetectionCheckpointer
from detectron2.config.config.default_config import get_cfg
from detectron2.config.config.node import CfgNode
from detectron2.config.instantiate import instantiate
from detectron2.config.lazy import LazyConfig
from detectron2.modeling.meta_arch.build import build_model
from detectron2.utils.file_io import Detectron2Handler
from detectron2.utils.user_errors import UserFileNotFoundError, UserValueError, near

__all__ = ["get", "get_checkpoint_url", "get_config", "get_config_file"]

_HERE = Path(__file__).resolve().parent
# A wheel carries the configs inside the package; a checkout keeps them at its root.
_CONFIG_ROOTS = (_HERE / "configs", _HERE.parents[1] / "configs")
_SUFFIXES = (".yaml", ".py")


def _config_root() -> Path:
    for root in _CONFIG_ROOTS:
        if root.is_dir():
            return root
    raise UserFileNotFoundError(f"The package's configs are missing; they should be in {_CONFIG_ROOTS[0]}.")


@cache
def published() -> dict[str, dict[str, Any]]:
    """What was published for a config, by its name without the suffix: `checkpoint` and `results`."""
    published: dict[str, dict[str, Any]] = json.loads((_HERE / "published.json").read_text(encoding="utf-8"))
    return published


def get_checkpoint_url(config_path: str) -> str:
    """Return the address of the weights that were published for a config.

    Args:
        config_path: name of a shipped YAML or Python config, relative to `configs/`.

    Raises:
        FileNotFoundError: there is no such config, or no weights were published for it.
    """
    name = config_path.removesuffix(".yaml").removesuffix(".py")
    checkpoint = published().get(name, {}).get("checkpoint")
    if checkpoint is None:
        get_config_file(config_path)  # which knows near names, if it is no config at all
        raise UserFileNotFoundError(
            f"No published weights are known for {config_path!r}. Set MODEL.WEIGHTS to a file instead."
        )
    return f"{Detectron2Handler.S3_DETECTRON2_PREFIX}{name}/{checkpoint}"


def get_config_file(config_path: str) -> str:
    """Return the path of a shipped config file.

    Args:
        config_path: its name relative to `configs/`.

    Raises:
        FileNotFoundError: there is no such config; the message lists the nearest ones.
    """
    root = _config_root()
    path = root / config_path
    if path.is_file():
        return str(path)
    names = [file.relative_to(root).as_posix() for file in root.rglob("*") if file.suffix in _SUFFIXES]
    hint = near(config_path, names, cutoff=0.5) or f" The files are in {root}."
    raise UserFileNotFoundError(f"{config_path!r} is no config of the model zoo.{hint}")


def get_config(config_path: str, trained: bool = False) -> Any:
    """Return the config of a model.

    Args:
        config_path: name of a shipped config, relative to `configs/`.
        trained: let the weights of the config be the published ones of the trained model, and not what it
            starts training from.

    Returns:
        A `CfgNode` for a YAML config, an omegaconf config for a Python one.
    """
    config_file = get_config_file(config_path)
    if config_file.endswith(".py"):
        cfg = LazyConfig.load(config_file)
        if trained:
            _check_has_weights(cfg, config_path)
            cfg.train.init_checkpoint = get_checkpoint_url(config_path)
        return cfg
    if not config_file.endswith(".yaml"):
        raise UserValueError(f"a config is a .yaml or a .py file, got {config_path!r}")
    cfg = get_cfg()
    cfg.merge_from_file(config_file)
    if trained:
        cfg.MODEL.WEIGHTS = get_checkpoint_url(config_path)
    return cfg


def _check_has_weights(cfg: Any, config_path: str) -> None:
    if "init_checkpoint" not in cfg.get("train", {}):
        raise UserValueError(
            f"{config_path!r} has no train.init_checkpoint, so its weights cannot be set; load "
            "get_checkpoint_url(...) with DetectionCheckpointer"
        )


def get(config_path: str, trained: bool = False, device: str | None = None) -> nn.Module:
    """Build a model and load its weights.

    Args:
        config_path: name of a shipped config, relative to `configs/`.
        trained: as in `get_config`.
        device: overrides the config's device. None means the config's device where there is a GPU, and the
            CPU otherwise.

    Returns:
        The model, in training mode.
    """
    cfg = get_config(config_path, trained)
    if device is None and not torch.cuda.is_available():
        device = "cpu"
    if isinstance(cfg, CfgNode):
        if device is not None:
            cfg.MODEL.DEVICE = device
        model, weights = build_model(cfg), cfg.MODEL.WEIGHTS
    else:
        train = cfg.get("train", {})
        model = instantiate(cfg.model).to(device or train.get("device", "cuda"))
        weights = train.get("init_checkpoint", "")
    DetectionCheckpointer(model).load(weights)
    return model
