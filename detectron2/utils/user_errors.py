"""Errors that users can mend, shown by command line tools as one message instead of a traceback."""

from __future__ import annotations

import difflib
import itertools
import linecache
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

__all__ = ["describe_error", "exit_on_user_error", "is_for_user", "suggest_files"]

_PACKAGE_DIR = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_EXIT_STATUS = 2  # what argparse uses for a wrong command line
_MAX_ENTRIES = 10_000  # of a folder that is searched for similar names

# The kinds that this package raises for what a user can cause; each comes with a sentence that says what
# to do.
_USER_KINDS = (ValueError, TypeError, KeyError, ImportError, NotImplementedError, FloatingPointError)


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """End the program with status 2 and the error's message, where the error is for the user and not a bug.

    Everything else keeps its traceback.
    """
    try:
        yield
    except Exception as error:
        if not is_for_user(error):
            raise
        sys.stderr.write(f"error: {describe_error(error)}\n")
        raise SystemExit(_EXIT_STATUS) from error


def describe_error(error: BaseException) -> str:
    """Return an error's message as it was written: `str` of a KeyError would put it in quotes."""
    if isinstance(error, KeyError) and len(error.args) == 1:
        return str(error.args[0])
    return str(error) or type(error).__name__


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
    names = [entry.name for entry in itertools.islice(folder.iterdir(), _MAX_ENTRIES)]
    wanted = missing.relative_to(folder).parts[0]
    near = [str(folder / name) for name in difflib.get_close_matches(wanted, names, n=3)]
    return f" Did you mean {' or '.join(near)}?" if near else ""


def is_for_user(error: Exception) -> bool:
    """Tell an error that the user can mend from a bug.

    It is for the user when it is about a file (OSError), or when a `raise` statement of this package, or of
    the running program, made it on purpose. Everything else came unforeseen.
    """
    if isinstance(error, OSError):
        return True
    if not isinstance(error, _USER_KINDS) or error.__traceback__ is None:
        return False
    filename, source = _raising_line(error.__traceback__)
    program = os.path.abspath(sys.argv[0])
    ours = os.path.abspath(filename)
    return (ours == program or ours.startswith(_PACKAGE_DIR + os.sep)) and source.startswith("raise")


def _raising_line(traceback: TracebackType) -> tuple[str, str]:
    """Return the file and the source line where an exception came up."""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    filename = traceback.tb_frame.f_code.co_filename
    return filename, linecache.getline(filename, traceback.tb_lineno).strip()
