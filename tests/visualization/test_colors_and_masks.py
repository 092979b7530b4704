"""Colours and mask conversions."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as mask_util

from detectron2.utils.colormap import colormap, random_color, random_colors
from detectron2.utils.visualizer import GenericMask
from detectron2.visualization.colors import change_brightness, legible_on_dark, parse_color, shade
from detectron2.visualization.masks import innermost_point


@pytest.mark.parametrize("maximum", [255, 1])
def test_palette_has_distinct_colours_in_range(maximum: int) -> None:
    palette = colormap(rgb=True, maximum=maximum)
    assert palette.shape[1] == 3 and palette.dtype == np.float32
    assert palette.min() >= 0 and palette.max() <= maximum
    near = np.linalg.norm(palette[:20, None] - palette[None, :20], axis=2) + 1e9 * np.eye(20)
    assert near.min() > 0.1 * maximum
    np.testing.assert_array_equal(colormap(maximum=maximum), palette[:, ::-1])


def test_random_colours_repeat_only_when_all_are_used() -> None:
    size = len(colormap())
    assert len({tuple(c) for c in random_colors(size)}) == size
    assert len(random_colors(size + 5, rgb=True, maximum=1)) == size + 5
    assert random_colors(0) == [] and random_color().shape == (3,)
    with pytest.raises(ValueError, match="255 or 1"):
        colormap(maximum=100)


def test_colours_are_read_from_what_users_write() -> None:
    assert parse_color("g") == (0.0, 0.5, 0.0) and parse_color("0.5") == (0.5, 0.5, 0.5)
    assert parse_color("orange") == parse_color("#ffa500") == parse_color("tab:orange")
    assert parse_color((0.1, 0.2, 0.3, 0.4)) == (0.1, 0.2, 0.3)
    for wrong in ("no such colour", (255, 0, 0), (0.1, 0.2)):
        with pytest.raises(ValueError, match="colour"):
            parse_color(wrong)


def test_brightness_moves_towards_white_or_black() -> None:
    assert change_brightness((0.5, 0.0, 1.0), 1.0) == (1.0, 1.0, 1.0)
    assert change_brightness((0.5, 0.0, 1.0), -0.5) == pytest.approx((0.25, 0.0, 0.5))
    assert change_brightness((0.2, 0.2, 0.2), 0.5) == pytest.approx((0.3, 0.3, 0.3))
    with pytest.raises(ValueError, match="factor"):
        change_brightness("r", 2)
    assert min(np.dot(legible_on_dark(c), (0.3, 0.6, 0.1)) for c in ("k", "b", "r", "w", "m")) > 0.5


def test_shades_differ_and_start_with_the_colour_itself() -> None:
    shades = [shade((0.8, 0.3, 0.2), i) for i in range(12)]
    assert shades[0] == pytest.approx((0.8, 0.3, 0.2))
    assert len({tuple(np.round(s, 2)) for s in shades}) == 12
    assert all(0 <= channel <= 1 for s in shades for channel in s)


def test_mask_forms_convert_into_each_other() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[4:12, 5:20] = 1
    rle = mask_util.encode(np.asfortranarray(mask))
    for given in (mask, mask.astype(bool), rle, [[5, 4, 20, 4, 20, 12, 5, 12]]):
        generic = GenericMask(given, 20, 30)
        np.testing.assert_array_equal(generic.mask, mask)
        assert generic.area() == 120 and not generic.has_holes
        np.testing.assert_array_equal(generic.bbox(), [5, 4, 20, 12])
        assert len(generic.polygons) == 1
    uncompressed = {"size": [20, 30], "counts": [0, 600]}
    assert GenericMask(uncompressed, 20, 30).area() == 600


def test_holes_are_noticed() -> None:
    ring = np.ones((20, 20), np.uint8)
    ring[8:12, 8:12] = 0
    assert GenericMask(ring, 20, 20).has_holes and len(GenericMask(ring, 20, 20).polygons) == 2


def test_empty_masks_are_ordinary() -> None:
    for given in (np.zeros((5, 5)), [], [[1.0, 2.0]]):
        generic = GenericMask(given, 5, 5)
        assert generic.area() == 0 and not generic.has_holes
        np.testing.assert_array_equal(generic.bbox(), np.zeros(4))
    assert innermost_point(np.zeros((5, 5))) is None


def test_masks_of_wrong_size_or_kind_are_errors() -> None:
    with pytest.raises(ValueError, match=r"mask is \(5, 5\), the image \(5, 6\)"):
        GenericMask(np.zeros((5, 5)), 5, 6)
    with pytest.raises(ValueError, match="run lengths are for"):
        GenericMask({"size": [5, 5], "counts": [25]}, 5, 6)
    with pytest.raises(TypeError, match="list of polygons"):
        GenericMask(3, 5, 5)  # type: ignore[arg-type]


def test_innermost_point_is_far_from_the_border() -> None:
    mask = np.zeros((40, 40), bool)
    mask[:, 5:25] = True
    mask[30:, :] = True
    x, y = innermost_point(mask) or (0, 0)
    assert 12 <= x <= 18 and 9 <= y <= 32
