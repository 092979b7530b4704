"""IoU of rotated boxes against polygon clipping in plain Python."""

from __future__ import annotations

import math

import pytest
import torch

from detectron2.layers.rotated_boxes import pairwise_iou_rotated

Point = tuple[float, float]


def corners(box: list[float]) -> list[Point]:
    """Corners on the screen, y down, so that a positive angle turns counter-clockwise for the eye."""
    x, y, width, height, angle = box
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    local = [
        (-width / 2, -height / 2),
        (width / 2, -height / 2),
        (width / 2, height / 2),
        (-width / 2, height / 2),
    ]
    return [(x + u * cos + v * sin, y - u * sin + v * cos) for u, v in local]


def clip(polygon: list[Point], a: Point, b: Point) -> list[Point]:
    """Sutherland-Hodgman: the part of a convex polygon on the inner side of the line from a to b."""

    def side(p: Point) -> float:
        return (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])

    result: list[Point] = []
    for p, q in zip(polygon, polygon[1:] + polygon[:1]):
        if side(p) >= 0:
            result.append(p)
        if side(p) * side(q) < 0:
            t = side(p) / (side(p) - side(q))
            result.append((p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])))
    return result


def area(polygon: list[Point]) -> float:
    pairs = zip(polygon, polygon[1:] + polygon[:1])
    return abs(sum(p[0] * q[1] - q[0] * p[1] for p, q in pairs)) / 2


def slow_iou(box1: list[float], box2: list[float]) -> float:
    polygon, window = corners(box1), corners(box2)
    for a, b in zip(window, window[1:] + window[:1]):
        polygon = clip(polygon, a, b)
    shared = area(polygon)
    return shared / (box1[2] * box1[3] + box2[2] * box2[3] - shared)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
def test_random_boxes_agree_with_polygon_clipping(dtype: torch.dtype, tolerance: float, device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([50.0, 50, 40, 40, 720], dtype=dtype)
    boxes = torch.rand(40, 5, generator=generator).to(dtype) * scale + torch.tensor([0.0, 0, 1, 1, -360])
    iou = pairwise_iou_rotated(boxes[:15].to(device), boxes.to(device)).cpu()
    rows = [[slow_iou(a, b) for b in boxes.tolist()] for a in boxes[:15].tolist()]
    expected = torch.tensor(rows, dtype=torch.float64)
    assert iou.dtype == dtype and (expected > 0.05).sum() > 50
    torch.testing.assert_close(iou.double(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 30.0, 45.0, 90.0, 123.4, 180.0, -90.0, 359.999])
def test_a_box_overlaps_itself_completely(angle: float) -> None:
    box = torch.tensor([[300.3, 200.7, 31.1, 17.9, angle]])
    turned = torch.tensor([[300.3, 200.7, 17.9, 31.1, angle + 90]])
    for other in (box, turned, box + torch.tensor([0.0, 0, 0, 0, 360])):
        torch.testing.assert_close(pairwise_iou_rotated(box, other), torch.ones(1, 1), atol=1e-5, rtol=0)


def test_worked_examples() -> None:
    square = [0.5, 0.5, 1.0, 1.0, 0.0]
    cases = {
        (0.25, 0.5, 0.5, 1.0, 0.0): 0.5,  # left half
        (1.5, 0.5, 1.0, 1.0, 0.0): 0.0,  # shares an edge
        (1.5, 1.5, 1.0, 1.0, 0.0): 0.0,  # shares a corner
        (0.5, 0.5, 0.5, 0.5, 45.0): 0.25,  # inside
        (0.5, 0.5, 1.0, 1.0, 45.0): (2 * math.sqrt(2) - 2) / (2 - (2 * math.sqrt(2) - 2)),  # octagon
        (9.0, 9.0, 1.0, 1.0, 10.0): 0.0,
    }
    iou = pairwise_iou_rotated(torch.tensor([square]), torch.tensor(list(cases)))
    torch.testing.assert_close(iou[0], torch.tensor(list(cases.values())), atol=1e-6, rtol=0)


def test_positive_angles_turn_counter_clockwise_on_the_screen() -> None:
    bar = torch.tensor([[0.0, 0.0, 10.0, 1.0, 45.0]])
    upper_right = torch.tensor([[3.0, -3.0, 1.0, 1.0, 0.0]])
    lower_right = torch.tensor([[3.0, 3.0, 1.0, 1.0, 0.0]])
    assert pairwise_iou_rotated(bar, upper_right) > 0
    assert pairwise_iou_rotated(bar, lower_right) < 1e-12


def test_boxes_without_area_and_no_boxes() -> None:
    flat = torch.tensor([[5.0, 5, 0, 10, 30], [5, 5, 10, 0, 30], [5, 5, 0, 0, 0]])
    box = torch.tensor([[5.0, 5, 4, 4, 10]])
    assert pairwise_iou_rotated(flat, torch.cat([box, flat])).eq(0).all()
    assert pairwise_iou_rotated(box[:0], flat).shape == (0, 3)
    assert pairwise_iou_rotated(flat, box[:0]).shape == (3, 0)
    with pytest.raises(ValueError, match="boxes2"):
        pairwise_iou_rotated(box, torch.zeros(2, 4))


def test_large_coordinates_keep_their_precision() -> None:
    box = torch.tensor([[65536.0, 65536.0, 8.0, 8.0, 30.0]])
    shifted = box + torch.tensor([2.0, 0, 0, 0, 0])
    near = box - torch.tensor([65536.0, 65536.0, 0, 0, 0])
    expected = slow_iou(near[0].tolist(), [2.0, 0, 8, 8, 30])
    assert pairwise_iou_rotated(box, shifted).item() == pytest.approx(expected, abs=1e-6)
