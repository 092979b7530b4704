"""Pickling of what plain pickle refuses."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
from typing import Any

__all__ = ["PicklableWrapper"]


class PicklableWrapper:
    """Wrap a callable so that it can be sent to another process; used like the callable itself.

    Lambdas and local functions need the package cloudpickle; what plain pickle can do works without it.
    """

    def __init__(self, obj: Any) -> None:
        # A wrapper of a wrapper is a wrapper.
        self._obj: Any = obj._obj if isinstance(obj, PicklableWrapper) else obj

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (_pickle(self._obj),)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._obj(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "_obj":  # while unpickling, before there is one
            raise AttributeError(name)
        return getattr(self._obj, name)


def _pickle(obj: Any) -> bytes:
    # Optional: only lambdas and local functions need it.
    if importlib.util.find_spec("cloudpickle") is not None:
        data: bytes = importlib.import_module("cloudpickle").dumps(obj)
        return data
    try:
        return pickle.dumps(obj)
    except (pickle.PicklingError, AttributeError, TypeError) as e:
        raise pickle.PicklingError(
            f"cannot send {obj!r} to another process ({e}); use a module-level function instead of a "
            "lambda or local function, or install cloudpickle"
        ) from e


def _unpickle(data: bytes) -> PicklableWrapper:
    return PicklableWrapper(pickle.loads(data))
