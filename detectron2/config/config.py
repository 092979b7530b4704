"""The config system's front door: the default config, the process-wide config, `configurable`."""

from __future__ import annotations

from detectron2.config._configurable import configurable as configurable
from detectron2.config._node import CfgNode as CfgNode
from detectron2.config.defaults import _C

__all__ = ["CfgNode", "configurable", "get_cfg", "global_cfg", "set_global_cfg"]

global_cfg = CfgNode()
"""A config that any code can read. For experiments only: what reads it hides what it depends on."""


def get_cfg() -> CfgNode:
    """Return a new copy of the default config."""
    return _C.clone()


def set_global_cfg(cfg: CfgNode) -> None:
    """Let `global_cfg` hold the keys of `cfg`; whoever imported `global_cfg` sees them too."""
    global_cfg.clear()
    global_cfg.update(cfg)
