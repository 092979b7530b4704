"""Stand-ins for classes and functions whose optional dependency is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .user_errors import UserImportError

__all__ = ["create_dummy_class", "create_dummy_func"]


def create_dummy_class(klass: str, dependency: str | Sequence[str], message: str = "") -> type:
    """Make a class that can be imported and named, and raises ImportError as soon as it is used.

    Args:
        klass: name of the class that it stands for.
        dependency: what has to be installed.
        message: a further sentence for the error.
    """
    error = _describe(klass, dependency, message)

    class _DummyMeta(type):
        def __getattr__(cls, name: str) -> NoReturn:
            raise UserImportError(error)

    def refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise UserImportError(error)

    return _DummyMeta(klass, (), {"__init__": refuse, "__doc__": error})


def create_dummy_func(
    func: str, dependency: str | Sequence[str], message: str = ""
) -> Callable[..., NoReturn]:
    """Make a function that raises ImportError when it is called; arguments as in `create_dummy_class`."""
    error = _describe(func, dependency, message)

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise UserImportError(error)

    refuse.__name__ = func
    return refuse


def _describe(name: str, dependency: str | Sequence[str], message: str) -> str:
    needed = dependency if isinstance(dependency, str) else " and ".join(dependency)
    return f"{name} needs {needed}, which cannot be imported; install it. {message}".rstrip()
