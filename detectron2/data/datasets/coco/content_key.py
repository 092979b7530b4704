"""A digest of a data set, which tells whether a file that was made from it still belongs to it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from detectron2.data.catalog import Metadata

_FORM = 1  # goes up with what is written for the same records
_META_KEYS = ("thing_classes", "thing_dataset_id_to_contiguous_id")


def content_key(records: Sequence[Mapping[str, Any]], metadata: Metadata) -> str:
    """Return a text that differs when the data set, its classes or the PNGs of its masks do.

    Args:
        records: data set dicts.
        metadata: of the data set.

    Returns:
        A digest; empty where a value of the records cannot be put into one, so that nothing equals it.
    """
    digest = hashlib.sha256(f"{_FORM}".encode())
    try:
        for key in _META_KEYS:
            digest.update(_as_text(metadata.get(key)))
        for record in records:
            digest.update(_as_text(record))
            if "pan_seg_file_name" in record:
                digest.update(_as_text(_state_of_file(record["pan_seg_file_name"])))
    except (TypeError, ValueError):
        return ""
    return digest.hexdigest()


def _as_text(value: Any) -> bytes:
    if isinstance(value, Mapping):  # as pairs: names of keys may be numbers
        value = [*value.items()]
    return json.dumps(value, default=_plain).encode()


def _plain(value: Any) -> Any:
    """What JSON has no form for, as something that it has one for."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype != object:
        pixels = np.ascontiguousarray(value)
        return [str(pixels.dtype), pixels.shape, hashlib.sha256(pixels.tobytes()).hexdigest()]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no digest")


def _state_of_file(path: str) -> list[int]:
    """Size and time stamp; nothing for what does not lie on a disk."""
    if not os.path.isfile(path):
        return []
    state = os.stat(path)
    return [state.st_size, state.st_mtime_ns]
