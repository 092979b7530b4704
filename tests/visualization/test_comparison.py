"""Sheets of pictures side by side."""

import numpy as np
import pytest

from detectron2.visualization.comparison import side_by_side


def test_pictures_are_found_again_on_the_sheet() -> None:
    left, right = np.full((20, 30, 3), 200, np.uint8), np.full((10, 5, 3), 90, np.uint8)
    sheet = side_by_side([("left", left), ("right", right)])
    assert sheet.shape[1] >= 35 and sheet.shape[0] >= 20 and sheet.dtype == np.uint8
    np.testing.assert_array_equal(sheet[-20:, :30], left)
    np.testing.assert_array_equal(sheet[-20:-10, -5:], right)
    assert (sheet[-5:, -5:] == 255).all()  # below the smaller picture


def test_nothing_to_show_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        side_by_side([])
