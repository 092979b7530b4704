"""Text as coverage images."""

from __future__ import annotations

import itertools
import logging
import threading
import unicodedata
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from detectron2.visualization.fonts import FONT_VARIABLE, font_of, font_with
from detectron2.visualization.transliteration import transliterate

logger = logging.getLogger(__name__)

MIN_FONT_SIZE = 9

_told = threading.Event()


@lru_cache(maxsize=512)
def text_coverage(text: str, font_size: float) -> np.ndarray:
    """Render one or more lines of text.

    A character that the usual font lacks is taken from another font of this machine; where none has it, it is
    written in Latin letters, and a warning says so once.

    Args:
        text: lines end with a newline character.
        font_size: height of a line of text in pixels; small ones are raised to `MIN_FONT_SIZE`.

    Returns:
        (h, w) uint8, 255 where ink covers a pixel. The height depends on the font and the number of lines
        alone.
    """
    size = max(MIN_FONT_SIZE, round(font_size))
    usual = font_of(None, size)
    line_height = usual.getbbox("Ágp|")[3] + 1
    lines = [_runs(line) for line in text.split("\n")]
    widths = [[font_of(path, size).getlength(run) for path, run in line] for line in lines]
    width = max(int(np.ceil(sum(line))) for line in widths) + 1
    image = Image.new("L", (max(1, width), line_height * len(lines)))
    draw = ImageDraw.Draw(image)
    for row, (line, run_widths) in enumerate(zip(lines, widths)):
        left = 0.0
        for (path, run), run_width in zip(line, run_widths):
            if isinstance(usual, ImageFont.FreeTypeFont):  # letters of all fonts stand on one line
                place, anchor = (left, row * line_height + usual.getmetrics()[0]), "ls"
            else:
                place, anchor = (left, row * line_height), None
            draw.text(place, run, fill=255, font=font_of(path, size), anchor=anchor)
            left += run_width
    coverage = np.asarray(image)
    coverage.setflags(write=False)
    return coverage


def _runs(line: str) -> list[tuple[str | None, str]]:
    """Cut a line into runs of one font each: its file, None for the usual font, and what it draws."""
    pieces = []
    for letter in _letters(line):
        path: str | None = "" if letter.isascii() else font_with(letter)
        if path is None:
            _tell_once(line)
            path, letter = "", "".join(map(transliterate, letter))
        pieces.append((path or None, letter))
    grouped = itertools.groupby(pieces, key=lambda piece: piece[0])
    return [(path, "".join(letter for _, letter in run)) for path, run in grouped]


def _letters(line: str) -> list[str]:
    """The characters of a line, each with the accents and joiners that follow it; every space is a plain
    one.
    """
    letters: list[str] = []
    for character in unicodedata.normalize("NFC", line):
        kind = unicodedata.category(character)
        if kind in ("Mn", "Mc", "Me", "Cf") and letters:
            letters[-1] += character
        elif character.isspace():
            letters.append(" ")
        elif kind != "Cc":
            letters.append(character)
    return letters


def _tell_once(text: str) -> None:
    if _told.is_set():
        return
    _told.set()
    logger.warning(
        "No font here has all characters of %r: what no font has is written in Latin letters. Install one, "
        "such as the extra 'fonts' of this package (pip install 'detectron2[fonts]'), or set %s to the file "
        "of a font.",
        text,
        FONT_VARIABLE,
    )


def rotate_coverage(coverage: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate a coverage image counter-clockwise, enlarging it to hold the result."""
    if degrees % 360 == 0:
        return coverage
    image = Image.fromarray(coverage)
    return np.asarray(image.rotate(degrees, resample=Image.Resampling.BICUBIC, expand=True))
