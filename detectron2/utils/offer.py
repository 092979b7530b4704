"""Give modules the names that code written for detectron2 takes from them, and that nothing of ours uses.

Each package keeps these names in one file, its `compat_names.py`, which its `__init__` imports. A name that a
module has of its own is never replaced.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NoReturn

from .user_errors import UserNotImplementedError

OFFERED: dict[str, dict[str, Any]] = {}
"""Module name -> what it is given by name, for tests and for who asks where a name comes from."""


def offer(module_name: str, *objects: Any, lazily: Mapping[str, str] | None = None, **named: Any) -> None:
    """Set names of a module that it does not define.

    Args:
        module_name: the module, which is imported; by name, for some packages have a function called alike.
        *objects: classes, functions and modules, under their own name.
        lazily: name -> "module:attribute", or "module" alone, imported when somebody asks for the name.
        **named: anything else, or under another name.
    """
    module = importlib.import_module(module_name)
    given = {_own_name(item): item for item in objects} | named
    OFFERED.setdefault(module_name, {}).update(given | dict(lazily or {}))
    for name, item in given.items():
        if name not in vars(module):
            setattr(module, name, item)
    if lazily:
        _offer_lazily(module, dict(lazily))


def _own_name(item: Any) -> str:
    name: str = item.__name__
    return name.rpartition(".")[2] if isinstance(item, ModuleType) else name


def _offer_lazily(module: ModuleType, paths: dict[str, str]) -> None:
    before: Callable[[str], Any] | None = vars(module).get("__getattr__")

    def find(name: str) -> Any:
        if name not in paths:
            if before is not None:
                return before(name)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
        path, _, attribute = paths[name].partition(":")
        found: Any = importlib.import_module(path)
        found = getattr(found, attribute) if attribute else found
        setattr(module, name, found)
        return found

    module.__getattr__ = find  # type: ignore[method-assign]  # how a module answers for names that it lacks


def left_out(name: str, reason: str, instead: str) -> Callable[..., NoReturn]:
    """Make a function that can be imported and says why there is nothing behind it when it is called.

    Args:
        name: what it is called.
        reason: why it is left out.
        instead: what to use.
    """

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise UserNotImplementedError(f"{name} is left out: {reason}. {instead}")

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__doc__ = f"Left out: {reason}. {instead}"
    return refuse


def left_out_class(name: str, reason: str, instead: str, base: type = object) -> type:
    """Make a class that can be imported and subclassed, and says why it is left out when one is made."""

    def refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise UserNotImplementedError(f"{name} is left out: {reason}. {instead}")

    return type(name, (base,), {"__init__": refuse, "__doc__": f"Left out: {reason}. {instead}"})
