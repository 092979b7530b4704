"""What to do when a GPU is full."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["retry_if_cuda_oom"]

logger = logging.getLogger(__name__)

_F = TypeVar("_F", bound=Callable[..., Any])


def _ignore_torch_cuda_oom() -> AbstractContextManager[None]:
    """Go on behind the block when the GPU was too full for it; projects import it."""
    return contextlib.suppress(torch.OutOfMemoryError)


def retry_if_cuda_oom(func: _F) -> _F:
    """Make a function survive a full GPU: try again with the cache emptied, then on the CPU.

    On the CPU the function gets CPU copies of those of its arguments that are CUDA tensors, and its result
    stays there: the caller must accept a result on either device. Tensors inside lists or dictionaries are
    not moved. The function must be free of side effects, since it may run three times.

    Args:
        func: the function; its arguments may be anything.
    """

    @functools.wraps(func)
    def with_retries(*args: Any, **kwargs: Any) -> Any:
        with _ignore_torch_cuda_oom():  # the traceback holds tensors: retry after it is gone
            return func(*args, **kwargs)
        torch.cuda.empty_cache()
        with _ignore_torch_cuda_oom():
            return func(*args, **kwargs)
        logger.info("The GPU is too full for %s; running it on the CPU", getattr(func, "__qualname__", func))
        return func(*map(_to_cpu, args), **{name: _to_cpu(value) for name, value in kwargs.items()})

    return with_retries  # type: ignore[return-value]  # same signature as func


def _to_cpu(value: Any) -> Any:
    return value.to(device="cpu") if isinstance(value, Tensor) and value.is_cuda else value
