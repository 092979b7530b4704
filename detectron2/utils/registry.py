"""Registries: a name from a config becomes the class or function that it stands for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeVar, overload

from fvcore.common.registry import Registry as _Registry

from .user_errors import UserImportError, UserKeyError, UserValueError, near

__all__ = ["Registry", "locate"]

_Entry = TypeVar("_Entry")


class Registry(_Registry):  # type: ignore[misc]  # fvcore has no types
    """Map names to classes or functions.

    It is a `fvcore.common.registry.Registry`, so code that checks for that type accepts it. Its errors help:
    an unknown name lists near matches, a second registration says who holds the name.
    """

    # fvcore has no annotations: without these a decorated function or class would lose its own.
    @overload
    def register(self, obj: None = None) -> Callable[[_Entry], _Entry]: ...
    @overload
    def register(self, obj: _Entry) -> _Entry: ...
    def register(self, obj: Any = None) -> Any:
        """Register `obj` under its `__name__`, or without one return a decorator that does."""
        return super().register(obj)

    def _do_register(self, name: str, obj: Any) -> None:
        holder = self._obj_map.get(name)
        if holder is not None:
            raise UserValueError(
                f"{self._name} registry: the name {name!r} already belongs to {holder!r}; "
                f"give {obj!r} another name, entries are never replaced"
            )
        self._obj_map[name] = obj

    def get(self, name: str) -> Any:
        """Return the object registered as `name`.

        Raises:
            KeyError: nothing has this name; the message lists near matches, or all names where none is near.
        """
        try:
            return self._obj_map[name]
        except KeyError:
            raise UserKeyError(self._describe_miss(name)) from None

    def _describe_miss(self, name: str) -> str:
        known = sorted(self._obj_map)
        if not known:
            return f"{name!r} is not in the {self._name} registry, which is empty: import what registers it"
        hint = near(name, known) or f" It has: {', '.join(known)}."
        return (
            f"{name!r} is not in the {self._name} registry.{hint} An own class is registered when its module "
            "is imported."
        )


def locate(name: str) -> Any:
    """Find an object by its dotted path, such as `torch.nn.Conv2d` or `package.module.Class.method`.

    Raises:
        ImportError: no module along the path can be imported, or a module lacks the attribute.
    """
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        raise UserImportError(f"expected a dotted path such as 'package.module.Class', got {name!r}")
    obj = None
    for split in range(len(parts), 0, -1):
        module_name = ".".join(parts[:split])
        try:
            obj = importlib.import_module(module_name)
        except ModuleNotFoundError as e:
            # A module that exists but misses one of its own imports must not be reported as absent.
            if e.name is not None and not (module_name + ".").startswith(e.name + "."):
                raise
            continue
        return _walk_attributes(obj, parts[split:], name)
    raise UserImportError(f"cannot locate {name!r}: there is no module named {parts[0]!r}")


def _walk_attributes(obj: Any, attributes: list[str], full_name: str) -> Any:
    for attribute in attributes:
        try:
            obj = getattr(obj, attribute)
        except AttributeError:
            raise UserImportError(
                f"cannot locate {full_name!r}: {obj!r} has no {attribute!r}.{near(attribute, dir(obj))}"
            ) from None
    return obj
