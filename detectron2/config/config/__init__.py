"""The config system's front door: the default config, the process-wide config, `configurable`."""

from .construction import configurable as configurable
from .default_config import get_cfg as get_cfg
from .default_config import global_cfg as global_cfg
from .default_config import register_config_keys as register_config_keys
from .default_config import set_global_cfg as set_global_cfg
from .node import CfgNode as CfgNode

__all__ = [
    "CfgNode",
    "configurable",
    "get_cfg",
    "global_cfg",
    "register_config_keys",
    "set_global_cfg",
]
