"""Weights that others publish: by a catalog name, with address, digest and licence.

A plug-in registers those of its backbone; `catalog://NAME` then loads them, and a checkpoint that is missing
and would be made from one of them is answered with the way to it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from iopath.common.file_io import file_lock, get_cache_dir

from detectron2.utils.download import download
from detectron2.utils.file_io import MODELS_VARIABLE, find_in_models_folder
from detectron2.utils.paths import path_within
from detectron2.utils.user_errors import UserFileNotFoundError, UserValueError

__all__ = [
    "PublishedWeights",
    "advise_on_missing",
    "find_published",
    "published_names",
    "register_published_weights",
]

logger = logging.getLogger(__name__)

_CONVERTER = "tools/convert-torchvision-to-d2.py"


@dataclass(frozen=True)
class PublishedWeights:
    """A file that somebody else publishes.

    Attributes:
        file_name: as its publisher names it.
        addresses: where it is, the publisher's first; the next is tried when one does not answer. Empty where
            no address of the file itself is known.
        digest: first digits of its SHA-256, all that are known; "" where none is.
        licence: under which it is published, or that this is not known.
        page: where its publisher tells about it.
        converted_name: what configs call the file that the converter makes of it; "" where none names one.
    """

    file_name: str
    addresses: tuple[str, ...]
    digest: str
    licence: str
    page: str
    converted_name: str = ""

    def __post_init__(self) -> None:
        if self.digest and not re.fullmatch(r"[0-9a-f]{6,64}", self.digest):
            raise UserValueError(f"digest must be 6 to 64 hexadecimal digits or '', got {self.digest!r}")

    def fetch(self, name: str, *, force: bool = False) -> str:
        """Return the path of the file, downloaded once and compared with its digest.

        Args:
            name: its name in the catalog, for the cache and for messages.
            force: download it even when it is there.

        Raises:
            FileNotFoundError: no address is known, or no server has it.
            ConnectionError: no server answers.
            ValueError: the content does not match the digest.
        """
        if not force and (found := find_in_models_folder([name, self.file_name])):
            return found
        hint = (
            f"To use a copy of your own, put it into a folder as {self.file_name} and name the folder in"
            f" {MODELS_VARIABLE}"
        )
        if not self.addresses:
            raise UserFileNotFoundError(
                f"the address of {name} is not known here; {self.page} tells where it is. {hint}"
            )
        target = path_within(get_cache_dir(), self._cache_name(name))
        with file_lock(target):
            if force or not os.path.isfile(target):
                logger.info("%s is published at %s; licence: %s", name, self.page, self.licence)
                self._download(target, hint)
        return target

    def _download(self, target: str, hint: str) -> None:
        for address in self.addresses:
            try:
                download(address, target, check_name=bool(self.digest), hint=hint)
            except OSError as error:
                if address == self.addresses[-1]:
                    raise
                logger.warning("%s; trying the next address", error)
            else:
                return

    def _cache_name(self, name: str) -> str:
        # Downloads compare a file with the digits at the end of its name.
        digits = f"_{self.digest}" if self.digest else ""
        return re.sub(r"[^\w.-]", "_", name) + digits + os.path.splitext(self.file_name)[1]


_PUBLISHED: dict[str, PublishedWeights] = {}


def register_published_weights(entries: Mapping[str, PublishedWeights]) -> None:
    """Make `catalog://NAME` known for every name of `entries`.

    Raises:
        ValueError: a name is taken by another file.
    """
    for name, entry in entries.items():
        if _PUBLISHED.setdefault(name, entry) != entry:
            raise UserValueError(f"the catalog has another {name!r}: {_PUBLISHED[name].file_name}")


def published_names() -> list[str]:
    """Return the names that are registered, sorted."""
    return sorted(_PUBLISHED)


def find_published(name: str) -> PublishedWeights | None:
    """Return what is registered as `name`, None if nothing is."""
    return _PUBLISHED.get(name)


def advise_on_missing(path: str) -> str:
    """Say where a missing checkpoint comes from, as the end of a sentence; "" where nothing is known."""
    wanted = os.path.basename(path)
    for name, entry in _PUBLISHED.items():
        if wanted == entry.converted_name:
            address = entry.addresses[0] if entry.addresses else entry.page
            return (
                f". It is {entry.file_name} of {address}, converted. MODEL.WEIGHTS catalog://{name} downloads"
                f" and loads that as it is; to convert a copy of your own:"
                f" {_CONVERTER} {entry.file_name} {path}"
            )
        if wanted == entry.file_name:
            return f". MODEL.WEIGHTS catalog://{name} downloads and loads it"
    return ""
