"""Boxes and their formats."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from detectron2.structures.boxes import (
    Boxes,
    BoxMode,
    matched_pairwise_iou,
    pairwise_intersection,
    pairwise_ioa,
    pairwise_iou,
    pairwise_point_box_distance,
)

XYXY, XYWH, XYWHA = BoxMode.XYXY_ABS, BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS


@pytest.mark.parametrize("kind", [list, tuple])
def test_one_box_is_converted_as_what_it_is(kind: type) -> None:
    assert BoxMode.convert(kind([5, 6, 20, 30]), XYWH, XYXY) == kind([5, 6, 25, 36])
    assert BoxMode.convert(kind([5.5, 6, 25, 36]), XYXY, XYWH) == kind([5.5, 6, 19.5, 30])
    assert BoxMode.convert(kind([50.0, 50, 30, 20, 0]), XYWHA, XYXY) == kind([35.0, 40, 65, 60])
    assert BoxMode.convert(kind([5, 6, 20, 30]), XYWH, XYWHA) == kind([15.0, 21.0, 20.0, 30.0, 0.0])
    assert all(type(x) is int for x in BoxMode.convert(kind([5, 6, 20, 30]), XYWH, XYXY))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_arrays_and_tensors_keep_their_type(dtype: type) -> None:
    boxes = np.array([[5, 6, 20, 30], [0, 0, 1, 1]], dtype=dtype)
    for values in (boxes, torch.from_numpy(boxes)):
        converted = BoxMode.convert(values, XYWH, XYXY)
        assert type(converted) is type(values) and converted.dtype == values.dtype
        assert converted.tolist() == [[5, 6, 25, 36], [0, 0, 1, 1]]
        assert BoxMode.convert(converted, XYXY, XYWH).tolist() == boxes.tolist()
        assert BoxMode.convert(values[:0], XYWH, XYXY).shape == (0, 4)
    assert boxes[0].tolist() == [5, 6, 20, 30]


def test_rotated_boxes_become_the_upright_box_around_them() -> None:
    boxes = torch.tensor([[50.0, 50, 30, 20, 0], [50, 50, 30, 20, 90], [0, 0, 2, 2, 45], [3, 4, 10, 6, -30]])
    upright = BoxMode.convert(boxes, XYWHA, XYXY)
    for (x, y, w, h, a), result in zip(boxes.tolist(), upright.tolist()):
        cos, sin = math.cos(math.radians(a)), math.sin(math.radians(a))
        points = [
            (x + u * w * cos + v * h * sin, y - u * w * sin + v * h * cos)
            for u in (-0.5, 0.5)
            for v in (-0.5, 0.5)
        ]
        xs, ys = zip(*points)
        assert result == pytest.approx([min(xs), min(ys), max(xs), max(ys)], abs=1e-5)


def test_what_cannot_be_converted_is_named() -> None:
    with pytest.raises(ValueError, match="XYWH_ABS has 4 numbers, got 3"):
        BoxMode.convert([1, 2, 3], XYWH, XYXY)
    with pytest.raises(ValueError, match="XYWHA_ABS has 5 numbers, got 4"):
        BoxMode.convert(torch.zeros(2, 4), XYWHA, XYXY)
    with pytest.raises(NotImplementedError, match="XYXY_REL to XYXY_ABS"):
        BoxMode.convert([0, 0, 1, 1], BoxMode.XYXY_REL, XYXY)
    assert BoxMode.convert([1, 2, 3, 4], 0, 1) == [1, 2, 2, 2]  # plain numbers, as JSON stores them
    assert (BoxMode(4), int(XYWH)) == (XYWHA, 1)


def slow_overlaps(a: list[float], b: list[float]) -> tuple[float, float, float]:
    """Intersection, IoU, and share of b that lies in a."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    return shared, shared / (area_a + area_b - shared) if shared else 0, shared / area_b if shared else 0


def random_boxes(num_boxes: int, seed: int) -> Boxes:
    corners = torch.rand(num_boxes, 2, 2, generator=torch.Generator().manual_seed(seed)) * 10
    return Boxes(torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1))


def test_pairwise_overlaps(device: str) -> None:
    boxes1, boxes2 = random_boxes(8, 0), random_boxes(9, 1)
    boxes1.tensor[0] = 0  # no area
    expected = np.array([[slow_overlaps(a.tolist(), b.tolist()) for b in boxes2] for a in boxes1])
    for index, function in enumerate((pairwise_intersection, pairwise_iou, pairwise_ioa)):
        result = function(boxes1.to(device), boxes2.to(device)).cpu()
        np.testing.assert_allclose(result.numpy(), expected[..., index], rtol=1e-5, atol=1e-6)
        assert function(boxes1[:0].to(device), boxes2.to(device)).shape == (0, 9)
        assert function(boxes1.to(device), boxes2[:0].to(device)).shape == (8, 0)
    np.testing.assert_allclose(matched_pairwise_iou(boxes2, boxes2).numpy(), np.ones(9), rtol=1e-6)
    torch.testing.assert_close(
        matched_pairwise_iou(boxes1[1:], boxes2[:7]), pairwise_iou(boxes1[1:], boxes2[:7]).diag()
    )
    with pytest.raises(ValueError, match="8 and 9"):
        matched_pairwise_iou(boxes1, boxes2)


def test_distances_of_points_to_edges() -> None:
    boxes = Boxes([[0.0, 0, 10, 4]])
    distances = pairwise_point_box_distance(torch.tensor([[1.0, 1], [12, -1]]), boxes)
    assert distances.tolist() == [[[1, 1, 9, 3]], [[12, -1, -2, 5]]]


def test_construction() -> None:
    assert Boxes([[1, 2, 3, 4]]).tensor.dtype == torch.float32
    assert Boxes(np.array([[1, 2, 3, 4]])).tensor.tolist() == [[1, 2, 3, 4]]
    for nothing in ([], torch.zeros(0), torch.zeros(0, 5), np.zeros((0, 4))):
        assert Boxes(nothing).tensor.shape == (0, 4) and len(Boxes(nothing)) == 0
    assert Boxes(torch.zeros(1, 4, dtype=torch.int64)).tensor.dtype == torch.float32
    for wrong in (torch.zeros(4), torch.zeros(2, 5), [[1, 2, 3]]):
        with pytest.raises(ValueError, match=r"\(N, 4\)"):
            Boxes(wrong)


def test_clip_moves_corners_into_the_image() -> None:
    boxes = Boxes([[-5.0, -5, 5, 5], [2, 3, 30, 40], [50, 50, 60, 60]])
    boxes.clip((20, 10))  # height, width
    assert boxes.tensor.tolist() == [[0, 0, 5, 5], [2, 3, 10, 20], [10, 20, 10, 20]]
    assert boxes.nonempty().tolist() == [True, True, False]
    nothing = Boxes([])
    nothing.clip((20, 10))
    assert len(nothing) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_clip_refuses_boxes_that_are_not_finite(bad: float) -> None:
    with pytest.raises(FloatingPointError, match=r"boxes \[1\] of 2"):
        Boxes([[0.0, 0, 1, 1], [0, bad, 1, 1]]).clip((5, 5))


def test_inside_and_measures() -> None:
    boxes = Boxes([[0.0, 0, 9, 5], [-1, 0, 9, 5], [0, 0, 10, 5], [0, 0, 0, 5]])
    assert boxes.inside_box((20, 10)).tolist() == [True, False, False, True]
    assert boxes.inside_box((20, 10), boundary_threshold=2).all()
    assert boxes.area().tolist() == [45, 50, 50, 0]
    assert boxes.nonempty(threshold=9).tolist() == [False] * 4
    assert boxes.get_centers()[1].tolist() == [4, 2.5]
    boxes.scale(2, 3)
    assert boxes.tensor[1].tolist() == [-2, 0, 18, 15]
    with pytest.raises(ValueError, match="9 is not a valid BoxMode"):
        BoxMode(9)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (1, [1]),
        (-1, [3]),
        (slice(1, 3), [1, 2]),
        ([0, 2], [0, 2]),
        (torch.tensor([3, 3]), [3, 3]),
        (torch.tensor([True, False, False, True]), [0, 3]),
        (torch.zeros(0, dtype=torch.int64), []),
    ],
)
def test_indexing(item: int | slice | list[int] | Tensor, expected: list[int]) -> None:
    boxes = Boxes(torch.arange(16.0).view(4, 4))
    assert (boxes[item].tensor[:, 0] / 4).tolist() == expected
    assert isinstance(boxes[item], Boxes)


def test_indexing_with_two_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match="one dimension"):
        Boxes(torch.zeros(4, 4))[torch.ones(4, 4, dtype=torch.bool)]
    with pytest.raises(IndexError):
        Boxes(torch.zeros(4, 4))[4]


def test_cat_copy_and_iteration() -> None:
    first, second = random_boxes(2, 0), random_boxes(3, 1)
    both = Boxes.cat([first, second])
    assert torch.equal(both.tensor, torch.cat([first.tensor, second.tensor]))
    assert len(Boxes.cat([])) == 0 and [tuple(box.shape) for box in both] == [(4,)] * 5
    alone = Boxes.cat([first])
    alone.tensor.zero_()
    assert first.tensor.abs().sum() > 0
    copy = first.clone()
    copy.scale(2, 2)
    assert not torch.equal(copy.tensor, first.tensor) and first.device.type == "cpu"
    assert repr(first).startswith("Boxes(tensor(")
    with pytest.raises(TypeError, match="Tensor"):
        Boxes.cat([first, second.tensor])
    with pytest.raises(TypeError, match="list or tuple"):
        Boxes.cat(first)


def test_gradients_reach_the_corners() -> None:
    corners = torch.tensor([[0.0, 0, 4, 4]], requires_grad=True)
    pairwise_iou(Boxes(corners), Boxes([[1.0, 1, 5, 5]])).sum().backward()
    assert corners.grad is not None and corners.grad.abs().sum() > 0
