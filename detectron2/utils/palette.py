"""Colours that look as different from each other as there is room for, as many as are asked for.

Colours are 8-bit RGB. Distances are taken in the OKLab space, in which equal steps look equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

__all__ = ["RGB", "distinct_colors", "palette_rgb"]

RGB = tuple[int, int, int]

_FIRST_COLOR: RGB = (50, 118, 237)
_GRID_STEP = 17
_LIGHTNESS = (0.50, 0.88)  # darker or lighter ones are lost on pictures, or below white letters
_MIN_CHROMA = 0.07
_SHORT = 128
"""So many are worked out at first: few data sets have more classes, and more take longer."""

_RGB_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_CONES_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def palette_rgb(index: int) -> RGB:
    """The palette's colour at an index, the same on every run; no two of ten million are equal."""
    known = _palette(_SHORT)
    if index >= _SHORT:
        known = _palette(len(_candidates()[0]))
    turn, place = divmod(index, len(known))
    # Further turns leave the grid, each by another step, so that they meet no colour of an earlier one.
    steps = (turn % _GRID_STEP, turn // _GRID_STEP % _GRID_STEP, turn // _GRID_STEP**2 % _GRID_STEP)
    red, green, blue = (c - s for c, s in zip(known[place], steps))
    return red, green, blue


def distinct_colors(number: int, taken: Iterable[Sequence[int]] = ()) -> list[RGB]:
    """Colours that differ from each other and from those that are taken.

    Args:
        number: how many.
        taken: 8-bit RGB.
    """
    if number <= 0:
        return []
    avoided = [(int(r), int(g), int(b)) for r, g, b in taken]
    if not avoided:
        return [palette_rgb(i) for i in range(number)]
    found = _spread(number, avoided)
    used = {*avoided, *found}
    index = 0
    while len(found) < number:
        color = palette_rgb(index)
        index += 1
        if color not in used:
            found.append(color)
            used.add(color)
    return found


@lru_cache(maxsize=2)
def _palette(number: int) -> list[RGB]:
    return [_FIRST_COLOR, *_spread(number - 1, [_FIRST_COLOR])]


def _spread(number: int, taken: Sequence[RGB]) -> list[RGB]:
    """Pick candidates one by one, each as far as possible from all colours so far; fewer where they run
    out.
    """
    colors, lab = _candidates()
    nearest = np.full(len(colors), np.inf)
    for start in _to_lab(np.asarray(taken)):
        nearest = np.minimum(nearest, ((lab - start) ** 2).sum(axis=1))
    picked: list[RGB] = []
    while len(picked) < number:
        best = int(nearest.argmax())
        if nearest[best] <= 0:
            break
        red, green, blue = colors[best].tolist()
        picked.append((red, green, blue))
        nearest = np.minimum(nearest, ((lab - lab[best]) ** 2).sum(axis=1))
    return picked


@lru_cache(maxsize=1)
def _candidates() -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) int RGB of a grid that are neither grey nor very dark or light, and (N, 3) in OKLab."""
    levels = np.arange(_GRID_STEP - 1, 256, _GRID_STEP)  # with room below the first for every step
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _to_lab(grid)
    lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    usable = (lightness > _LIGHTNESS[0]) & (lightness < _LIGHTNESS[1]) & (chroma > _MIN_CHROMA)
    return grid[usable], lab[usable]


def _to_lab(colors: np.ndarray) -> np.ndarray:
    """(N, 3) 8-bit RGB -> (N, 3) OKLab."""
    unit = colors / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    lab: np.ndarray = np.cbrt(linear @ _RGB_TO_CONES.T) @ _CONES_TO_LAB.T
    return lab
