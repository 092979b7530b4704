"""Files: one path manager for local and remote paths, and writing that never leaves half a file.

Environment variables:

    DETECTRON2_MODELS  a folder with files of the model zoo, looked in before anything is downloaded. They lie
                       as in their address, behind the host (`detectron2/COCO-Keypoints/...`) or behind
                       `detectron2/`; those with a digest in their name may also lie in the folder itself.
    DETECTRON2_MIRROR  an address that takes the place of the host of the model zoo.
    DETECTRON2_UNCHECKED_DOWNLOADS, DETECTRON2_MAX_DOWNLOAD_GB  see `detectron2.utils.download`.
    FVCORE_CACHE       where downloads are kept, all in one folder (`detectron2.utils.paths.flat_name`);
                       ~/.torch/iopath_cache otherwise. What other packages left there in folders is found
                       when DETECTRON2_MODELS names it.
"""

from __future__ import annotations

import itertools
import logging
import os
import posixpath
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from iopath.common.file_io import OneDrivePathHandler as _OneDriveAddresses
from iopath.common.file_io import PathHandler, file_lock, get_cache_dir
from iopath.common.file_io import PathManager as PathManagerBase

from .download import download, has_named_digest
from .paths import flat_name, path_within
from .user_errors import UserValueError

__all__ = [
    "MODELS_VARIABLE",
    "PathHandler",
    "PathManager",
    "atomic_write",
    "find_in_models_folder",
    "set_aside",
]

logger = logging.getLogger(__name__)

_ZOO_HOST = "https://dl.fbaipublicfiles.com/"
MODELS_VARIABLE = "DETECTRON2_MODELS"
"""Environment variable; a folder with files that are looked for before anything is downloaded."""

_MIRROR_VARIABLE = "DETECTRON2_MIRROR"


class DownloadHandler(PathHandler):  # type: ignore[misc]  # iopath has no types
    """Read http, https and ftp addresses through a cache of downloaded files."""

    def _get_supported_prefixes(self) -> list[str]:
        return ["http://", "https://", "ftp://"]

    def _get_local_path(
        self, path: str, force: bool = False, cache_dir: str | None = None, **kwargs: Any
    ) -> str:
        self._check_kwargs(kwargs)
        is_zoo = path.startswith(_ZOO_HOST)
        if is_zoo and not force and (found := _find_in_folder(path)):
            return found
        target = path_within(get_cache_dir(cache_dir), flat_name(path))
        if os.path.isfile(target) and not force:
            return target
        with file_lock(target):
            # Another process may have been first.
            if force or not os.path.isfile(target):
                source, hint = _mirrored(path) if is_zoo else (path, "")
                download(source, target, check_name=is_zoo, hint=hint)
        return target

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        if mode not in ("r", "rb"):
            raise UserValueError(f"{path} can only be read, got mode {mode!r}")
        return open(self._get_local_path(path), mode, buffering=buffering, **kwargs)


class OneDriveHandler(DownloadHandler):
    """Read short OneDrive addresses through the cache."""

    def __init__(self) -> None:
        super().__init__()
        self._addresses = _OneDriveAddresses()

    def _get_supported_prefixes(self) -> list[str]:
        return [_OneDriveAddresses.ONE_DRIVE_PREFIX]

    def _get_local_path(
        self, path: str, force: bool = False, cache_dir: str | None = None, **kwargs: Any
    ) -> str:
        direct = self._addresses.create_one_drive_direct_download(path)
        return super()._get_local_path(direct, force=force, cache_dir=cache_dir, **kwargs)


def _find_in_folder(url: str) -> str | None:
    """Path of a file of the zoo in the user's folder, if it is there."""
    names = [url.removeprefix(_ZOO_HOST), url.removeprefix(_ZOO_HOST).removeprefix("detectron2/")]
    if has_named_digest(url):
        names.append(posixpath.basename(url))
    return find_in_models_folder(names)


def find_in_models_folder(names: Iterable[str]) -> str | None:
    """Return the path of the first of these files that is in the user's folder of models, None if none is.

    Args:
        names: relative paths with `/` between their parts.
    """
    folder = os.environ.get(MODELS_VARIABLE)
    if not folder:
        return None
    paths = (path_within(os.path.expanduser(folder), name) for name in names)
    return next(filter(os.path.isfile, paths), None)


def _mirrored(url: str) -> tuple[str, str]:
    """Where to get a file of the zoo, and what to tell a user who cannot."""
    name = url.removeprefix(_ZOO_HOST)
    mirror = os.environ.get(_MIRROR_VARIABLE) or _ZOO_HOST
    hint = (
        f"Without a connection, put the file into a folder as {name} and name the folder in"
        f" {MODELS_VARIABLE}; {_MIRROR_VARIABLE} names a mirror of {_ZOO_HOST}"
    )
    return f"{mirror.rstrip('/')}/{name}", hint


class FileURLHandler(PathHandler):  # type: ignore[misc]  # iopath has no types
    """Read and write `file:///PATH`."""

    PREFIX = "file://"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        parts = urlsplit(path)
        if parts.netloc not in ("", "localhost"):
            raise UserValueError(f"a file address has three slashes, as in file:///folder/name; got {path!r}")
        return url2pathname(parts.path)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        return open(self._get_local_path(path), mode, buffering=buffering, **kwargs)

    def _exists(self, path: str, **kwargs: Any) -> bool:
        return os.path.exists(self._get_local_path(path, **kwargs))

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return os.path.isfile(self._get_local_path(path, **kwargs))

    def _isdir(self, path: str, **kwargs: Any) -> bool:
        return os.path.isdir(self._get_local_path(path, **kwargs))

    def _ls(self, path: str, **kwargs: Any) -> list[str]:
        return os.listdir(self._get_local_path(path, **kwargs))

    def _mkdirs(self, path: str, **kwargs: Any) -> None:
        os.makedirs(self._get_local_path(path, **kwargs), exist_ok=True)

    def _rm(self, path: str, **kwargs: Any) -> None:
        os.remove(self._get_local_path(path, **kwargs))


class Detectron2Handler(PathHandler):  # type: ignore[misc]  # iopath has no types
    """Resolve `detectron2://NAME` to a file of the public model zoo, downloaded once into the cache."""

    PREFIX = "detectron2://"
    S3_DETECTRON2_PREFIX = _ZOO_HOST + "detectron2/"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _to_url(self, path: str) -> str:
        return self.S3_DETECTRON2_PREFIX + path.removeprefix(self.PREFIX)

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        local_path: str = PathManager.get_local_path(self._to_url(path), force=force, **kwargs)
        return local_path

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        file: IO[Any] = PathManager.open(self._to_url(path), mode, buffering=buffering, **kwargs)
        return file


PathManager = PathManagerBase()
"""The package's path manager. Register a handler here to read another kind of storage everywhere."""

PathManager.register_handler(DownloadHandler())
PathManager.register_handler(OneDriveHandler())
PathManager.register_handler(FileURLHandler())
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
        raise UserValueError(f"mode must be 'wb' or 'w', got {mode!r}")
    path = os.fspath(path)
    if path.startswith(FileURLHandler.PREFIX):
        path = str(PathManager.get_local_path(path))
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


def set_aside(path: str) -> None:
    """Rename what an earlier run has left under a name, if it has, to the next free one: `model_1.pth`.

    Storage that cannot rename keeps it; the log says so.
    """
    if not PathManager.isfile(path):
        return
    stem, suffix = os.path.splitext(path)
    names = (f"{stem}_{number}{suffix}" for number in itertools.count(1))
    kept = next(name for name in names if not PathManager.exists(name))
    try:
        PathManager.mv(path, kept)
    except NotImplementedError:
        logger.warning("%s is of an earlier run, and cannot be renamed where it is: it is written to", path)
    else:
        logger.warning("%s is of an earlier run, and is now called %s", path, kept)
