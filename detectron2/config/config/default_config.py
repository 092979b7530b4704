"""The default config, and the one that a process may share."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from detectron2.config.config.node import CfgNode
from detectron2.config.defaults import default_tree
from detectron2.config.plugin_keys import add_keys
from detectron2.utils.user_errors import UserValueError

global_cfg = CfgNode()
"""A config that any code can read. For experiments only: what reads it hides what it depends on."""


def get_cfg() -> CfgNode:
    """Return a new copy of the default config."""
    cfg: CfgNode = default_tree().clone()
    return cfg


_registered_keys: dict[str, dict[str, Any]] = {}


def register_config_keys(keys: Mapping[str, Any], *, owner: str) -> None:
    """Give every config that is made from now on further keys.

    For plug-ins outside the package: with it a config needs no `add_..._config(cfg)` before it can read their
    files.

    Args:
        keys: nested dictionaries as they stand in a config, such as `{"MODEL": {"WIDENET": {"FACTOR": 4}}}`.
            Every leaf is the default of its key, and its type what the key takes.
        owner: who declares them, such as the name of the plug-in's package. It may register the same keys
            again, as happens when its module is loaded twice.

    Raises:
        ValueError: a key is there already, or the owner registered other keys before.
    """
    if owner not in _registered_keys:
        add_keys(default_tree(), keys, owner=owner)
        _registered_keys[owner] = deepcopy(dict(keys))
    elif _registered_keys[owner] != keys:
        raise UserValueError(f"{owner} registered config keys before, and they were other ones")


def set_global_cfg(cfg: CfgNode) -> None:
    """Let `global_cfg` hold the keys of `cfg`; whoever imported `global_cfg` sees them too."""
    global_cfg.clear()
    global_cfg.update(cfg)
