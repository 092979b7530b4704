"""Is this code running for real, or being recorded by torch.fx?"""

from __future__ import annotations

import torch
from torch import Tensor, fx
from torch.fx._symbolic_trace import is_fx_tracing as _is_fx_tracing

from .env import TORCH_VERSION as TORCH_VERSION

__all__ = ["assert_fx_safe", "is_fx_tracing", "is_fx_tracing_legacy"]


def is_fx_tracing_legacy() -> bool:
    """Return whether torch.fx is recording, told from its patch of `Module.__getattr__`.

    Kept for code that names it; `is_fx_tracing` asks torch itself.
    """
    return torch.nn.Module.__getattr__ is not _UNPATCHED_GETATTR


_UNPATCHED_GETATTR = torch.nn.Module.__getattr__


def is_fx_tracing() -> bool:
    """Return whether torch.fx is recording this code."""
    return _is_fx_tracing()


def assert_fx_safe(condition: bool | Tensor | fx.Proxy, message: str) -> Tensor | fx.Proxy:
    """Assert something that torch.fx may record.

    Args:
        condition: while torch.fx records, a proxy whose value is not known yet; the assertion becomes part of
            the graph.
        message: what went wrong.

    Returns:
        A tensor that holds True, or while recording the node of the assertion.
    """
    if isinstance(condition, fx.Proxy):
        node: fx.Proxy = torch._assert(condition, message)
        return node  # recorded, not run
    assert condition, message
    return torch.ones(())


# The name under which others' code imports it.
_do_assert_fx_safe = assert_fx_safe
