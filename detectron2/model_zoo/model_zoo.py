"""Configs and models by the name of a shipped config, as "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml"."""

from __future__ import annotations

import difflib
from pathlib import Path

import torch
from torch import nn

from detectron2.checkpoint.detection_checkpoint import DetectionCheckpointer
from detectron2.config.config import CfgNode, get_cfg
from detectron2.modeling.meta_arch.build import build_model

__all__ = ["get", "get_checkpoint_url", "get_config", "get_config_file"]

_HERE = Path(__file__).resolve().parent
# A wheel carries the configs inside the package; a checkout keeps them at its root.
_CONFIG_ROOTS = (_HERE / "configs", _HERE.parents[1] / "configs")


def _config_root() -> Path:
    for root in _CONFIG_ROOTS:
        if root.is_dir():
            return root
    raise FileNotFoundError(f"The package's configs are missing; they should be in {_CONFIG_ROOTS[0]}.")


def get_checkpoint_url(config_path: str) -> str:
    """Return the address of the weights that were published for a config.

    Args:
        config_path: name of a shipped config, relative to `configs/`.

    Raises:
        FileNotFoundError: there is no such config, or no weights were published for it.
    """
    get_config_file(config_path)
    raise FileNotFoundError(
        f"No published weights are known for {config_path!r}. Set MODEL.WEIGHTS to a file instead."
    )


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
    names = [file.relative_to(root).as_posix() for file in root.rglob("*") if file.suffix in (".yaml", ".py")]
    near = difflib.get_close_matches(config_path, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"See the files in {root}."
    raise FileNotFoundError(f"{config_path!r} is no config of the model zoo. {hint}")


def get_config(config_path: str, trained: bool = False) -> CfgNode:
    """Return the config of a model.

    Args:
        config_path: name of a shipped YAML config, relative to `configs/`.
        trained: let `MODEL.WEIGHTS` be the published weights of the trained model, and not what the config
            starts training from.
    """
    config_file = get_config_file(config_path)
    if not config_file.endswith(".yaml"):
        raise ValueError(
            f"get_config reads YAML configs, got {config_path!r}. Use LazyConfig.load for Python ones."
        )
    cfg = get_cfg()
    cfg.merge_from_file(config_file)
    if trained:
        cfg.MODEL.WEIGHTS = get_checkpoint_url(config_path)
    return cfg


def get(config_path: str, trained: bool = False, device: str | None = None) -> nn.Module:
    """Build a model and load its weights.

    Args:
        config_path: name of a shipped YAML config, relative to `configs/`.
        trained: as in `get_config`.
        device: overrides the config's device. None means the config's device where there is a GPU, and the
            CPU otherwise.

    Returns:
        The model, in training mode.
    """
    cfg = get_config(config_path, trained)
    if device is None and not torch.cuda.is_available():
        device = "cpu"
    if device is not None:
        cfg.MODEL.DEVICE = device
    model = build_model(cfg)
    DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model
