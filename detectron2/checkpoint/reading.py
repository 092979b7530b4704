"""Reading checkpoint files of every known format, none of which can run code.

A checkpoint is a dict with the tensors under "model", whatever else its writer saved beside them, and notes
for loading: `matching_heuristics` (names are matched by their endings) and `__author__`.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import safetensors
import torch

from detectron2.utils import safe_pickle
from detectron2.utils.user_errors import UserValueError

__all__ = ["CheckpointFileError", "read_checkpoint_file"]

# Keys that other packages save a model under, in order of precedence.
_MODEL_KEYS = ("model", "state_dict", "model_state", "model_state_dict")

_CHUNK_BYTES = 1 << 20
_FOLDER_BIT = 0x10  # among the attributes of a part of an archive
_ZIP_MAGIC = b"PK\x03\x04"


class CheckpointFileError(UserValueError):
    """A file is no checkpoint that can be read."""


def read_checkpoint_file(path: str) -> dict[str, Any]:
    """Read a `.pkl`, `.safetensors` or torch file (any other suffix) from the local disk.

    Raises:
        CheckpointFileError: the file is damaged, empty, of another kind, or holds objects that are not
            plain data.
    """
    size = os.path.getsize(path)
    if size == 0:
        raise CheckpointFileError(f"{path} is empty (0 bytes)")
    try:
        if path.endswith(".safetensors"):
            return _read_safetensors(path)
        if path.endswith(".pkl"):
            return _read_pickle(path)
        return _read_torch(path)
    except CheckpointFileError:
        raise
    except Exception as error:  # torch and safetensors raise nearly anything on damaged files
        raise CheckpointFileError(_describe_failure(path, size, error)) from error


def _describe_failure(path: str, size: int, error: Exception) -> str:
    message = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    reason = f"{type(error).__name__}: {_first_sentence(message)}"
    refused = re.search(r"GLOBAL ([\w.]+)", str(error))
    if refused:
        return (
            f"{path} holds objects that could run code when they are loaded ({refused[1]});"
            " save it again with only tensors, numbers, strings and containers in it"
        )
    return f"{path} ({size} bytes) is no checkpoint: it is damaged, cut off or of another kind ({reason})"


def _first_sentence(message: str) -> str:
    return re.split(r"\.\s|\n", message, maxsplit=1)[0]


def _read_safetensors(path: str) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="pt") as file:
        notes = file.metadata() or {}
        model = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it does not iterate
    checkpoint: dict[str, Any] = {"model": model}
    if notes.get("matching_heuristics") == "True":
        checkpoint["matching_heuristics"] = True
    if "__author__" in notes:
        checkpoint["__author__"] = notes["__author__"]
    return checkpoint


def _read_pickle(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        data = _require_dict(safe_pickle.load(file), path)
    if "model" in data and "__author__" in data:
        return data
    # Caffe2 and Detectron save bare blobs, momentum of the optimizer among them.
    blobs = _require_dict(data.get("blobs", data), path)
    if "model" in data and isinstance(data["model"], Mapping):
        return data
    model = {name: value for name, value in blobs.items() if not str(name).endswith("_momentum")}
    return {"model": model, "__author__": "Caffe2", "matching_heuristics": True}


def _read_torch(path: str) -> dict[str, Any]:
    _verify_checksums(path)
    with torch.serialization.safe_globals(safe_pickle.numpy_scalar_globals()):
        data = _require_dict(torch.load(path, map_location="cpu", weights_only=True), path)
    key = next((key for key in _MODEL_KEYS if isinstance(data.get(key), Mapping)), None)
    if key is None:
        return {"model": data}
    if key != "model":
        # Other packages' names; their optimizer states and counters mean nothing to a run of ours.
        return {"model": data[key]} | ({"matching_heuristics": True} if key == "model_state" else {})
    return data


def _verify_checksums(path: str) -> None:
    """Compare the parts of a torch archive with their checksums, which torch writes and does not look at.

    Raises:
        CheckpointFileError: a part is not what was written.
    """
    with open(path, "rb") as file:
        if file.read(len(_ZIP_MAGIC)) != _ZIP_MAGIC:
            return  # the format of torch before 1.6, which has none; or no archive at all, as torch will say
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            # Torch can be told to leave checksums out, and writes 0 then.
            if part.CRC and not _is_as_written(archive, part):
                raise CheckpointFileError(
                    f"{path} is damaged: its part {part.filename} does not agree with its checksum. Copy or"
                    " download it again."
                )


def _is_as_written(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> bool:
    if part.external_attr & _FOLDER_BIT and part.file_size:
        return False  # torch would take what happens to be in its memory for the content
    try:
        with archive.open(part) as file:
            while file.read(_CHUNK_BYTES):
                pass
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError):
        return False
    return True


def _require_dict(data: Any, path: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise CheckpointFileError(f"{path} must hold a dict of tensors, it holds a {type(data).__name__}")
    return data
