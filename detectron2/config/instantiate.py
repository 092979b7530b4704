"""Build objects from lazy configs: nested dictionaries whose `_target_` says what to call."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.utils.registry import locate
from detectron2.utils.user_errors import UserTypeError

logger = logging.getLogger(__name__)

__all__ = ["dump_dataclass", "instantiate"]


def dump_dataclass(obj: Any) -> dict[str, Any]:
    """Turn a dataclass instance into the lazy config that builds it again, dataclasses inside it included.

    Args:
        obj: an instance of a dataclass, whose init arguments are its fields.
    """
    if not dataclasses.is_dataclass(obj) or isinstance(obj, type):
        raise UserTypeError(f"expected an instance of a dataclass, got {obj!r}")
    config: dict[str, Any] = {"_target_": dotted_path(type(obj))}
    for field in dataclasses.fields(obj):
        if field.init:
            config[field.name] = _dump_field(getattr(obj, field.name))
    return config


def _dump_field(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dump_dataclass(value)
    if isinstance(value, (list, tuple)):
        return [_dump_field(item) for item in value]
    return value


def dotted_path(target: Any) -> str:
    """The path that users import a class or function from, `torch.optim.SGD` and not `torch.optim.sgd.SGD`.

    It stays when files move. `public_paths.json` says it for our own files that are not public or export more
    than others know; elsewhere it is the shortest path that leads to the object.
    """
    module_name, name = target.__module__, target.__qualname__
    parts = module_name.split(".")
    prefixes = [".".join(parts[:length]) for length in range(1, len(parts))]
    if parts[0] == "detectron2":
        homes = _public_paths()
        home = homes.get(f"{module_name}.{name}") or homes.get(module_name)
        prefixes = [home, *prefixes] if home else prefixes
    return next(
        (f"{prefix}.{name}" for prefix in prefixes if _stands_at(target, prefix)), f"{module_name}.{name}"
    )


@functools.cache
def _public_paths() -> dict[str, str]:
    text = (Path(__file__).parent / "public_paths.json").read_text(encoding="utf-8")
    paths: dict[str, str] = json.loads(text)
    return paths


def _stands_at(target: Any, module_name: str) -> bool:
    if f"{module_name}.{target.__qualname__}" in sys.modules:
        return False  # a module of that name would be found first
    found: Any = sys.modules.get(module_name)
    for name in target.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is target


def instantiate(cfg: Any) -> Any:
    """Call what a lazy config describes, its arguments first, from the inside out.

    Args:
        cfg: a mapping with `_target_` (a callable, its dotted path, or a config of either) and its keyword
            arguments; `_recursive_: False` hands nested configs on as they are. Lists and mappings without
            `_target_` are searched for such mappings; anything else is returned as it is.

    Returns:
        The object. What holds nothing to call is returned as it is.
    """
    omegaconf = sys.modules.get("omegaconf")
    if omegaconf is not None and isinstance(cfg, omegaconf.ListConfig):
        return _instantiate_list_config(cfg, omegaconf)
    if omegaconf is not None and _is_structured(cfg, omegaconf):
        return omegaconf.OmegaConf.to_object(cfg)
    if isinstance(cfg, (list, tuple)) and not hasattr(cfg, "_fields"):
        return type(cfg)(instantiate(item) for item in cfg)
    if isinstance(cfg, Mapping) and "_target_" in cfg:
        return _call_target(cfg)
    if isinstance(cfg, dict):
        values = {key: instantiate(value) for key, value in cfg.items()}
        return values if any(values[key] is not cfg[key] for key in cfg) else cfg
    return cfg


def _instantiate_list_config(cfg: Sequence[Any], omegaconf: Any) -> Any:
    items = [instantiate(item) for item in cfg]
    try:
        return omegaconf.ListConfig(items, flags={"allow_objects": True})
    except omegaconf.errors.OmegaConfBaseException:
        return items


def _is_structured(cfg: Any, omegaconf: Any) -> bool:
    """Whether it stands for a dataclass instance, which omegaconf itself can make."""
    return isinstance(cfg, omegaconf.DictConfig) and dataclasses.is_dataclass(
        omegaconf.OmegaConf.get_type(cfg)
    )


def _call_target(cfg: Mapping[str, Any]) -> Any:
    arguments = {key: cfg[key] for key in cfg if key not in ("_target_", "_recursive_")}
    if cfg.get("_recursive_", True):
        arguments = {key: instantiate(value) for key, value in arguments.items()}
    target = instantiate(cfg["_target_"])
    name = target
    if isinstance(target, str):
        target = locate(target)
    if not callable(target):
        raise UserTypeError(f"_target_ must be a callable or the dotted path of one, got {name!r}")
    try:
        return target(**arguments)
    except TypeError:
        if hasattr(name, "__qualname__") and getattr(name, "__module__", None):
            name = dotted_path(name)
        logger.error("Instantiating %s with the arguments %s failed", name, sorted(arguments))
        raise
