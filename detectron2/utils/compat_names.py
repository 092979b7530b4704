"""Names that other people's code takes from modules of this package, and that nothing of ours uses.

These modules import theirs from here, each in one line, since the `__init__` of `utils` loads nothing.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
from typing import IO, Any

from .file_io import PathManager

LOG_BUFFER_SIZE_KEY = "D2_LOG_BUFFER_SIZE"
DEFAULT_LOG_BUFFER_SIZE = 1024 * 1024


def log_stream_buffer_size(filename: str) -> int:
    """What a log file collects before it writes: a line, or on remote storage D2_LOG_BUFFER_SIZE bytes."""
    return int(os.environ.get(LOG_BUFFER_SIZE_KEY, DEFAULT_LOG_BUFFER_SIZE)) if "://" in filename else 1


@functools.cache
def cached_log_stream(filename: str) -> IO[Any]:
    """Open a log file to append to; a second call gives the same stream."""
    stream: IO[Any] = PathManager.open(filename, "a", buffering=log_stream_buffer_size(filename))
    return stream


def log_api_usage(identifier: str) -> None:
    """Do nothing; code copied from earlier versions tells torch's telemetry by it what is used."""


class ColorfulFormatter(logging.Formatter):
    """Abbreviate the root of logger names, and mark warnings (red) and errors (underlined) for a terminal.

    Args:
        *args, **kwargs: of `logging.Formatter`, and
        root_name: the logger whose name is abbreviated; "" for none.
        abbrev_name: what stands for it.
    """

    def __init__(self, *args: Any, root_name: str = "", abbrev_name: str = "", **kwargs: Any) -> None:
        self._root_name = root_name
        self._abbrev_name = abbrev_name
        super().__init__(*args, **kwargs)

    def formatMessage(self, record: logging.LogRecord) -> str:
        shown = logging.makeLogRecord(vars(record))  # other handlers see the record as it is
        is_below = f"{record.name}.".startswith(f"{self._root_name}.")
        if self._root_name and is_below:
            shown.name = (self._abbrev_name + record.name.removeprefix(self._root_name)).strip(".")
        text = super().formatMessage(shown)
        if record.levelno < logging.WARNING:
            return text
        style, label = ("31", "WARNING") if record.levelno == logging.WARNING else ("4;31", "ERROR")
        return f"\033[{style}m{label}\033[0m {text}"


def configure_libraries() -> None:
    """Keep OpenCV off OpenCL, which costs memory on every GPU and gains nothing here."""
    os.environ["OPENCV_OPENCL_RUNTIME"] = "disabled"
    try:
        cv2 = importlib.import_module("cv2")
    except ModuleNotFoundError:
        return
    cv2.ocl.setUseOpenCL(False)


def convert_target_to_string(t: Any) -> str:
    """The shortest dotted path by which a class or function can be imported.

    Args:
        t: has `__module__` and `__qualname__`.
    """
    module, name = t.__module__, t.__qualname__
    packages = module.split(".")
    for length in range(1, len(packages)):
        short = ".".join(packages[:length])
        try:
            found = functools.reduce(getattr, name.split("."), importlib.import_module(short))
        except (ImportError, AttributeError):
            continue
        if found is t:
            return f"{short}.{name}"
    return f"{module}.{name}"
