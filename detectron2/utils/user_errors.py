"""Errors that users can mend, shown by command line tools as one message instead of a traceback."""

from __future__ import annotations

import difflib
import itertools
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "UserAttributeError",
    "UserError",
    "UserFileNotFoundError",
    "UserFloatingPointError",
    "UserImportError",
    "UserKeyError",
    "UserNotImplementedError",
    "UserTypeError",
    "UserValueError",
    "describe_error",
    "exit_on_user_error",
    "is_for_user",
    "near",
    "suggest_files",
]

_EXIT_STATUS = 2  # what argparse uses for a wrong command line
_MAX_ENTRIES = 10_000  # of a folder that is searched for similar names


class UserError(Exception):
    """Mix-in of every error that the user can mend.

    The message says what was expected, what came, and what to do. It stands beside the built-in class that
    callers catch, as in `UserValueError`.
    """


class UserValueError(UserError, ValueError):
    """A value that does not fit."""


class UserTypeError(UserError, TypeError):
    """A value of a type that does not fit."""


class UserKeyError(UserError, KeyError):
    """A name that is not known. Unlike a `KeyError`, it shows its message without quotes."""

    def __str__(self) -> str:
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()


class UserFileNotFoundError(UserError, FileNotFoundError):
    """A file that is not there."""


class UserImportError(UserError, ImportError):
    """A package or a name in it that is not there."""


class UserAttributeError(UserError, AttributeError):
    """A name that a module or an object of the user should have, and has not."""


class UserNotImplementedError(UserError, NotImplementedError):
    """Something that is asked for and not offered."""


class UserFloatingPointError(UserError, FloatingPointError):
    """Numbers that are not finite any more."""


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """End the program with status 2 and the error's message, where the error is for the user and not a bug.

    Everything else keeps its traceback. The log files, if there are any by then, get the traceback of both.
    """
    try:
        yield
    except Exception as error:
        _write_to_log_files(error)
        if not is_for_user(error):
            raise
        sys.stderr.write(f"error: {describe_error(error)}\n")
        raise SystemExit(_EXIT_STATUS) from error


def _write_to_log_files(error: Exception) -> None:
    """Leave the traceback where a run can be looked into later, and keep it from the console."""
    logger = logging.getLogger("detectron2")
    record = logger.makeRecord(
        __name__,
        logging.ERROR,
        __file__,
        0,
        "The program ends: %s",
        (describe_error(error),),
        (type(error), error, error.__traceback__),
    )
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def describe_error(error: BaseException) -> str:
    """Return an error's message as it was written: `str` of a plain KeyError would put it in quotes."""
    if isinstance(error, KeyError) and len(error.args) == 1:
        return str(error.args[0])
    return str(error) or type(error).__name__


def near(name: object, known: Iterable[object], *, max_names: int = 3, cutoff: float = 0.6) -> str:
    """Return a sentence with the known names that are nearly the wanted one, to end an error message with.

    Args:
        name: what was asked for.
        known: what there is.
        max_names: how many of them to show.
        cutoff: how similar they must be, from 0 to 1.

    Returns:
        " Did you mean a or b?", with the space before it, or an empty string.
    """
    found = difflib.get_close_matches(str(name), [str(other) for other in known], n=max_names, cutoff=cutoff)
    return f" Did you mean {' or '.join(found)}?" if found else ""


def suggest_files(path: str | os.PathLike[str]) -> str:
    """Return a sentence with files that are called nearly as a missing one, to end an error message with.

    Args:
        path: the missing file; its folder is looked at, and the nearest folder above that exists.

    Returns:
        " Did you mean a or b?", or an empty string.
    """
    missing = Path(path)
    folder = next((parent for parent in missing.parents if parent.is_dir()), None)
    if folder is None:
        return ""
    entries = [entry.name for entry in itertools.islice(folder.iterdir(), _MAX_ENTRIES)]
    wanted = missing.relative_to(folder).parts[0]
    similar = [str(folder / name) for name in difflib.get_close_matches(wanted, entries, n=3)]
    return f" Did you mean {' or '.join(similar)}?" if similar else ""


def is_for_user(error: BaseException) -> bool:
    """Tell an error that the user can mend from a bug: it is a `UserError`, or about a file (OSError)."""
    return isinstance(error, (UserError, OSError))
