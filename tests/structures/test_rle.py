"""Run-length codes against pycocotools and against pixel loops."""

from __future__ import annotations

import json

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch

from detectron2.structures import rle

# pycocotools 2.0.11 does not know the `copy` argument of numpy 2 yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def _masks(num: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(num + height).random((num, height, width)) > 0.6


def _runs(mask: np.ndarray) -> list[int]:
    """Lengths of runs by a loop over pixels, column after column."""
    lengths, current = [0], False
    for pixel in mask.T.reshape(-1).tolist():
        if pixel != current:
            lengths.append(0)
            current = pixel
        lengths[-1] += 1
    return lengths


@pytest.mark.parametrize("size", [(17, 23), (1, 1), (1, 9), (30, 2)])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_codes_are_those_of_pycocotools(size: tuple[int, int], dtype: type) -> None:
    masks = _masks(4, *size)
    expected = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    given = masks.astype(dtype) * dtype(2 if dtype is not bool else 1)  # anything but 0 is inside
    assert rle.encode(given) == expected
    assert rle.encode(torch.from_numpy(given)) == expected
    assert rle.encode_one(given[2]) == expected[2]
    for mask, code in zip(masks, expected):
        np.testing.assert_array_equal(rle.decode(code), mask)


def test_every_form_of_counts_is_one_mask() -> None:
    (mask,) = _masks(1, 6, 5)
    code = rle.encode_one(mask)
    as_list = {"size": [6, 5], "counts": _runs(mask)}
    as_text = rle.as_json(code)
    assert json.loads(json.dumps(as_text)) == as_text
    for form in (code, as_list, as_text, {**as_list, "counts": np.array(as_list["counts"])}):
        assert rle.compress(form) == code
        np.testing.assert_array_equal(rle.decode(form), mask)
    assert rle.from_counts(as_list["counts"], 6, 5) == code
    assert rle.compress({**as_list, "note": 1})["note"] == 1


def test_areas_and_boxes_are_counted_pixels() -> None:
    masks = _masks(3, 12, 9)
    masks[1] = False
    masks[2] = False
    masks[2, 3:7, 2] = True
    codes = rle.encode(masks)
    assert rle.areas(codes).tolist() == masks.sum(axis=(1, 2)).tolist()
    assert rle.boxes(codes)[1:].tolist() == [[0, 0, 0, 0], [2, 3, 3, 7]]
    ys, xs = np.nonzero(masks[0])
    assert rle.boxes(codes)[0].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_nothing_is_an_ordinary_input() -> None:
    assert rle.encode(np.zeros((0, 4, 5))) == [] == rle.encode(torch.zeros(0, 4, 5))
    assert rle.areas([]).shape == (0,)
    assert rle.boxes([]).shape == (0, 4)
    assert rle.pairwise_iou([], rle.encode(np.ones((2, 3, 3)))).shape == (0, 2)
    assert not rle.decode(rle.from_polygons([], 4, 5)).any()
    assert rle.decode(rle.encode_one(np.zeros((0, 5)))).shape == (0, 5)


def test_polygons_are_united() -> None:
    left, right = [0.0, 0, 3, 0, 3, 4, 0, 4], np.array([2.0, 1, 7, 1, 7, 3, 2, 3])
    united = coco_mask.merge(coco_mask.frPyObjects([left, right.tolist()], 6, 8))
    assert rle.from_polygons([left, right], 6, 8) == united
    assert rle.decode(united)[:, :7].sum() == 3 * 4 + 5 * 2 - 1 * 2


def test_iou_counts_pixels_of_equal_images() -> None:
    first, second = _masks(2, 8, 9), _masks(3, 8, 9)
    expected = [[(a & b).sum() / (a | b).sum() for b in second] for a in first]
    np.testing.assert_allclose(rle.pairwise_iou(rle.encode(first), rle.encode(second)), expected)
    assert rle.pairwise_iou(rle.encode(first), rle.encode(_masks(1, 9, 8))).tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: rle.encode(np.zeros((3, 4))), ValueError, r"\(N, H, W\), got \(3, 4\)"),
        (lambda: rle.encode_one(np.zeros((1, 3, 4))), ValueError, r"\(H, W\), got \(1, 3, 4\)"),
        (lambda: rle.from_counts([3, 4], 5, 5), ValueError, "5 x 5 mask must add up to 25.*they give 7"),
        (lambda: rle.from_counts([-1, 26], 5, 5), ValueError, "none below 0"),
        (lambda: rle.compress({"size": [5, 5], "counts": 7}), TypeError, "list, text or bytes, got int"),
        (lambda: rle.compress({"counts": [25]}), ValueError, r"'size' and 'counts', got keys \['counts'\]"),
        (lambda: rle.decode({"size": [5], "counts": [5]}), ValueError, r"\[height, width\], got \[5\]"),
        (lambda: rle.decode({"size": [5, 2.5], "counts": [5]}), ValueError, r"got \[5, 2.5\]"),
        (lambda: rle.decode({"size": [5, -5], "counts": [5]}), ValueError, r"got \[5, -5\]"),
        (lambda: rle.decode({**rle.encode_one(np.ones((6, 6))), "size": [5, 5]}), ValueError, "size 5 x 5"),
        (lambda: rle.from_polygons([[0, 0, 1, 1]], 5, 5), ValueError, "at least 3 points, got one of 4"),
        (lambda: rle.from_polygons([[0, 0, 1, 1, 2, 2, 3]], 5, 5), ValueError, "one of 7 numbers"),
    ],
)
def test_what_is_no_mask_is_refused(call, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize(
    ("runs", "is_sound"), [([3, 20, 2], True), ([3, 2], True), ([3, 20, 5], False), ([3, 30], False)]
)
def test_runs_of_more_pixels_than_the_mask_has_are_a_problem(
    runs: list[int], is_sound: bool, as_list: bool
) -> None:
    counts = runs if as_list else rle.from_counts(runs, 1, sum(runs))["counts"]
    problem = rle.find_problem({"size": [5, 5], "counts": counts})
    assert problem is None if is_sound else f"{sum(runs)} exceed" in str(problem)


def test_what_is_no_code_is_a_problem() -> None:
    assert "'counts'" in str(rle.find_problem({"size": [5, 5]}))
    assert rle.find_problem({"size": [5, 5], "counts": [0.5, 24.5]})
