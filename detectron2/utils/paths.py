"""Paths below a folder that no name, however it is written, leads out of, and names that do not collide."""

from __future__ import annotations

import hashlib
import os
import re
from urllib.parse import urlsplit

from .user_errors import UserValueError

__all__ = ["FreshNames", "flat_name", "path_within"]

_READABLE_CHARS = 100
_DIGEST_CHARS = 32


def path_within(root: str, name: str) -> str:
    """Join a name that comes from outside to a folder, and refuse one that leads out of it.

    Args:
        root: the folder.
        name: a relative path with `/` between its parts.

    Returns:
        `root` joined with `name`. Links are followed for the check alone.

    Raises:
        ValueError: `name` is absolute, climbs out by `..`, or passes through a link that leads out.
    """
    path = os.path.join(root, *name.split("/"))
    real_root = os.path.realpath(root)
    if "\0" in name or os.path.isabs(name) or not _is_below(os.path.realpath(path), real_root):
        raise UserValueError(
            f"expected the name of a file inside {root}, got {name!r}, which leads out of it"
        )
    return path


def _is_below(path: str, root: str) -> bool:
    return path.startswith(root.rstrip(os.sep) + os.sep)


def flat_name(url: str) -> str:
    """The file name under which an address is cached: a digest of all of it, and its readable end.

    Two addresses never share a name, and none of them holds a separator, whatever stands in the host, the
    path or the query.
    """
    digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARS]
    end = urlsplit(url).path.rpartition("/")[2]
    readable = re.sub(r"[^\w.-]", "_", end, flags=re.ASCII).strip(".")[-_READABLE_CHARS:]
    return f"{digest}-{readable}" if readable else digest


class FreshNames:
    """Names of files of which no two are equal, not even on file systems that do not tell a from A."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, name: str) -> str:
        """Return a name that was not taken before: itself, or with a number before its suffix."""
        stem, suffix = os.path.splitext(name)
        fresh, number = name, 2
        while fresh.lower() in self._taken:
            fresh, number = f"{stem}_{number}{suffix}", number + 1
        self._taken.add(fresh.lower())
        return fresh
