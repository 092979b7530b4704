"""What code has to mind while torch.jit.trace records it.

Sizes of tensors are 0-d tensors then, and stay variables of the traced program as long as Python does not
look at them: `len`, `int`, `min`, a comparison or a loop over a range turns them into constants of the
example, and the program is wrong for other sizes.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.jit import TracerWarning  # type: ignore[attr-defined]  # public all the same

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def is_tracing() -> bool:
    """Tell whether torch.jit.trace is recording this very call.

    Code that looks at sizes or values to check them, or to take a short cut, is left out then.
    """
    answer: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]  # public
    return answer


def fixed_size(x: Tensor, dim: int) -> int:
    """Return a size that the model decides, not its inputs, as an int: a constant of a trace."""
    if not is_tracing():
        return x.shape[dim]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TracerWarning)
        return int(x.shape[dim])


def constant_like(values: Sequence[float], like: Tensor) -> Tensor:
    """Make a 1-D tensor of numbers that depend on no input, with the dtype and device of another."""
    return constant(values, like.dtype, like.device)


def constant(
    values: Sequence[float], dtype: torch.dtype | None = None, device: torch.device | None = None
) -> Tensor:
    """Make a 1-D tensor of numbers that depend on no input, without the warning that a trace keeps them."""
    if not is_tracing():
        return torch.tensor(values, dtype=dtype, device=device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TracerWarning)
        return torch.tensor(values, dtype=dtype, device=device)


def script_in_traces(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Make a function with loops or Python numbers part of a trace: compiled there, called elsewhere.

    Args:
        function: written in what torch.jit.script understands.
    """

    @functools.wraps(function)
    def run(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        if not is_tracing():
            return function(*args, **kwargs)
        with warnings.catch_warnings():
            # Who traces has been told already that torch would rather have torch.export used.
            warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
            compiled: Any = torch.jit.script(function)
        result: _Result = compiled(*args, **kwargs)
        return result

    return run
