"""`configurable`: one signature of plain arguments, and a second way in through a config."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar, overload

from fvcore.common.config import CfgNode as _CfgNode

from detectron2.utils.user_errors import UserTypeError

__all__ = ["configurable"]

_F = TypeVar("_F", bound=Callable[..., Any])
_R = TypeVar("_R")


@overload
def configurable(init_func: _F) -> Callable[..., Any]: ...
@overload
def configurable(*, from_config: Callable[..., Any]) -> Callable[[Callable[..., _R]], Callable[..., _R]]: ...


def configurable(init_func: Any = None, *, from_config: Any = None) -> Any:
    """Let a class or function be called with a config instead of its own arguments.

    On a class it decorates `__init__`; a classmethod `from_config(cls, cfg, ...)` makes the arguments:

        class Head(nn.Module):
            @configurable
            def __init__(self, *, in_channels: int, prior: float = 0.01) -> None: ...

            @classmethod
            def from_config(cls, cfg, input_shape) -> dict:
                return {"in_channels": input_shape.channels, "prior": cfg.MODEL.PRIOR}

        Head(in_channels=8)                # as written
        Head(cfg, input_shape)             # through from_config
        Head(cfg, input_shape, prior=0.1)  # the same, one argument replaced

    On a function, `@configurable(from_config=f)` uses `f(cfg, ...)` instead of the classmethod.

    The config is the first positional argument or the keyword `cfg`, a `CfgNode` or an omegaconf
    `DictConfig`. Keywords that `from_config` does not take replace what it returned.

    Raises:
        TypeError: it is applied to something else, or `from_config` does not start with the argument `cfg`.
    """
    if init_func is not None:
        if from_config is not None or not inspect.isfunction(init_func) or init_func.__name__ != "__init__":
            raise UserTypeError(
                "@configurable without arguments decorates __init__; for a function write "
                "@configurable(from_config=...)"
            )
        return _configurable_init(init_func)
    if from_config is None:
        return configurable
    if not inspect.isfunction(from_config) and not inspect.ismethod(from_config):
        raise UserTypeError(f"from_config must be a function that takes cfg, got {from_config!r}")

    def decorate(function: Callable[..., _R]) -> Callable[..., _R]:
        if inspect.isclass(function) or function.__name__ == "__init__":
            raise UserTypeError(
                "for a class, decorate its __init__ with plain @configurable and define from_config"
            )

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> _R:
            if has_config(args, kwargs):
                return function(**arguments_from_config(from_config, args, kwargs))
            return function(*args, **kwargs)

        call.from_config = from_config  # type: ignore[attr-defined]  # callers may ask for the arguments alone
        return call

    return decorate


def _configurable_init(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def call(self: Any, *args: Any, **kwargs: Any) -> None:
        # Looked up at every call: a subclass may bring its own.
        from_config = getattr(type(self), "from_config", None)
        if from_config is None:
            raise AttributeError(
                f"{type(self).__name__} decorates __init__ with @configurable, so it needs a "
                "classmethod from_config"
            )
        if not inspect.ismethod(from_config):
            raise UserTypeError(f"{type(self).__name__}.from_config must be a classmethod")
        if has_config(args, kwargs):
            init(self, **arguments_from_config(from_config, args, kwargs))
        else:
            init(self, *args, **kwargs)

    return call


def _is_config(value: Any) -> bool:
    if isinstance(value, _CfgNode):
        return True
    # A DictConfig can only exist where somebody imported omegaconf.
    omegaconf = sys.modules.get("omegaconf")
    return omegaconf is not None and isinstance(value, omegaconf.DictConfig)


def has_config(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether a call gives a config, which is the first argument or `cfg`."""
    return _is_config(args[0] if args else None) or _is_config(kwargs.get("cfg"))


def arguments_from_config(
    from_config: Callable[..., dict[str, Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """What `from_config` returns, overridden by the keywords that it does not take."""
    parameters = inspect.signature(from_config).parameters
    name = f"{getattr(from_config, '__self__', None) or ''}{from_config.__name__}"
    if next(iter(parameters), None) != "cfg":
        raise UserTypeError(
            f"{name} must take cfg as its first argument, its arguments are {list(parameters)}"
        )
    kinds = {parameter.kind for parameter in parameters.values()}
    if inspect.Parameter.VAR_POSITIONAL in kinds or inspect.Parameter.VAR_KEYWORD in kinds:
        arguments, overrides = kwargs, {}
    else:
        arguments = {key: value for key, value in kwargs.items() if key in parameters}
        overrides = {key: value for key, value in kwargs.items() if key not in parameters}
    return {**from_config(*args, **arguments), **overrides}
