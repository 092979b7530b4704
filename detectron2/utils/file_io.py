"""Files: one path manager for local and remote paths, and writing that never leaves half a file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from iopath.common.file_io import HTTPURLHandler, OneDrivePathHandler, PathHandler
from iopath.common.file_io import PathManager as PathManagerBase

__all__ = ["PathHandler", "PathManager", "atomic_write"]


class Detectron2Handler(PathHandler):
    """Resolve `detectron2://NAME` to a file of the public model zoo, downloaded once into the cache.""" ""

    PREFIX = "detectron2://"
    S3_DETECTRON2_PREFIX = "https://dl.fbaipublicfiles.com/detectron2/"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _to_url(self, path: str) -> str:
        return self.S3_DETECTRON2_PREFIX + path.removeprefix(self.PREFIX)

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        return PathManager.get_local_path(self._to_url(path), force=force, **kwargs)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        return PathManager.open(self._to_url(path), mode, buffering=buffering, **kwargs)


PathManager = PathManagerBase()
"""The package's path manager. Register a handler here to read another kind of storage everywhere."""

PathManager.register_handler(HTTPURLHandler())
PathManager.register_handler(OneDrivePathHandler())
PathManager.register_handler(Detectron2Handler())


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file for writing that takes the place of `path` only when all of it is on disk.

    The data goes to a temporary file in the same folder, which is flushed, synced and renamed at the end of
    the `with` block. An exception inside the block removes it, and whatever `path` held before stays. Missing
    folders are made.

    Args:
        path: where the file goes; a path that only a registered handler knows is written through that
            handler.
        mode: "wb", or "w" for UTF-8 text.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode must be 'wb' or 'w', got {mode!r}")
    path = os.fspath(path)
    encoding = None if "b" in mode else "utf-8"
    if "://" in path:
        # Object stores publish a file when it is closed; renaming is not theirs to offer.
        with PathManager.open(path, mode) as file:
            yield file
        return
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", suffix=".tmp", dir=folder)
    try:
        with open(descriptor, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _permissions_for(path))
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _permissions_for(path: str) -> int:
    """Permissions of the file that is replaced, else those that `open` would give a new one."""
    with suppress(FileNotFoundError):
        return os.stat(path).st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
