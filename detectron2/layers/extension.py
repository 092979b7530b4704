"""Finds the compiled operators, once, for every file of this package that has one.

An operator lives in `layers/<op>.py` with a plain PyTorch implementation `_<op>_reference`, which defines its
numbers. Where `detectron2._C` was built, it registers faster kernels of the same signature under
`torch.ops.detectron2`; `find_operator` returns one of those when it can serve a device, and otherwise None.
`<op>.py` adds what is said in Python: `fake_kernel`, for tracing without data, and `differentiate`.

Environment: with D2_DISABLE_OPS=1 the compiled operators are not loaded, as if they had not been built.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.jit import TracerWarning  # type: ignore[attr-defined]  # public all the same

from .tracing import is_tracing

BUILD_HINT = (
    "run `pip install --no-build-isolation -e .` in a checkout, with torch and a C++ compiler installed "
    "(and the CUDA toolkit for GPU kernels, or FORCE_CUDA=0 to leave those out)"
)
# What csrc/library.cpp declares.
OPERATORS = (
    "nms",
    "batched_nms",
    "nms_rotated",
    "batched_nms_rotated",
    "box_iou_rotated",
    "roi_align",
    "roi_align_backward",
    "roi_align_rotated",
    "roi_align_rotated_backward",
    "deform_conv",
    "deform_conv_backward",
    "paste_masks",
    "paste_masks_rle",
    "ms_deform_attn",
    "ms_deform_attn_backward",
)

_TURNED_OFF = "turned off by D2_DISABLE_OPS"
_DISPATCH_KEYS = {"cpu": "CPU", "cuda": "CUDA"}

# Operators whose plain PyTorch form torch.jit.trace can follow.
_TRACEABLE = ("paste_masks",)
# Device types of which a warning was given.
_WARNED: set[str] = set()

logger = logging.getLogger(__name__)

_Operator = Callable[..., Any]
_Function = Callable[..., Any]


def library_file() -> Path | None:
    """Find the compiled operators: a file beside the folder `detectron2/_C`, or None where there is none."""
    files = (Path(__file__).parents[1] / f"_C{suffix}" for suffix in EXTENSION_SUFFIXES)
    return next(filter(Path.is_file, files), None)


def _load_library() -> str:
    """Register the compiled operators; return why that was not possible, or an empty string."""
    if os.environ.get("D2_DISABLE_OPS", "0") not in ("", "0"):
        return _TURNED_OFF
    path = library_file()
    if path is None:
        return f"detectron2._C is not built; {BUILD_HINT}"
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return f"detectron2._C is there but does not load ({error}); rebuild it: {BUILD_HINT}"
    return ""


def _find_kernels() -> dict[tuple[str, str], _Operator]:
    """Compiled operators by name and device type; on the device "meta" all have a fake kernel."""
    kernels: dict[tuple[str, str], _Operator] = {}
    for name in OPERATORS:
        packet = getattr(torch.ops.detectron2, name, None)
        if packet is None:  # a library built from older sources
            continue
        kernels[name, "meta"] = packet.default
        for device_type, key in _DISPATCH_KEYS.items():
            if torch._C._dispatch_has_kernel_for_dispatch_key(f"detectron2::{name}", key):
                kernels[name, device_type] = packet.default
    return kernels


_MISSING_REASON = _load_library()
# Filled at import and never changed: torch.compile takes what it finds here for a constant.
_KERNELS = {} if _MISSING_REASON else _find_kernels()


def missing_reason() -> str:
    """Say why there are no compiled operators and how to build them; empty when they are loaded."""
    return _MISSING_REASON


def find_operator(name: str, device: torch.device) -> _Operator | None:
    """Return the compiled operator `name` if it has a kernel for `device`, else None.

    Where there could be kernels but are none, a warning says so, once for the CPU and once for GPUs.
    """
    kernel = _KERNELS.get((name, device.type))
    if kernel is None and not torch.compiler.is_compiling():
        _warn_of_fallback(device.type)
        if is_tracing() and name not in _TRACEABLE:
            warnings.warn(
                f"{name} runs in plain Python here, whose result for the example is a constant of the trace. "
                f"For a program that is right for other inputs, {BUILD_HINT}",
                TracerWarning,
                stacklevel=3,
            )
    return kernel


def _warn_of_fallback(device_type: str) -> None:
    if device_type not in _DISPATCH_KEYS or device_type in _WARNED or _MISSING_REASON == _TURNED_OFF:
        return
    if any(served == device_type for _, served in _KERNELS):
        return  # this operator alone has no kernel there, by design
    _WARNED.add(device_type)
    logger.warning(
        "Operators run on plain PyTorch on the device %r, with the same numbers, but slowly: %s",
        device_type,
        _MISSING_REASON or f"they were built without kernels for it; {BUILD_HINT}",
    )


def fake_kernel(name: str) -> Callable[[_Function], _Function]:
    """Make the decorated function say what the operator `name` returns for tensors without data."""

    def register(function: _Function) -> _Function:
        if (name, "meta") in _KERNELS:
            torch.library.register_fake(f"detectron2::{name}", function)
        return function

    return register


def differentiate(name: str, backward: _Function, setup_context: _Function) -> None:
    """Attach a backward pass to the operator `name`, if it is there; and to that pass the end of the road."""
    if (name, "meta") not in _KERNELS:
        return
    torch.library.register_autograd(f"detectron2::{name}", backward, setup_context=setup_context)

    def fail(ctx: Any, *grads: Tensor) -> None:
        raise RuntimeError(f"{name} can be differentiated once; there is no gradient of its gradient")

    torch.library.register_autograd(f"detectron2::{name}_backward", fail)


def needs_determinism(*tensors: Tensor | None) -> bool:
    """Tell whether gradients of these must come out the same every time, where a CUDA kernel's would not.

    Its atomic additions end in no fixed order. The plain PyTorch implementations are made of operators for
    which torch knows what `torch.use_deterministic_algorithms` asks of them, so they take over.
    """
    return (
        torch.are_deterministic_algorithms_enabled()
        and torch.is_grad_enabled()
        and any(t is not None and t.is_cuda and t.requires_grad for t in tensors)
    )


def is_concrete(tensor: Tensor) -> bool:
    """Tell whether Python may look at sizes and values, for which tracing puts symbols."""
    is_recorded = torch.compiler.is_compiling() or is_tracing()
    return not is_recorded and type(tensor) in (Tensor, torch.nn.Parameter)
