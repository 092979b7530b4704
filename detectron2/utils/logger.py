"""Logging: one coloured console handler, one file per process, messages that are said only now and then."""

from __future__ import annotations

import copy
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import IO, Any

from detectron2.utils.file_io import PathManager

from .compat_names import DEFAULT_LOG_BUFFER_SIZE as DEFAULT_LOG_BUFFER_SIZE
from .compat_names import LOG_BUFFER_SIZE_KEY as D2_LOG_BUFFER_SIZE_KEY  # noqa: F401  # for others' code
from .compat_names import ColorfulFormatter as _ColorfulFormatter  # noqa: F401  # for others' code
from .compat_names import cached_log_stream as _cached_log_stream  # noqa: F401  # for others' code
from .compat_names import log_api_usage as _log_api_usage  # noqa: F401  # for others' code
from .compat_names import log_stream_buffer_size as _get_log_stream_buffer_size  # noqa: F401  # for others' code
from .user_errors import UserValueError, is_for_user

__all__ = [
    "DETAILS",
    "create_small_table",
    "log_every_n",
    "log_every_n_seconds",
    "log_first_n",
    "setup_logger",
]

DETAILS = {"has_details": True}
"""`extra` of messages of many lines for those who look for them: the console shows the first line."""

_PLAIN_FORMAT = "[%(asctime)s] %(name)s %(levelname)s: %(message)s"
_COLORS = {"green": 32, "yellow": 33, "red": 31}


_BLINK, _UNDERLINE = 5, 4


def _paint(text: str, color: str, *attributes: int) -> str:
    codes = (*reversed(attributes), _COLORS[color])
    return "".join(f"\033[{code}m" for code in codes) + f"{text}\033[0m"


class _Formatter(logging.Formatter):
    """Shorten the root of the names of loggers below it."""

    def __init__(self, fmt: str, *, root_name: str, abbrev_name: str) -> None:
        super().__init__(fmt, datefmt="%m/%d %H:%M:%S")
        self._root_name = root_name
        self._abbrev_name = abbrev_name

    def formatMessage(self, record: logging.LogRecord) -> str:
        full_name = record.name
        if full_name.startswith(self._root_name + "."):
            record.name = (self._abbrev_name + full_name[len(self._root_name) :]).strip(".")
        try:
            return super().formatMessage(record)
        finally:
            record.name = full_name  # other handlers see the same record


class _ConsoleFormatter(_Formatter):
    """Lines without levels but for warnings and errors, in colour on a terminal.

    The traceback of an error that the user can mend is left out: the message says what to do. Of `DETAILS`
    the first line is shown where a log file has the rest.
    """

    def __init__(self, *, root_name: str, abbrev_name: str, has_levels: bool, colored: bool) -> None:
        prefix = "[%(asctime)s %(name)s]: "
        fmt = (
            _PLAIN_FORMAT if has_levels else (_paint(prefix, "green") if colored else prefix) + "%(message)s"
        )
        super().__init__(fmt, root_name=root_name, abbrev_name=abbrev_name)
        self._has_levels = has_levels
        self._colored = colored

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        if self._has_levels or record.levelno < logging.WARNING:
            return text
        is_error = record.levelno > logging.WARNING
        label, attributes = ("ERROR", (_BLINK, _UNDERLINE)) if is_error else ("WARNING", (_BLINK,))
        return f"{_paint(label, 'red', *attributes) if self._colored else label} {text}"

    def format(self, record: logging.LogRecord) -> str:
        if getattr(record, "has_details", False):
            record = self._shorten(record)
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and is_for_user(error):
            record = copy.copy(record)  # other handlers see the same record, and write all of it
            record.exc_info = record.exc_text = None
        return super().format(record)

    def _shorten(self, record: logging.LogRecord) -> logging.LogRecord:
        handlers = logging.getLogger(self._root_name).handlers
        path = next((handler.log_path for handler in handlers if isinstance(handler, _LogFileHandler)), None)
        first, *rest = record.getMessage().splitlines()
        if path is None or not rest:
            return record
        short = copy.copy(record)
        short.msg, short.args = "%s %d lines in %s", (first, len(rest), path)
        return short


class _StdoutHandler(logging.StreamHandler):  # type: ignore[type-arg]  # not subscriptable in Python 3.10
    """Write to whatever `sys.stdout` is at the moment, so that a replaced stdout is followed."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stdout

    @stream.setter
    def stream(self, value: Any) -> None:
        raise AttributeError("this handler always follows sys.stdout")


class _LogFileHandler(logging.FileHandler):
    """Append to a log file through the path manager; `logging` closes it at exit."""

    def __init__(self, path: str) -> None:
        self.log_path = path
        super().__init__(path, mode="a", encoding="utf-8")

    def _open(self) -> IO[Any]:  # type: ignore[override]  # a path manager may return any text stream
        # Remote storage may charge for every flush, so lines are collected there.
        remote = "://" in self.log_path
        file: IO[Any] = PathManager.open(self.log_path, "a", buffering=1024 * 1024 if remote else -1)
        return file


def setup_logger(
    output: str | None = None,
    distributed_rank: int = 0,
    *,
    color: bool = True,
    name: str = "detectron2",
    abbrev_name: str | None = None,
    enable_propagation: bool = False,
    configure_stdout: bool = True,
) -> logging.Logger:
    """Give a logger its handlers: the console on the main process, a file on every process.

    Calling it again adds what is new and repeats nothing.

    Args:
        output: a file ending in ".txt" or ".log", or a folder for "log.txt"; None writes no file. Processes
            other than 0 append ".rankN" to the file name.
        distributed_rank: rank of this process; only 0 writes to the console.
        color: write `[time name]: message` to the console, in colour if that is a terminal. Without it the
            console gets the lines of the file, `[time] name LEVEL: message`.
        name: the logger.
        abbrev_name: stands for `name` in the lines; "" leaves it out. None takes "d2" for detectron2, else
            `name`.
        enable_propagation: also pass messages on to parent loggers.
        configure_stdout: False leaves the console alone.

    Returns:
        The logger.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = enable_propagation
    if abbrev_name is None:
        abbrev_name = "d2" if name == "detectron2" else name

    if configure_stdout and distributed_rank == 0 and not _has_handler(logger, _StdoutHandler):
        console = _ConsoleFormatter(
            root_name=name,
            abbrev_name=abbrev_name,
            has_levels=not color,
            colored=color and sys.stdout.isatty(),
        )
        _add_handler(logger, _StdoutHandler(), console)
    if output is not None:
        path = _log_file_path(output, distributed_rank)
        if not any(h.log_path == path for h in logger.handlers if isinstance(h, _LogFileHandler)):
            PathManager.mkdirs(os.path.dirname(path) or ".")
            plain = _Formatter(_PLAIN_FORMAT, root_name=name, abbrev_name=abbrev_name)
            _add_handler(logger, _LogFileHandler(path), plain)
    return logger


def _add_handler(logger: logging.Logger, handler: logging.Handler, formatter: logging.Formatter) -> None:
    handler.setLevel(logging.DEBUG)
    handler.setFormatter(formatter)
    logger.addHandler(handler)


def _has_handler(logger: logging.Logger, kind: type[logging.Handler]) -> bool:
    return any(isinstance(handler, kind) for handler in logger.handlers)


def _log_file_path(output: str, rank: int) -> str:
    path = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
    return f"{path}.rank{rank}" if rank > 0 else path


_LOG_COUNTER: Counter[Any] = Counter()
_LOG_TIMER: dict[Any, float] = {}


def _find_caller() -> tuple[str, tuple[str, int, str]]:
    """Module name and (file, line, function) of the code outside this file that asked to log."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename == __file__ and frame.f_back is not None:
        frame = frame.f_back
    code = frame.f_code
    module_name = frame.f_globals.get("__name__", "detectron2")
    if module_name == "__main__":
        module_name = "detectron2"  # a script's own logger has no handler
    return module_name, (code.co_filename, frame.f_lineno, code.co_name)


def log_first_n(
    lvl: int, msg: str, n: int = 1, *, name: str | None = None, key: str | tuple[str, ...] = "caller"
) -> None:
    """Log a message only the first `n` times.

    Args:
        lvl: logging level.
        msg: the message.
        n: how often it may appear.
        name: logger; the caller's module when None.
        key: what counts as "the same": "caller" (this line of code), "message", or a tuple of both.
    """
    keys = (key,) if isinstance(key, str) else tuple(key)
    unknown = set(keys) - {"caller", "message"}
    if unknown or not keys:
        raise UserValueError(f"key must be 'caller', 'message' or a tuple of both, got {key!r}")
    module_name, caller = _find_caller()
    identity = (*(caller if "caller" in keys else ()), *((msg,) if "message" in keys else ()))
    _LOG_COUNTER[identity] += 1
    if _LOG_COUNTER[identity] <= n:
        logging.getLogger(name or module_name).log(lvl, msg)


def log_every_n(lvl: int, msg: str, n: int = 1, *, name: str | None = None) -> None:
    """Log a message once per `n` calls from the same line, the first call included."""
    module_name, caller = _find_caller()
    _LOG_COUNTER[caller] += 1
    if n == 1 or _LOG_COUNTER[caller] % n == 1:
        logging.getLogger(name or module_name).log(lvl, msg)


def log_every_n_seconds(lvl: int, msg: str, n: int = 1, *, name: str | None = None) -> None:
    """Log a message unless the same line logged less than `n` seconds ago."""
    module_name, caller = _find_caller()
    now = time.monotonic()
    last = _LOG_TIMER.get(caller)
    if last is None or now - last >= n:
        logging.getLogger(name or module_name).log(lvl, msg)
        _LOG_TIMER[caller] = now


def create_small_table(small_dict: Mapping[str, Any]) -> str:
    """Draw a dictionary of a few results as a table with one row, keys as its head."""
    from tabulate import tabulate  # slow to import, and used once a run

    return tabulate(
        [tuple(small_dict.values())],
        headers=list(small_dict),
        tablefmt="pipe",
        floatfmt=".3f",
        stralign="center",
        numalign="center",
    )
