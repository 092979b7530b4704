"""Names that other people's code takes from modules of this package, and that nothing of ours uses.

`detectron2.config.lazy`, which is loaded only where somebody asks for it, imports its own from here.
"""

from __future__ import annotations

import ast
import os
import uuid
from collections.abc import Callable, MutableMapping
from typing import Any

from detectron2.utils.file_io import PathManager
from detectron2.utils.offer import offer

from .config.construction import arguments_from_config, has_config
from .config.node import CfgNode
from .instantiate import dotted_path
from .key_paths import move_key


def _called_with_cfg(*args: Any, **kwargs: Any) -> bool:
    """Tell whether a call of a configurable gives a config, as its first argument or as `cfg`."""
    return has_config(args, kwargs)


def _get_args_from_config(from_config_func: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments that `from_config_func` makes of a config; keywords that it does not take win."""
    return arguments_from_config(from_config_func, args, kwargs)


def _rename(cfg: MutableMapping[str, Any], old: str, new: str) -> None:
    """Move a value of a config, where it is there, from one dotted key to another."""
    move_key(cfg, old, new)


def make_package_name(filename: str) -> str:
    """A name that no module has, for a config file that is run."""
    return ".".join(("detectron2._cfg_loader", uuid.uuid4().hex[:4], os.path.basename(filename)))


def validate_py_syntax(filename: str) -> None:
    """Raise SyntaxError, with the name of the file, where it is not a program."""
    with PathManager.open(filename, "r") as stream:
        ast.parse(stream.read(), filename)


def visit_dict_config(cfg: Any, func: Callable[[Any], Any]) -> None:
    """Call a function with every mapping of an omegaconf config, those in lists too, from the outside in."""
    if hasattr(cfg, "items"):
        func(cfg)
        children = list(cfg.values())
    else:
        children = list(cfg) if hasattr(cfg, "__iter__") and not isinstance(cfg, (str, bytes)) else []
    for child in children:
        visit_dict_config(child, func)


offer("detectron2.config.compat", _rename, CN=CfgNode, lazily={"_C": "detectron2.config.defaults:_C"})
offer("detectron2.config.config", _called_with_cfg, _get_args_from_config)
offer("detectron2.config.instantiate", _convert_target_to_string=dotted_path)
