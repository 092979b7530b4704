"""Colours: a palette of well separated ones, names and codes, lightening and darkening.

A colour is RGB with channels in [0, 1] unless said otherwise.
"""

from __future__ import annotations

import colorsys
import random
from collections.abc import Sequence

import numpy as np

from detectron2.utils.palette import palette_rgb
from detectron2.utils.user_errors import UserValueError

Color = tuple[float, float, float]
ColorLike = str | Sequence[float] | np.ndarray

_PALETTE_SIZE = 80

# One-letter names keep the shades that plotting libraries gave them.
_LETTERS: dict[str, Color] = {
    "b": (0.0, 0.0, 1.0),
    "g": (0.0, 0.5, 0.0),
    "r": (1.0, 0.0, 0.0),
    "c": (0.0, 0.75, 0.75),
    "m": (0.75, 0.0, 0.75),
    "y": (0.75, 0.75, 0.0),
    "k": (0.0, 0.0, 0.0),
    "w": (1.0, 1.0, 1.0),
}


COLORS = np.asarray([palette_rgb(i) for i in range(_PALETTE_SIZE)], dtype=np.float32) / np.float32(255)
"""(80, 3) RGB."""


def colormap(rgb: bool = False, maximum: float = 255) -> np.ndarray:
    """The palette.

    Args:
        rgb: RGB order instead of BGR.
        maximum: value of a full channel, 255 or 1.

    Returns:
        (80, 3) float32.
    """
    if maximum not in (255, 1):
        raise UserValueError(f"maximum should be 255 or 1, got {maximum}")
    return np.ascontiguousarray(COLORS if rgb else COLORS[:, ::-1]) * np.float32(maximum)


def random_color(rgb: bool = False, maximum: float = 255) -> np.ndarray:
    """One colour of the palette, at random: (3,) float32. Arguments as for `colormap`."""
    color: np.ndarray = colormap(rgb, maximum)[random.randrange(_PALETTE_SIZE)]
    return color


def random_colors(N: int, rgb: bool = False, maximum: float = 255) -> list[np.ndarray]:
    """N colours of the palette in random order; none repeats before all were used. Arguments as for
    `colormap`.
    """
    palette = colormap(rgb, maximum)
    order: list[int] = []
    while len(order) < N:
        order += random.sample(range(_PALETTE_SIZE), min(_PALETTE_SIZE, N - len(order)))
    return [palette[i] for i in order]


def palette_color(index: int) -> Color:
    """The palette's colour at an index, which may be far beyond the 80 of `colormap`; all differ."""
    return from_rgb8(palette_rgb(index))


def from_rgb8(color: Sequence[float]) -> Color:
    """A colour whose channels are given in [0, 255]."""
    red, green, blue = (min(max(float(channel) / 255, 0.0), 1.0) for channel in color[:3])
    return red, green, blue


def parse_color(color: ColorLike) -> Color:
    """Read a colour.

    Args:
        color: three or four channels in [0, 1] (a fourth, opacity, is dropped), a one-letter name ("g"), an
            HTML name ("orange"), a hexadecimal code ("#ff8800"), or a grey level as text ("0.5").
    """
    if isinstance(color, str):
        return _parse_color_text(color)
    channels = [float(c) for c in color]
    if len(channels) not in (3, 4) or not all(0 <= c <= 1 for c in channels):
        raise UserValueError(
            f"a colour should have 3 or 4 channels in [0, 1], got {color!r}; divide 8-bit values by 255"
        )
    return channels[0], channels[1], channels[2]


def _parse_color_text(text: str) -> Color:
    from PIL import ImageColor

    if text in _LETTERS:
        return _LETTERS[text]
    try:
        grey = float(text)
        return parse_color((grey, grey, grey))
    except ValueError:
        pass
    try:
        red, green, blue = ImageColor.getrgb(text.removeprefix("tab:"))[:3]
    except ValueError as error:
        raise UserValueError(
            f"unknown colour {text!r}: use a name such as 'orange', '#rrggbb', or three numbers"
        ) from error
    return red / 255, green / 255, blue / 255


def change_brightness(color: ColorLike, factor: float) -> Color:
    """Make a colour lighter (factor in (0, 1]) or darker (factor in [-1, 0)): its lightness in HLS grows by
    that share, up to white.
    """
    if not -1 <= factor <= 1:
        raise UserValueError(f"factor should be in [-1, 1], got {factor}")
    hue, lightness, saturation = colorsys.rgb_to_hls(*parse_color(color))
    return colorsys.hls_to_rgb(hue, min(max(lightness * (1 + factor), 0.0), 1.0), saturation)


def legible_on_dark(color: ColorLike) -> Color:
    """A colour of the same hue that is bright enough for text on a dark box."""
    red, green, blue = parse_color(color)
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    return colorsys.hls_to_rgb(hue, max(lightness, 0.80), min(saturation, 0.9))


def shade(color: ColorLike, index: int) -> Color:
    """A colour close to the given one, to tell instances of one class apart.

    Args:
        index: counts the instances of the class; 0 gives the colour itself, neighbours differ most.
    """
    hue, lightness, saturation = colorsys.rgb_to_hls(*parse_color(color))
    # Multiples of irrational numbers spread evenly however many there are.
    turn, step = (index * 0.6180339887) % 1.0, (index * 0.7548776662) % 1.0
    hue_offset = 0.16 * (turn if turn < 0.5 else turn - 1.0)
    lightness_offset = 0.36 * (step if step < 0.5 else step - 1.0)
    lightness = min(max(0.85, lightness), max(min(0.25, lightness), lightness + lightness_offset))
    return colorsys.hls_to_rgb((hue + hue_offset) % 1.0, lightness, saturation)
