"""Configs: the YAML tree (`get_cfg`), Python configs (`LazyConfig`), and classes built from either."""

from typing import TYPE_CHECKING, Any

from . import compat_names as compat_names
from .compat import downgrade_config as downgrade_config
from .compat import upgrade_config as upgrade_config
from .config.construction import configurable as configurable
from .config.default_config import get_cfg as get_cfg
from .config.default_config import global_cfg as global_cfg
from .config.default_config import register_config_keys as register_config_keys
from .config.default_config import set_global_cfg as set_global_cfg
from .config.node import CfgNode as CfgNode
from .foreign_keys import ForeignKey as ForeignKey
from .foreign_keys import register_foreign_key as register_foreign_key
from .instantiate import instantiate as instantiate

if TYPE_CHECKING:
    from .lazy import LazyCall as LazyCall
    from .lazy import LazyConfig as LazyConfig

__all__ = [
    "CfgNode",
    "ForeignKey",
    "LazyCall",
    "LazyConfig",
    "configurable",
    "downgrade_config",
    "get_cfg",
    "global_cfg",
    "instantiate",
    "register_config_keys",
    "register_foreign_key",
    "set_global_cfg",
    "upgrade_config",
]


def __getattr__(name: str) -> Any:
    # Python configs need omegaconf; who works with YAML does not pay for its import.
    if name in ("LazyCall", "LazyConfig"):
        from . import lazy

        return getattr(lazy, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
