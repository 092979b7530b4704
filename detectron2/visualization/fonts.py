"""Fonts on this machine, and which of them has a character. Nothing is fetched.

Looked at are, in this order: Pillow's own font, which has Latin letters; the file or folder that the
environment variable `DETECTRON2_FONT` names; well-known fonts of the system; that of the extra `fonts`; the
others of the system; and those that matplotlib brings, where it is installed.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import ImageFont

from detectron2.utils.user_errors import UserFileNotFoundError

FONT_VARIABLE = "DETECTRON2_FONT"

_SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
_FONT_PACKAGES = ("noto_cjk_sans_jp_regular",)  # what the extra `fonts` installs
_SYSTEM_FOLDERS = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": ("%WINDIR%/Fonts", "%LOCALAPPDATA%/Microsoft/Windows/Fonts"),
}.get(sys.platform, ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"))

# Families with many scripts, or with all of Chinese, Japanese and Korean, in plain upright letters.
_PREFERRED = (
    "notosans-", "notosans[", "notosanscjk", "sourcehansans", "dejavusans.", "arialunicode", "arial unicode",
    "hiragino", "pingfang", "applesdgothic", "msyh", "yugoth", "meiryo", "malgun", "segoeui.",
    "wqy", "ipaexg", "ipag", "nanumgothic", "liberationsans-regular", "freesans.",
)  # fmt: skip
_ADORNED = (
    "bold", "italic", "oblique", "mono", "serif", "condensed", "black", "light", "thin", "narrow", "math",
    "symbol", "emoji",
)  # fmt: skip
# They claim to have every character, and draw boxes.
_USELESS = ("lastresort", "adobeblank", "notdef")
_NO_CHARACTER = "\U0010ffff"
_PROBE_SIZE = 16


@lru_cache(maxsize=256)
def font_of(path: str | None, size: int) -> Any:
    """A font in a size in pixels.

    Args:
        path: its file; None means Pillow's own scalable font, or where Pillow has no FreeType, its one bitmap
            font.
    """
    if path is not None:
        return ImageFont.truetype(path, size)
    try:
        return ImageFont.load_default(size)
    except (ImportError, OSError):
        return ImageFont.load_default()


@lru_cache(maxsize=4096)
def font_with(letter: str) -> str | None:
    """The first font that has a character and the accents after it.

    Returns:
        "" for Pillow's own font, the path of a file, or None for no font.
    """
    shapes = [character for character in letter if unicodedata.category(character) != "Cf"]
    for path in (None, *font_files()):
        if all(has_character(path, character) for character in shapes):
            return path or ""
    return None


@lru_cache(maxsize=8192)
def has_character(path: str | None, character: str) -> bool:
    """Whether a font draws a character otherwise than one that no font has."""
    try:
        font = font_of(path, _PROBE_SIZE)
        if not isinstance(font, ImageFont.FreeTypeFont):  # the bitmap font
            return ord(character) < 256
        # Better layouts take letters apart, into pieces that may not fit together.
        font = font.font_variant(layout_engine=ImageFont.Layout.BASIC)
        return _drawn(font, character) not in (_drawn(font, _NO_CHARACTER), None)
    except (ImportError, OSError, ValueError):  # no FreeType, a damaged font, or one of other sizes only
        return False


def _drawn(font: ImageFont.FreeTypeFont, character: str) -> tuple[Any, ...] | None:
    mask = font.getmask(character)
    return (mask.size, bytes(mask)) if mask.size[0] and mask.size[1] else None


@lru_cache(maxsize=1)
def font_files() -> tuple[str, ...]:
    """Files of fonts on this machine, the most promising first.

    Raises:
        FileNotFoundError: what `DETECTRON2_FONT` names is not there, or is no font.
    """
    given = [path for entry in os.environ.get(FONT_VARIABLE, "").split(os.pathsep) for path in _named(entry)]
    system = _files_below(Path(os.path.expandvars(os.path.expanduser(f))) for f in _SYSTEM_FOLDERS)
    extra = _files_below(place for name in _FONT_PACKAGES for place in _package_folders(name))
    plots = _files_below(place / "mpl-data/fonts/ttf" for place in _package_folders("matplotlib"))
    good = [path for path in system if _rank(path)[1] < len(_PREFERRED)]
    return tuple(dict.fromkeys([*given, *good, *extra, *system, *plots]))


def _named(entry: str) -> list[str]:
    files = _files_below([Path(entry).expanduser()]) if entry else []
    if entry and not files:
        raise UserFileNotFoundError(
            f"{FONT_VARIABLE} should name a font file ({', '.join(_SUFFIXES)}) or a folder of them, and "
            f"there is none at {entry!r}"
        )
    return files


def _package_folders(name: str) -> list[Path]:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(name)
    return [Path(place) for place in (spec.submodule_search_locations or [])] if spec is not None else []


def _files_below(places: Iterable[Path]) -> list[str]:
    """Files of fonts, given themselves or below a folder, the most promising first."""
    found = []
    for place in places:
        found += [str(place)] if place.is_file() else []
        found += [os.path.join(folder, name) for folder, _, names in os.walk(place) for name in names]
    return sorted(filter(_is_usable, found), key=_rank)


def _is_usable(path: str) -> bool:
    name = os.path.basename(path).lower().replace(" ", "")
    return name.endswith(_SUFFIXES) and not name.startswith(_USELESS)


def _rank(path: str) -> tuple[int, int, str]:
    name = os.path.basename(path).lower()
    family = next((i for i, start in enumerate(_PREFERRED) if name.startswith(start)), len(_PREFERRED))
    return sum(word in name for word in _ADORNED), family, path
