"""Metadata that follows from an annotation file: read when it is first asked for, and again when the file
has changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from detectron2.utils.user_errors import UserAttributeError, UserFileNotFoundError

from ..catalog import LazyValue
from .files import Path, read_json

Derive = Callable[[str, Any], dict[str, Any]]
"""From the path of an annotation file and its content to metadata by key; a function of a module."""

_State = tuple[int, int]

# (What derives, path of the file) -> (state of the file, metadata). Files may take many seconds to read.
_known: dict[tuple[Derive, str], tuple[_State, dict[str, Any]]] = {}


@dataclass(frozen=True)
class DerivedValue(LazyValue):
    """A piece of metadata that follows from an annotation file.

    Attributes:
        derive: makes all pieces out of the content of the file.
        json_file: the file.
        key: which piece.
        gives_way: whether a value that is set explicitly takes its place; otherwise the two must be equal.
    """

    derive: Derive
    json_file: Path
    key: str
    gives_way: bool = False

    def resolve(self) -> Any:
        path = os.fspath(self.json_file)
        known = _known.get((self.derive, path))
        if known is None or known[0] != _state_of(path):
            try:
                return remember(self.derive, path, read_json(path))[self.key]
            except UserFileNotFoundError as error:
                if not self.gives_way:
                    raise
                # As if it were not set: who asks by hasattr or getattr gets along without it.
                raise UserAttributeError(f"There is no {self.key!r} yet: {error}") from error
        return known[1][self.key]


def remember(derive: Derive, path: str, content: Any) -> dict[str, Any]:
    """Return what follows from a file that was just read; the next look-up need not read it again."""
    state = _state_of(path)
    _known[derive, path] = state, derive(path, content)
    return _known[derive, path][1]


def derived_values(
    derive: Derive, json_file: Path, keys: Iterable[str], given: Iterable[str], gives_way: bool = False
) -> dict[str, DerivedValue]:
    """Lazy metadata for the keys that are not given explicitly."""
    return {key: DerivedValue(derive, json_file, key, gives_way) for key in keys if key not in given}


def _state_of(path: str) -> _State:
    """Time stamp and size, which nearly always differ between two states of a file; zeros for one elsewhere
    than on a disk."""
    if not os.path.exists(path):
        return 0, 0
    state = os.stat(path)
    return state.st_mtime_ns, state.st_size
