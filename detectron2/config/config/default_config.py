"""The default config, and the one that a process may share."""

from __future__ import annotations

from detectron2.config.config.node import CfgNode
from detectron2.config.defaults import DEFAULTS

global_cfg = CfgNode()
"""A config that any code can read. For experiments only: what reads it hides what it depends on."""


def get_cfg() -> CfgNode:
    """Return a new copy of the default config."""
    return DEFAULTS.clone()


def set_global_cfg(cfg: CfgNode) -> None:
    """Let `global_cfg` hold the keys of `cfg`; whoever imported `global_cfg` sees them too."""
    global_cfg.clear()
    global_cfg.update(cfg)
