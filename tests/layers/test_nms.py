"""Suppression against a plain Python loop in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from detectron2.layers.nms import batched_nms, batched_nms_rotated, nms, nms_rotated
from detectron2.layers.rotated_boxes import pairwise_iou_rotated


def slow_nms(boxes: Tensor, scores: Tensor, threshold: float, groups: Tensor | None = None) -> list[int]:
    """Walk the boxes from best to worst, as the definition says."""
    order = sorted(range(len(boxes)), key=lambda i: -float(scores[i]))  # stable
    rows = boxes.double().tolist()
    kept: list[int] = []
    for i in order:
        if all(
            (groups is not None and groups[i] != groups[j]) or not slow_iou(rows[i], rows[j]) > threshold
            for j in kept
        ):
            kept.append(i)
    return kept


def slow_iou(a: list[float], b: list[float]) -> float:
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union else float("nan")


def random_boxes(num_boxes: int, seed: int = 0, size: float = 60) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(num_boxes, 2, generator=generator) * 100
    extent = torch.rand(num_boxes, 2, generator=generator) * size + 1
    return torch.cat([start, start + extent], dim=1), torch.rand(num_boxes, generator=generator)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("num_boxes", [0, 1, 2, 127, 128, 300])
def test_nms_keeps_what_the_loop_keeps(num_boxes: int, threshold: float, device: str) -> None:
    boxes, scores = random_boxes(num_boxes)
    keep = nms(boxes.to(device), scores.to(device), threshold)
    assert keep.dtype == torch.int64 and keep.device.type == device
    assert keep.tolist() == slow_nms(boxes, scores, threshold)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_nms_takes_other_precisions(dtype: torch.dtype) -> None:
    boxes, scores = random_boxes(50)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    assert nms(boxes, scores, 0.5).tolist() == slow_nms(boxes, scores, 0.5)


def test_boxes_of_equal_score_keep_their_order() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 10, 10.1], [40, 0, 50, 10]])
    assert nms(boxes, torch.full((4,), 0.5), 0.5).tolist() == [0, 1, 3]


def test_a_box_at_exactly_the_threshold_survives() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 1], [0, 0, 1, 1]])  # IoU 0.5
    scores = torch.tensor([0.9, 0.8])
    assert nms(boxes, scores, 0.5).tolist() == [0, 1]
    assert nms(boxes, scores, 0.49999).tolist() == [0]


def test_threshold_is_compared_in_double_precision() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, 1, 1]])
    iou = torch.tensor(0.1, dtype=torch.float32).item()  # 1 / 10 in float32, a little more than 0.1
    assert iou > 0.1
    assert nms(boxes, torch.tensor([0.9, 0.8]), 0.1).tolist() == [0]
    assert nms(boxes, torch.tensor([0.9, 0.8]), iou).tolist() == [0, 1]


def test_boxes_without_area_and_nan_boxes_suppress_nothing() -> None:
    boxes = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1], [float("nan"), 0, 5, 5], [0, 0, 5, 5]])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    assert nms(boxes, scores, 0.5).tolist() == [0, 1, 2, 3]


def test_nms_accepts_views() -> None:
    boxes, scores = random_boxes(80)
    expected = slow_nms(boxes[::2], scores[::2], 0.4)
    assert nms(boxes[::2], scores[::2], 0.4).tolist() == expected
    assert nms(boxes[::2].T.contiguous().T, scores[::2], 0.4).tolist() == expected


@pytest.mark.parametrize("num_groups", [1, 3, 40])
@pytest.mark.parametrize("num_boxes", [0, 1, 250])
def test_batched_nms_works_within_groups(num_boxes: int, num_groups: int) -> None:
    boxes, scores = random_boxes(num_boxes, seed=1)
    groups = torch.randint(num_groups, (num_boxes,), generator=torch.Generator().manual_seed(2))
    assert batched_nms(boxes, scores, groups, 0.5).tolist() == slow_nms(boxes, scores, 0.5, groups)


def test_batched_nms_is_exact_far_from_the_origin() -> None:
    boxes, scores = random_boxes(200, seed=3)
    boxes = (boxes * 4).round() + 2**20  # representable; sums of coordinates and class offsets would not be
    groups = torch.arange(200) % 7 * 1000
    assert batched_nms(boxes, scores, groups, 0.5).tolist() == slow_nms(boxes, scores, 0.5, groups)


def random_rotated(num_boxes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([60.0, 60, 40, 40, 360])
    boxes = torch.rand(num_boxes, 5, generator=generator) * scale + torch.tensor([0.0, 0, 1, 1, -180])
    return boxes, torch.rand(num_boxes, generator=generator)


@pytest.mark.parametrize("num_boxes", [0, 1, 150])
def test_rotated_nms_keeps_what_the_loop_keeps(num_boxes: int) -> None:
    boxes, scores = random_rotated(num_boxes)
    groups = torch.arange(num_boxes) % 3
    iou = pairwise_iou_rotated(boxes, boxes)

    def walk(separate: bool) -> list[int]:
        kept: list[int] = []
        for i in scores.argsort(descending=True).tolist():
            if all((separate and groups[i] != groups[j]) or iou[i, j] <= 0.3 for j in kept):
                kept.append(i)
        return kept

    assert nms_rotated(boxes, scores, 0.3).tolist() == walk(separate=False)
    assert batched_nms_rotated(boxes, scores, groups, 0.3).tolist() == walk(separate=True)


def test_rotated_nms_of_upright_boxes_is_nms() -> None:
    boxes, scores = random_boxes(120, seed=5)
    center, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    rotated = torch.cat([center, size, torch.zeros(120, 1)], dim=1)
    quarter_turn = torch.cat([center, size.flip(1), torch.full((120, 1), 90.0)], dim=1)
    expected = nms(boxes, scores, 0.4).tolist()
    assert nms_rotated(rotated, scores, 0.4).tolist() == expected
    assert nms_rotated(quarter_turn, scores, 0.4).tolist() == expected


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"boxes of shape \(R, 4\), got \(2, 5\)"):
        nms(torch.zeros(2, 5), torch.zeros(2), 0.5)
    with pytest.raises(ValueError, match="one entry of scores per box"):
        nms(torch.zeros(2, 4), torch.zeros(3), 0.5)
    with pytest.raises(ValueError, match="one entry of idxs per box"):
        batched_nms(torch.zeros(2, 4), torch.zeros(2), torch.zeros(1), 0.5)


def test_scores_with_gradient_are_welcome() -> None:
    boxes, scores = random_boxes(10)
    assert len(nms(boxes.requires_grad_(), scores.requires_grad_(), 0.5)) > 0
    assert np.isfinite(scores.detach().numpy()).all()
