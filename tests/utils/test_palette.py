"""Colours of a palette that never ends."""

from __future__ import annotations

import numpy as np
import pytest

from detectron2.utils.palette import distinct_colors, palette_rgb


def _smallest_distance(colors: list[tuple[int, int, int]]) -> float:
    array = np.asarray(colors, dtype=float)
    distances = np.linalg.norm(array[:, None] - array[None], axis=2)
    return float(distances[~np.eye(len(array), dtype=bool)].min())


@pytest.mark.parametrize(("number", "distance"), [(10, 80), (80, 30), (133, 20), (300, 16), (1203, 16)])
def test_colours_are_as_far_apart_as_there_is_room(number: int, distance: float) -> None:
    colors = [palette_rgb(i) for i in range(number)]
    assert _smallest_distance(colors) >= distance
    assert all(0 <= channel <= 255 for color in colors for channel in color)


def test_no_colour_comes_twice() -> None:
    assert len({palette_rgb(i) for i in range(20_000)}) == 20_000


def test_more_colours_leave_the_first_ones_as_they_are() -> None:
    first = [palette_rgb(i) for i in range(60)]
    palette_rgb(5000)
    assert [palette_rgb(i) for i in range(60)] == first == distinct_colors(60)


def test_taken_colours_are_kept_away_from() -> None:
    taken = [palette_rgb(0), (128, 128, 128), (0, 0, 0)]
    assert _smallest_distance([*taken, *distinct_colors(100, taken)]) > 20
    assert len({*taken, *distinct_colors(3000, taken)}) == 3003  # more than the palette's grid has
    assert distinct_colors(0, taken) == []
