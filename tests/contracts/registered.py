"""What the package registers and defines, found by walking it: the lists that the contracts are held to."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType
from typing import Any

import detectron2
from detectron2.utils.registry import Registry

# Facades that import what is optional, or run a program.
_NOT_IMPORTED = ("__main__",)


@cache
def modules() -> tuple[ModuleType, ...]:
    """All modules of the package."""
    found = pkgutil.walk_packages(detectron2.__path__, "detectron2.")
    names = [info.name for info in found if info.name.rpartition(".")[2] not in _NOT_IMPORTED]
    return tuple(importlib.import_module(name) for name in names if not name.endswith("._C"))


def registries() -> dict[str, Registry]:
    """Every registry of the package by its name."""
    found = {
        id(value): value for module in modules() for value in vars(module).values() if _is_registry(value)
    }
    return {registry._name: registry for registry in found.values()}


def _is_registry(value: Any) -> bool:
    return isinstance(value, Registry)


def entries(registry: str) -> list[str]:
    """Names in a registry whose objects the package defines; other tests and projects register too."""
    return sorted(name for name, obj in registries()[registry] if obj.__module__.startswith("detectron2."))


def subclasses(base: type) -> dict[str, type]:
    """The package's public subclasses of `base` by name, at any depth and without itself."""
    modules()
    found: dict[str, type] = {}
    pending = base.__subclasses__()
    while pending:
        cls = pending.pop()
        pending += cls.__subclasses__()
        if cls.__module__.startswith("detectron2.") and not cls.__name__.startswith("_"):
            found[cls.__name__] = cls
    return dict(sorted(found.items()))
