"""Questions about the running torch."""

from __future__ import annotations

import re

import torch

from .user_errors import UserValueError

__all__ = ["min_torch_version"]


def min_torch_version(min_version: str) -> bool:
    """Return whether torch is at least of this version; a pre-release counts as its release."""
    return _numbers(torch.__version__) >= _numbers(min_version)


def _numbers(version: str) -> tuple[int, ...]:
    """ "2.13.0a0+cpu" -> (2, 13, 0)."""
    parts = re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?", version)
    if parts is None:
        raise UserValueError(f"expected a version such as '2.4' or '2.13.0', got {version!r}")
    return tuple(int(part or 0) for part in parts.groups())
