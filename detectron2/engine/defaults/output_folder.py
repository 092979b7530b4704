"""The folder of a run: writable, and of one run alone.

A run that does not resume leaves the files of an earlier one as they are: where its folder is in use it goes
to the next one, `output_2` for `output`.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any

from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

__all__ = ["choose_output_folder", "make_writable_folder", "set_output_folder", "tell_of_other_folder"]

logger = logging.getLogger(__name__)

# What a training run leaves behind; logs and a config alone are those of a run that never started.
_TRACE = re.compile(r"metrics\.json|last_checkpoint|model_(final|best|\d{7,})\.pth")

# Scripts may prepare one folder several times: what this process has begun there is its own run.
_folders_of_this_process: set[str] = set()


def choose_output_folder(folder: str, *, starts_anew: bool) -> str:
    """Return the folder that a run writes to, the same in all processes. All of them must call it.

    Args:
        folder: what the config says.
        starts_anew: the run trains and does not resume. Only then another folder may be taken.
    """
    if not starts_anew:
        # To evaluate or to resume somebody's run does not make it one that may be written over.
        if not _find_traces(folder):
            _folders_of_this_process.add(os.path.abspath(folder))
        return folder
    chosen = folder
    if comm.is_main_process():
        chosen = next(name for name in _numbered(folder) if _is_own(name) or not _find_traces(name))
        _folders_of_this_process.add(os.path.abspath(chosen))
    first: str = comm.all_gather(chosen)[0]
    return first


def _numbered(folder: str) -> Iterator[str]:
    """The folder itself, then `folder_2` and so on."""
    yield folder
    stem = folder.rstrip("/")
    if os.path.basename(stem) in ("", ".", ".."):  # they name a folder, but not what it is called
        stem = os.path.abspath(folder)
    yield from (f"{stem}_{number}" for number in itertools.count(2))


def _is_own(folder: str) -> bool:
    return os.path.abspath(folder) in _folders_of_this_process


def _find_traces(folder: str) -> list[str]:
    """Names of the files that a training run has left in a folder."""
    if not PathManager.isdir(folder):
        return []
    return sorted(name for name in PathManager.ls(folder) if _TRACE.fullmatch(os.path.basename(name)))


def tell_of_other_folder(asked: str, chosen: str) -> None:
    """Warn where a run does not write to the folder that the config names."""
    if asked == chosen:
        return
    logger.warning(
        "%s holds an earlier run (%s), which stays as it is: this one writes to %s. --resume continues it.",
        asked,
        ", ".join(_find_traces(asked)[:3]),
        chosen,
    )


def make_writable_folder(path: str) -> None:
    """Find out before hours of training, and not at the first checkpoint, that nothing can be written.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    try:
        PathManager.mkdirs(path)
        if os.path.isdir(path):  # a path manager may keep the folder elsewhere
            with tempfile.TemporaryFile(dir=path):
                pass
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(
            error.errno or errno.EACCES,
            f"The output folder cannot be written to ({reason}). Set OUTPUT_DIR to another folder. The "
            "folder is",
            path,
        ) from error


def set_output_folder(cfg: Any, folder: str) -> None:
    """Put the folder into a config, a frozen one too: everything later in the run reads it there."""
    if "OUTPUT_DIR" in cfg:
        cfg["OUTPUT_DIR"] = folder
    else:
        cfg.train.output_dir = folder
