"""Help for tracing (`patch_builtin_len`), and names of what `torch.jit.script` needed, which is left out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .compat_names import freeze_training_mode as freeze_training_mode
from .compat_names import patch_instances as patch_instances
from .compat_names import patch_nonscriptable_classes as patch_nonscriptable_classes

__all__ = ["freeze_training_mode", "patch_builtin_len", "patch_instances", "patch_nonscriptable_classes"]


@contextmanager
def patch_builtin_len(modules: Sequence[str] = ()) -> Iterator[None]:
    """Within the context, `len` in some modules gives what `__len__` returns, which a tracer may follow.

    The builtin makes a plain number of it, and a trace keeps that number. Models of this package need no such
    help.

    Args:
        modules: names of imported modules in whose code `len` is replaced.
    """

    def length(obj: Any) -> Any:
        return obj.__len__()

    patched = [sys.modules[name] for name in modules]
    before = [vars(module).get("len") for module in patched]
    for module in patched:
        vars(module)["len"] = length
    try:
        yield
    finally:
        for module, original in zip(patched, before):
            if original is None:
                del vars(module)["len"]
            else:
                vars(module)["len"] = original
