"""What a checkpoint says about itself, so that it can be used without the files that it was trained with.

Under the top-level key `detectron2`, which loaders that do not know it ignore, a `.pth` file has a dict of
plain data: `versions` of this package and torch, and where the trainer knows them `config`, the whole config
as YAML text, and `metadata`, the names and colours of the classes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

import detectron2
from detectron2.utils.file_io import PathManager
from detectron2.utils.user_errors import UserFileNotFoundError, UserTypeError, suggest_files

from .reading import read_checkpoint_file

__all__ = ["NOTES_KEY", "plain_data", "read_notes", "versions"]

NOTES_KEY = "detectron2"


def versions() -> dict[str, str]:
    """Return the versions of this package and of torch."""
    return {"detectron2": detectron2.__version__, "torch": str(torch.__version__)}


def plain_data(value: Any) -> Any:
    """Return containers, strings and numbers as such, without the classes that a safe reader refuses.

    Raises:
        TypeError: there is something else in it.
    """
    if isinstance(value, Mapping):
        return {plain_data(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return (
            type(value)(map(plain_data, value)) if type(value) in (list, tuple) else [*map(plain_data, value)]
        )
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if hasattr(value, "tolist"):  # NumPy's arrays and numbers, tensors
        return plain_data(value.tolist())
    raise UserTypeError(f"a {type(value).__name__} is not plain data")


def read_notes(path: str) -> dict[str, Any]:
    """Read what a checkpoint says about itself; empty for files of other packages.

    Args:
        path: a file or address.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged.
    """
    local_path = PathManager.get_local_path(path)
    if not os.path.isfile(local_path):
        raise UserFileNotFoundError(f"there is no checkpoint {path}.{suggest_files(path)}")
    notes = read_checkpoint_file(local_path).get(NOTES_KEY)
    return notes if isinstance(notes, dict) else {}
