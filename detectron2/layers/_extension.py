"""Finds the compiled operators, once, for every file of this package that has one.

An operator lives in `layers/<op>.py` with a plain PyTorch implementation `_<op>_reference`, which defines its
numbers. Where `detectron2._C` was built, it registers faster kernels of the same signature under
`torch.ops.detectron2`; `find_operator` returns one of those when it can serve a device, and otherwise None.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch

BUILD_HINT = (
    "run `pip install --no-build-isolation -e .` in a checkout, with torch and a C++ compiler installed "
    "(and the CUDA toolkit for GPU kernels, or FORCE_CUDA=0 to leave those out)"
)

_LIBRARY = "detectron2._C"
_DISPATCH_KEYS = {"cpu": "CPU", "cuda": "CUDA"}


def _load_library() -> str:
    """Register the compiled operators; return why that was not possible, or an empty string."""
    if importlib.util.find_spec(_LIBRARY) is None:
        return f"{_LIBRARY} is not built; {BUILD_HINT}"
    try:
        importlib.import_module(_LIBRARY)
    except ImportError as error:
        return f"{_LIBRARY} is there but does not load ({error}); rebuild it: {BUILD_HINT}"
    return ""


_MISSING_REASON = _load_library()
_operators: dict[tuple[str, str], Callable[..., Any] | None] = {}


def missing_reason() -> str:
    """Say why there are no compiled operators and how to build them; empty when they are loaded."""
    return _MISSING_REASON


def find_operator(name: str, device: torch.device) -> Callable[..., Any] | None:
    """Return the compiled operator `name` if it has a kernel for `device`, else None."""
    if _MISSING_REASON:
        return None
    key = (name, device.type)
    if key not in _operators:
        _operators[key] = _look_up(name, device.type)
    return _operators[key]


def _look_up(name: str, device_type: str) -> Callable[..., Any] | None:
    packet = getattr(torch.ops.detectron2, name, None)
    dispatch_key = _DISPATCH_KEYS.get(device_type)
    if packet is None or dispatch_key is None:
        return None
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key(f"detectron2::{name}", dispatch_key)
    return packet if has_kernel else None
