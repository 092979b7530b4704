"""Text as coverage images."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MIN_FONT_SIZE = 9


@lru_cache(maxsize=32)
def _font(size: int) -> Any:
    """Pillow's own scalable font; where Pillow has no FreeType, its one bitmap font."""
    try:
        return ImageFont.load_default(size)
    except (ImportError, OSError):
        return ImageFont.load_default()


@lru_cache(maxsize=512)
def text_coverage(text: str, font_size: float) -> np.ndarray:
    """Render one or more lines of text.

    Args:
        text: lines end with a newline character.
        font_size: height of a line of text in pixels; small ones are raised to `MIN_FONT_SIZE`.

    Returns:
        (h, w) uint8, 255 where ink covers a pixel. The height depends on the font and the number of lines
        alone.
    """
    font = _font(max(MIN_FONT_SIZE, round(font_size)))
    lines = text.split("\n")
    line_height = font.getbbox("Ágp|")[3] + 1
    width = max(int(np.ceil(font.getlength(line))) for line in lines) + 1
    image = Image.new("L", (max(1, width), line_height * len(lines)))
    draw = ImageDraw.Draw(image)
    for row, line in enumerate(lines):
        draw.text((0, row * line_height), line, fill=255, font=font)
    coverage = np.asarray(image)
    coverage.setflags(write=False)
    return coverage


def rotate_coverage(coverage: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate a coverage image counter-clockwise, enlarging it to hold the result."""
    if degrees % 360 == 0:
        return coverage
    image = Image.fromarray(coverage)
    return np.asarray(image.rotate(degrees, resample=Image.Resampling.BICUBIC, expand=True))
