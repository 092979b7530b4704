"""A font of one's own, so that tests do not depend on those of the machine."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from detectron2.visualization import fonts, text

MakeFont = Callable[[str], Path]

_UNITS = 1000
_BOX = [(100, 0), (900, 0), (900, 700), (100, 700)]  # what stands for all other characters
_WEDGE = [(100, 0), (900, 0), (500, 700)]


@pytest.fixture
def make_font(tmp_path: Path) -> MakeFont:
    """A function that writes a TrueType font in which each of some characters is a wedge."""

    def make(characters: str) -> Path:
        path = tmp_path / f"tiny{len(list(tmp_path.iterdir()))}.ttf"
        path.write_bytes(_font_file(sorted(map(ord, characters))))
        return path

    return make


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A machine without fonts, whose labels have not been warned of."""
    monkeypatch.setattr(fonts, "_SYSTEM_FOLDERS", ())
    monkeypatch.setattr(fonts, "_FONT_PACKAGES", ())
    monkeypatch.setattr(fonts, "_package_folders", lambda name: [])
    monkeypatch.delenv(fonts.FONT_VARIABLE, raising=False)
    _forget()
    yield monkeypatch
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    for cached in (fonts.font_files, fonts.font_with, fonts.has_character, fonts.font_of, text.text_coverage):
        cached.cache_clear()
    text._told.clear()


def _font_file(codes: list[int]) -> bytes:
    glyphs = [_glyph(_BOX), *(_glyph(_WEDGE) for _ in codes)]
    offsets = [sum(map(len, glyphs[:i])) for i in range(len(glyphs) + 1)]
    groups = b"".join(struct.pack(">3I", code, code, i) for i, code in enumerate(codes, 1))
    subtable = struct.pack(">2H3I", 12, 0, 16 + len(groups), 0, len(codes)) + groups
    tables = {
        b"cmap": struct.pack(">4HI", 0, 1, 3, 10, 12) + subtable,
        b"glyf": b"".join(glyphs),
        b"head": struct.pack(
            ">4I2H2q4h2H3h", 0x10000, 0x10000, 0, 0x5F0F3CF5, 0, _UNITS, 0, 0, 0, 0, 1000, 700, 0, 8, 2, 1, 0
        ),
        b"hhea": struct.pack(">I3hH11hH", 0x10000, 800, -200, 0, 1000, *[0] * 3, 1, *[0] * 7, len(glyphs)),
        b"hmtx": struct.pack(">2h", 1000, 100) * len(glyphs),
        b"loca": struct.pack(f">{len(offsets)}I", *offsets),
        b"maxp": struct.pack(">I14H", 0x10000, len(glyphs), 4, 1, 0, 0, 1, *[0] * 8),
    }
    directory, content = struct.pack(">I4H", 0x10000, len(tables), 64, 2, 48), b""
    for tag, table in tables.items():
        place = 12 + 16 * len(tables) + len(content)
        directory += tag + struct.pack(">3I", 0, place, len(table))
        content += table + bytes(-len(table) % 4)
    return directory + content


def _glyph(points: list[tuple[int, int]]) -> bytes:
    header = struct.pack(">5h2H", 1, 0, 0, 1000, 700, len(points) - 1, 0)
    flags = bytes([1] * len(points))
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in zip([(0, 0), *points], points)]
    shape = b"".join(struct.pack(">h", step[axis]) for axis in (0, 1) for step in steps)
    data = header + flags + shape
    return data + bytes(-len(data) % 4)
