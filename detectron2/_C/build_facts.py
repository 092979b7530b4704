"""How the compiled operators were built, read from the library itself."""

from __future__ import annotations

import re

import torch

from detectron2.layers.extension import find_operator, library_file

# Compilers sign what they make: "GCC: (distribution) 12.2.0" or "distribution clang version 15.0.1".
_COMPILER_NOTE = re.compile(rb"(?:(GCC): \([^)\0]*\)|(clang) version) ([\d.]+)")


def has_cuda() -> bool:
    """Tell whether the operators were built with kernels for CUDA."""
    return find_operator("nms", torch.device("cuda")) is not None


def get_compiler_version() -> str:
    """Name the compiler of the operators, such as "GCC 12.2.0"; "unknown" where there are none."""
    path = library_file()
    note = _COMPILER_NOTE.search(path.read_bytes()) if path is not None else None
    return " ".join(part.decode() for part in note.groups() if part) if note is not None else "unknown"


def get_cuda_version() -> str:
    """Name the CUDA that the operators run with, such as "CUDA 12.8"; "not available" where there is none.

    The library is linked to no version of its own: it takes the one of the torch that loads it.
    """
    return f"CUDA {torch.version.cuda}" if has_cuda() and torch.version.cuda else "not available"
