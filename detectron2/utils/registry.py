"""Registries: a name from a config becomes the class or function that it stands for."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any, TypeVar, overload

from fvcore.common.registry import Registry as _Registry

from .compat_names import convert_target_to_string as _convert_target_to_string  # noqa: F401  # for others' code
from .user_errors import UserImportError, UserKeyError, UserValueError, near

__all__ = ["Registry", "locate"]

logger = logging.getLogger(__name__)

_Entry = TypeVar("_Entry")


class Registry(_Registry):  # type: ignore[misc]  # fvcore has no types
    """Map names to classes or functions.

    It is a `fvcore.common.registry.Registry`, so code that checks for that type accepts it. Its errors help:
    an unknown name lists near matches, a second registration says who holds the name.

    An entry that gives way (`register(overridable=True)`) is for a name of our own that others may have for
    theirs: they get it, whoever comes first, and the log says so.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._giving_way: set[str] = set()

    # fvcore has no annotations: without these a decorated function or class would lose its own.
    @overload
    def register(self, obj: None = None, *, overridable: bool = False) -> Callable[[_Entry], _Entry]: ...
    @overload
    def register(self, obj: _Entry, *, overridable: bool = False) -> _Entry: ...
    def register(self, obj: Any = None, *, overridable: bool = False) -> Any:
        """Register `obj` under its `__name__`, or without one return a decorator that does.

        Args:
            obj: a class or function.
            overridable: whether it gives way to whatever else is registered under the name.
        """
        if not overridable:
            return super().register(obj)
        return self._register_giving_way if obj is None else self._register_giving_way(obj)

    def gives_way(self, name: str) -> bool:
        """Tell whether the entry of this name is one that another may replace."""
        return name in self._giving_way

    def _register_giving_way(self, obj: Any) -> Any:
        name = obj.__name__
        if name in self._giving_way:
            raise self._taken(name, obj)
        if name in self._obj_map:
            self._log_replacement(name, obj, self._obj_map[name])
        else:
            self._do_register(name, obj)
            self._giving_way.add(name)
        return obj

    def _log_replacement(self, name: str, ours: Any, theirs: Any) -> None:
        # A warning, since imports come before logs are set up.
        logger.warning("%s registry: %r is %r, which takes the place of %r", self._name, name, theirs, ours)

    def _do_register(self, name: str, obj: Any) -> None:
        holder = self._obj_map.get(name)
        if name in self._giving_way:
            self._giving_way.remove(name)
            self._log_replacement(name, holder, obj)
        elif holder is not None:
            raise self._taken(name, obj)
        self._obj_map[name] = obj

    def _taken(self, name: str, obj: Any) -> UserValueError:
        return UserValueError(
            f"{self._name} registry: the name {name!r} already belongs to {self._obj_map[name]!r}; "
            f"give {obj!r} another name"
        )

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
