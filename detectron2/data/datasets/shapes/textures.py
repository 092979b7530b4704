"""Surfaces of the embedded data set: six stuff textures and the patterns that things wear.

Every texture is float32 RGB in [0, 255], shape (h, w, 3). A texture class is told by its structure; its
colours come from natural palettes that overlap, and one region in four borrows the palette of another class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]

_BORROWED_PALETTE_RATE = 0.25
_COLOUR_JITTER = 28.0

# (dark, light) colour pairs.
_PALETTES: dict[str, tuple[tuple[tuple[int, int, int], tuple[int, int, int]], ...]] = {
    "grass": (
        ((30, 70, 20), (120, 175, 70)),
        ((70, 85, 30), (190, 180, 90)),
        ((25, 60, 45), (100, 150, 110)),
    ),
    "water": (
        ((15, 55, 100), (110, 175, 205)),
        ((20, 80, 85), (120, 195, 185)),
        ((45, 60, 75), (150, 170, 180)),
    ),
    "brick": (
        ((110, 45, 35), (185, 95, 75)),
        ((90, 80, 75), (165, 155, 145)),
        ((120, 90, 60), (200, 170, 130)),
    ),
    "wood": (
        ((85, 50, 25), (175, 120, 70)),
        ((120, 95, 65), (215, 185, 140)),
        ((70, 65, 60), (150, 140, 130)),
    ),
    "sky": (
        ((70, 130, 205), (225, 238, 250)),
        ((150, 110, 140), (250, 200, 150)),
        ((110, 120, 135), (215, 220, 225)),
    ),
    "sand": (
        ((165, 135, 90), (230, 210, 165)),
        ((140, 125, 110), (205, 195, 180)),
        ((150, 95, 65), (215, 160, 120)),
    ),
}


def value_noise(rng: Generator, height: int, width: int, cell: tuple[float, float]) -> FloatArray:
    """(height, width) smooth noise, about standard normal, whose blobs are `cell` (tall, wide) pixels."""
    rows = int(height / cell[0]) + 2
    columns = int(width / cell[1]) + 2
    knots = rng.standard_normal((rows, columns), dtype=np.float32)
    return cv2.resize(knots, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32, copy=False)


def _rotated_grid(height: int, width: int, angle: float) -> tuple[FloatArray, FloatArray]:
    """(height, width) pixel coordinates along and across the direction `angle`."""
    y = np.arange(height, dtype=np.float32)[:, None]
    x = np.arange(width, dtype=np.float32)[None, :]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def _mix(dark: FloatArray, light: FloatArray, weight: FloatArray) -> FloatArray:
    """Blend two (3,) colours by a (h, w) weight, clipped to [0, 1]."""
    clipped = np.clip(weight, 0.0, 1.0)[..., None]  # (h, w, 1)
    return dark + (light - dark) * clipped


def _grass(rng: Generator, height: int, width: int, zoom: float) -> FloatArray:
    blades = value_noise(rng, height, width, (5.0 * zoom, 1.5 * zoom))
    more_blades = value_noise(rng, height, width, (9.0 * zoom, 2.2 * zoom))
    patches = value_noise(rng, height, width, (40.0 * zoom, 40.0 * zoom))
    tone: FloatArray = 0.48 + 0.2 * blades + 0.14 * more_blades + 0.1 * patches
    return tone


def _water(rng: Generator, height: int, width: int, zoom: float) -> FloatArray:
    _, across = _rotated_grid(height, width, rng.uniform(-0.25, 0.25))
    length = rng.uniform(9.0, 16.0) * zoom
    bend = value_noise(rng, height, width, (18.0 * zoom, 30.0 * zoom))
    phase = (2 * np.pi / length) * across + 1.3 * bend
    crests = np.maximum(np.sin(phase), 0.0) ** 3
    swell = value_noise(rng, height, width, (30.0 * zoom, 60.0 * zoom))
    return 0.25 + 0.55 * crests + 0.08 * swell + 0.1 * np.sin(0.5 * phase + 1.0)


def _brick(rng: Generator, height: int, width: int, zoom: float) -> FloatArray:
    along, across = _rotated_grid(height, width, rng.uniform(-0.12, 0.12))
    brick_height = rng.uniform(9.0, 14.0) * zoom
    brick_width = brick_height * rng.uniform(1.8, 2.4)
    row_position = across / brick_height + rng.uniform(0, 1)
    row = np.floor(row_position)
    column_position = along / brick_width + 0.5 * np.mod(row, 2)
    column = np.floor(column_position)
    shades = rng.uniform(-0.2, 0.2, size=(64, 64)).astype(np.float32)
    shade = shades[row.astype(np.int64) % 64, column.astype(np.int64) % 64]
    joint = 0.75 * zoom  # half the width of the mortar, in pixels
    to_edge = np.minimum(
        (0.5 - np.abs(row_position - row - 0.5)) * brick_height,
        (0.5 - np.abs(column_position - column - 0.5)) * brick_width,
    )
    mortar = np.clip(1.5 - to_edge / joint, 0.0, 1.0)
    mortar_level = rng.choice([-0.1, 1.1])
    face = 0.5 + shade + 0.06 * value_noise(rng, height, width, (2.0 * zoom, 2.0 * zoom))
    tone: FloatArray = face + mortar * (mortar_level - face)
    return tone


def _wood(rng: Generator, height: int, width: int, zoom: float) -> FloatArray:
    along, across = _rotated_grid(height, width, np.pi / 2 + rng.uniform(-0.35, 0.35))
    plank_width = rng.uniform(24.0, 40.0) * zoom
    plank_position = across / plank_width + rng.uniform(0, 1)
    plank = np.floor(plank_position)
    shades = rng.uniform(-0.15, 0.15, size=64).astype(np.float32)
    bend = value_noise(rng, height, width, (70.0 * zoom, 25.0 * zoom))
    rings = np.sin((2 * np.pi / (5.0 * zoom)) * across + 2.2 * bend + 3.0 * plank + 0.02 * along)
    fibres = value_noise(rng, height, width, (14.0 * zoom, 1.5 * zoom))
    gap = (0.5 - np.abs(plank_position - plank - 0.5)) * plank_width < 0.8 * zoom
    tone = 0.52 + shades[plank.astype(np.int64) % 64] + 0.16 * rings + 0.12 * fibres
    return np.where(gap, np.float32(-0.05), tone)


def _sky(rng: Generator, height: int, width: int, zoom: float) -> FloatArray:
    _, down = _rotated_grid(height, width, rng.uniform(-0.3, 0.3))
    fade = 0.1 + 0.45 * down / height
    clouds = value_noise(rng, height, width, (18.0 * zoom, 36.0 * zoom)) + 0.5 * value_noise(
        rng, height, width, (8.0 * zoom, 14.0 * zoom)
    )
    return fade + 0.55 * np.clip(clouds - 0.35, 0.0, 1.0)


def _sand(rng: Generator, height: int, width: int, zoom: float) -> FloatArray:
    grains = rng.standard_normal((height, width), dtype=np.float32)
    if zoom > 1.5:
        grains = value_noise(rng, height, width, (zoom, zoom))
    dunes = value_noise(rng, height, width, (35.0 * zoom, 60.0 * zoom))
    lumps = value_noise(rng, height, width, (6.0 * zoom, 6.0 * zoom))
    tone: FloatArray = 0.55 + 0.2 * grains + 0.1 * dunes + 0.06 * lumps
    return tone


_STUFF_TEXTURES: dict[str, Callable[[Generator, int, int, float], FloatArray]] = {
    "grass": _grass,
    "water": _water,
    "brick": _brick,
    "wood": _wood,
    "sky": _sky,
    "sand": _sand,
}


def stuff_texture(name: str, rng: Generator, height: int, width: int, zoom: float = 1.0) -> FloatArray:
    """Paint (height, width, 3) pixels of one stuff class; `zoom` enlarges the structure."""
    palette_name = name
    if rng.random() < _BORROWED_PALETTE_RATE:
        palette_name = str(rng.choice(list(_PALETTES)))
    pairs = _PALETTES[palette_name]
    dark, light = np.asarray(pairs[rng.integers(len(pairs))], dtype=np.float32)
    dark = dark + rng.uniform(-_COLOUR_JITTER, _COLOUR_JITTER, 3).astype(np.float32)
    light = light + rng.uniform(-_COLOUR_JITTER, _COLOUR_JITTER, 3).astype(np.float32)
    tone = _STUFF_TEXTURES[name](rng, height, width, zoom * rng.uniform(0.85, 1.25))
    return _mix(dark, light, tone.astype(np.float32, copy=False))


def _stripes(rng: Generator, u: FloatArray, v: FloatArray) -> FloatArray:
    tone: FloatArray = 0.5 + 0.9 * np.sin(rng.uniform(5.0, 11.0) * u + rng.uniform(0, 6.0))
    return tone


def _checks(rng: Generator, u: FloatArray, v: FloatArray) -> FloatArray:
    frequency = rng.uniform(4.0, 8.0)
    tone: FloatArray = 0.5 + 1.2 * np.sin(frequency * u) * np.sin(frequency * v)
    return tone


def _dots(rng: Generator, u: FloatArray, v: FloatArray) -> FloatArray:
    frequency = rng.uniform(5.0, 9.0)
    tone: FloatArray = 2.5 * (np.cos(frequency * u) + np.cos(frequency * v) - 0.7)
    return tone


def _gradient(rng: Generator, u: FloatArray, v: FloatArray) -> FloatArray:
    return 0.5 + 0.6 * u


def _plain(rng: Generator, u: FloatArray, v: FloatArray) -> FloatArray:
    return np.zeros_like(u)


def _mottled(rng: Generator, u: FloatArray, v: FloatArray) -> FloatArray:
    height, width = u.shape
    return 0.5 + 0.4 * value_noise(rng, height, width, (max(height / 6, 2.0), max(width / 6, 2.0)))


_THING_PATTERNS: tuple[Callable[[Generator, FloatArray, FloatArray], FloatArray], ...] = (
    _stripes,
    _checks,
    _dots,
    _gradient,
    _plain,
    _mottled,
)


def contrasting_colour(rng: Generator, ground: FloatArray, min_distance: float) -> FloatArray:
    """Draw a (3,) RGB colour that is not too close to the colour it will lie on."""
    for _ in range(8):
        colour = rng.uniform(10.0, 245.0, 3).astype(np.float32)
        if float(np.linalg.norm(colour - ground)) >= min_distance:
            break
    return colour


def thing_surface(
    rng: Generator, height: int, width: int, ground: FloatArray, min_contrast: float = 75.0
) -> FloatArray:
    """Paint the (height, width, 3) surface of one thing in colours that say nothing about its class.

    Args:
        rng: source of pattern, colours and lighting.
        height: rows of the patch.
        width: columns of the patch.
        ground: (3,) mean colour of what lies behind the thing.
        min_contrast: RGB distance that the main colour keeps from `ground`.
    """
    first = contrasting_colour(rng, ground, min_contrast)
    second = first + (contrasting_colour(rng, ground, min_contrast) - first) * np.float32(
        rng.uniform(0.25, 0.7)
    )
    along, across = _rotated_grid(height, width, rng.uniform(0, 2 * np.pi))
    half = np.float32(max(height, width) / 2)
    u = (along - along.mean()) / half
    v = (across - across.mean()) / half
    pattern = _THING_PATTERNS[rng.integers(len(_THING_PATTERNS))](rng, u, v)
    colours = _mix(first, second, pattern.astype(np.float32, copy=False))
    light_u, _ = _rotated_grid(height, width, rng.uniform(0, 2 * np.pi))
    shade = 1.0 + np.float32(rng.uniform(0.0, 0.3)) * (light_u - light_u.mean()) / half
    shaded: FloatArray = np.clip(colours * shade[..., None], 0.0, 255.0)
    return shaded
