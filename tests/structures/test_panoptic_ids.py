"""Colours of panoptic PNGs."""

from __future__ import annotations

import numpy as np
import pytest

from detectron2.structures.panoptic_ids import (
    NUM_IDS,
    color_of_id,
    colors_from_ids,
    id_of_color,
    ids_from_colors,
)


def test_ids_and_colours_are_one_number() -> None:
    colors = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 0, 1], [255, 255, 255], [7, 8, 9]]], np.uint8)
    ids = [[0, 1, 256], [65536, NUM_IDS - 1, 7 + 8 * 256 + 9 * 65536]]
    assert ids_from_colors(colors).tolist() == ids
    assert ids_from_colors(colors).dtype == np.int32
    for dtype in (np.int32, np.int64, np.uint32):
        np.testing.assert_array_equal(colors_from_ids(np.array(ids, dtype)), colors)
    for row, row_of_ids in zip(colors.tolist(), ids):
        assert [color_of_id(id) for id in row_of_ids] == [tuple(color) for color in row]
        assert [id_of_color(tuple(color)) for color in row] == row_of_ids


@pytest.mark.parametrize("ids", [[[-1]], [[NUM_IDS]]])
def test_ids_beyond_a_colour_are_refused(ids: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"lie in \[0, 16777216\)"):
        colors_from_ids(np.array(ids))


@pytest.mark.parametrize(
    "colors", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))]
)
def test_other_pictures_are_refused(colors: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\(H, W, 3\) and 8 bits"):
        ids_from_colors(colors)


def test_empty_pictures_are_ordinary() -> None:
    assert ids_from_colors(np.zeros((0, 5, 3), np.uint8)).shape == (0, 5)
    assert colors_from_ids(np.zeros((0, 5), np.int64)).shape == (0, 5, 3)
