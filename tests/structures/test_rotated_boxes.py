"""Rotated boxes against their corners, computed one by one."""

from __future__ import annotations

import math

import pytest
import torch

from detectron2.structures import pairwise_iou_rotated
from detectron2.structures.boxes import Boxes
from detectron2.structures.rotated_boxes import RotatedBoxes, pairwise_iou


def corners(box: list[float]) -> list[tuple[float, float]]:
    x, y, w, h, a = box
    cos, sin = math.cos(math.radians(a)), math.sin(math.radians(a))
    halves = [(u * w / 2, v * h / 2) for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return [(x + u * cos + v * sin, y - u * sin + v * cos) for u, v in halves]


def random_boxes(num_boxes: int) -> RotatedBoxes:
    boxes = torch.rand(num_boxes, 5, generator=torch.Generator().manual_seed(0))
    return RotatedBoxes(boxes * torch.tensor([60.0, 40, 30, 20, 720]) - torch.tensor([5.0, 5, 0, 0, 360]))


def test_construction_and_indexing() -> None:
    boxes = random_boxes(4)
    assert isinstance(boxes[1], RotatedBoxes) and len(boxes[1]) == 1 and len(boxes[1:]) == 3
    assert len(boxes[torch.tensor([True, False, True, False])]) == 2
    assert RotatedBoxes([]).tensor.shape == (0, 5) and len(RotatedBoxes.cat([])) == 0
    assert len(RotatedBoxes.cat([boxes, boxes[:1]])) == 5
    assert isinstance(RotatedBoxes.cat([boxes]), RotatedBoxes)
    upright = Boxes(torch.zeros(1, 4))
    for kind, mixed in ((RotatedBoxes, [boxes, upright]), (Boxes, [upright, boxes])):
        with pytest.raises(TypeError, match=f"expected only {kind.__name__} to concatenate, got "):
            kind.cat(mixed)
    assert [tuple(box.shape) for box in boxes[:2]] == [(5,), (5,)]
    assert boxes.to("cpu").clone().device.type == "cpu" and "RotatedBoxes" in repr(boxes)
    with pytest.raises(ValueError, match=r"\(N, 5\)"):
        RotatedBoxes(torch.zeros(2, 4))


def test_angles_are_brought_into_one_turn() -> None:
    boxes = RotatedBoxes([[0.0, 0, 1, 1, angle] for angle in (180, -180, 540, 359, -725, 0)])
    boxes.normalize_angles()
    assert boxes.tensor[:, 4].tolist() == pytest.approx([-180, -180, -180, -1, -5, 0])


def test_measures() -> None:
    boxes = RotatedBoxes([[5.0, 6, 4, 3, 30], [5, 6, 0, 3, 30]])
    assert boxes.area().tolist() == [12, 0]
    assert boxes.nonempty().tolist() == [True, False]
    assert boxes.get_centers().tolist() == [[5, 6], [5, 6]]


def test_clip_cuts_upright_boxes_alone() -> None:
    boxes = RotatedBoxes([[0.0, 5, 10, 4, 0.5], [0, 5, 10, 4, 359.5], [0, 5, 10, 4, 30], [30, 30, 4, 4, 0]])
    boxes.clip((20, 20))
    assert boxes.tensor[0].tolist() == [2.5, 5, 5, 4, 0.5]
    assert boxes.tensor[1].tolist() == [2.5, 5, 5, 4, -0.5]
    assert boxes.tensor[2].tolist() == [0, 5, 10, 4, 30]
    assert boxes.tensor[3].tolist() == [20, 20, 0, 0, 0]
    steep = RotatedBoxes([[0.0, 5, 10, 4, 30]])
    steep.clip((20, 20), clip_angle_threshold=45)
    assert steep.tensor[0].tolist() == [2.5, 5, 5, 4, 30]
    RotatedBoxes([]).clip((5, 5))


def test_inside_box_looks_at_all_corners() -> None:
    boxes = random_boxes(60)
    inside = boxes.inside_box((40, 60))
    for box, result in zip(boxes.tensor.tolist(), inside.tolist()):
        assert result == all(0 <= x < 60 and 0 <= y < 40 for x, y in corners(box))
    assert 5 < inside.sum() < 55
    assert boxes.inside_box((40, 60), boundary_threshold=50).all()


def test_scaling_evenly_scales_the_corners() -> None:
    boxes = random_boxes(10)
    before = boxes.tensor.tolist()
    boxes.scale(2.5, 2.5)
    for old, new in zip(before, boxes.tensor.tolist()):
        for (x, y), (scaled_x, scaled_y) in zip(corners(old), corners(new)):
            assert (scaled_x, scaled_y) == pytest.approx((2.5 * x, 2.5 * y), abs=1e-3)


def test_scaling_unevenly_keeps_side_lengths_and_direction_of_the_height() -> None:
    boxes = random_boxes(10)
    before = boxes.tensor.tolist()
    boxes.scale(3.0, 0.5)
    for old, new in zip(before, boxes.tensor.tolist()):
        a, b, c, _ = [(3.0 * x, 0.5 * y) for x, y in corners(old)]
        assert new[2] == pytest.approx(math.dist(a, b), rel=1e-4)
        assert new[3] == pytest.approx(math.dist(b, c), rel=1e-4)
        p, q = corners(new)[1:3]
        assert (q[0] - p[0], q[1] - p[1]) == pytest.approx((c[0] - b[0], c[1] - b[1]), abs=1e-2)


def test_iou_of_both_import_paths() -> None:
    boxes = random_boxes(5)
    assert pairwise_iou is pairwise_iou_rotated
    iou = pairwise_iou(boxes, boxes[:3])
    assert iou.shape == (5, 3)
    torch.testing.assert_close(iou.diagonal(), torch.ones(3), atol=1e-5, rtol=0)
