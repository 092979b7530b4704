"""Losses against worked examples, scalar formulas and gradcheck."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from detectron2.layers.losses import ciou_loss, diou_loss, giou_loss, sigmoid_focal_loss, smooth_l1_loss

BOX_LOSSES = [giou_loss, diou_loss, ciou_loss]


def slow_box_losses(a: list[float], b: list[float]) -> tuple[float, float, float]:
    """GIoU, DIoU and CIoU loss of two boxes."""
    wa, ha, wb, hb = a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = wa * ha + wb * hb - shared
    hull_w, hull_h = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    iou = shared / union
    dx, dy = (a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2
    diou = 1 - iou + (dx * dx + dy * dy) / (hull_w**2 + hull_h**2)
    v = 4 / math.pi**2 * (math.atan(wb / hb) - math.atan(wa / ha)) ** 2
    giou = 1 - iou + (hull_w * hull_h - union) / (hull_w * hull_h)
    return giou, diou, diou + v * v / (1 - iou + v) if v else diou


def random_boxes(seed: int, num_boxes: int = 30) -> Tensor:
    start = torch.rand(num_boxes, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 5
    size = torch.rand(num_boxes, 2, generator=torch.Generator().manual_seed(seed + 9), dtype=torch.float64)
    return torch.cat([start, start + size * 4 + 0.5], dim=1)


@pytest.mark.parametrize("index", range(3))
def test_box_losses_follow_their_formulas(index: int, device: str) -> None:
    boxes1, boxes2 = random_boxes(0), random_boxes(1)
    loss = BOX_LOSSES[index](boxes1.to(device), boxes2.to(device)).cpu()
    expected = [slow_box_losses(a, b)[index] for a, b in zip(boxes1.tolist(), boxes2.tolist())]
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("loss", BOX_LOSSES)
def test_equal_boxes_cost_nothing_and_gradients_are_right(loss: Callable[..., Tensor]) -> None:
    boxes1, boxes2 = random_boxes(0, 6), random_boxes(1, 6)
    assert loss(boxes1, boxes1).abs().max() < 1e-6
    if loss is not ciou_loss:  # its trade-off is a constant for the gradient, on purpose
        assert torch.autograd.gradcheck(lambda x: loss(x, boxes2), (boxes1.requires_grad_(),))


def test_ciou_gradient_ignores_the_trade_off() -> None:
    boxes1, boxes2 = random_boxes(0, 5).requires_grad_(), random_boxes(1, 5)
    (full,) = torch.autograd.grad(ciou_loss(boxes1, boxes2, "sum"), boxes1)
    (distance,) = torch.autograd.grad(diou_loss(boxes1, boxes2, "sum"), boxes1)
    size1, size2 = boxes1[:, 2:] - boxes1[:, :2], boxes2[:, 2:] - boxes2[:, :2]
    angle = torch.atan(size2[:, 0] / size2[:, 1]) - torch.atan(size1[:, 0] / size1[:, 1])
    v = 4 / math.pi**2 * angle**2
    iou = 1 - torch.tensor([slow_box_losses(a, b)[1] for a, b in zip(boxes1.tolist(), boxes2.tolist())])
    with torch.no_grad():
        lower = torch.maximum(boxes1[:, :2], boxes2[:, :2])
        common = (torch.minimum(boxes1[:, 2:], boxes2[:, 2:]) - lower).clamp(min=0).prod(1)
        iou = common / (size1.prod(1) + size2.prod(1) - common)
        alpha = v / (1 - iou + v + 1e-7)
    (aspect,) = torch.autograd.grad((alpha * v).sum(), boxes1)
    torch.testing.assert_close(full, distance + aspect, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("loss", BOX_LOSSES)
def test_reductions_and_no_boxes(loss: Callable[..., Tensor]) -> None:
    boxes1, boxes2 = random_boxes(0), random_boxes(1)
    each = loss(boxes1, boxes2)
    torch.testing.assert_close(loss(boxes1, boxes2, reduction="mean"), each.mean())
    torch.testing.assert_close(loss(boxes1, boxes2, reduction="sum"), each.sum())
    nothing = torch.zeros(0, 4, requires_grad=True)
    for reduction in ("mean", "sum"):
        empty = loss(nothing, torch.zeros(0, 4), reduction=reduction)
        assert empty.item() == 0
        empty.backward()
    with pytest.raises(ValueError, match="reduction"):
        loss(boxes1, boxes2, reduction="median")


def test_smooth_l1_is_quadratic_near_zero() -> None:
    error = torch.tensor([-3.0, -0.5, 0.0, 0.25, 1.0, 2.0])
    expected = torch.tensor([2.5, 0.125, 0.0, 0.03125, 0.5, 1.5])
    torch.testing.assert_close(smooth_l1_loss(error, torch.zeros(6), beta=1.0), expected)
    torch.testing.assert_close(smooth_l1_loss(error, torch.zeros(6), beta=0.0), error.abs())
    torch.testing.assert_close(
        smooth_l1_loss(error, torch.zeros(6), beta=0.3, reduction="mean"),
        F.smooth_l1_loss(error, torch.zeros(6), beta=0.3),
    )
    empty = smooth_l1_loss(torch.zeros(0, 4, requires_grad=True), torch.zeros(0, 4), 0.1, "mean")
    assert empty.item() == 0 and empty.requires_grad


def test_focal_loss_follows_its_formula() -> None:
    logits = torch.linspace(-4, 4, 9, dtype=torch.float64)
    for target in (0.0, 1.0):
        for alpha, gamma in ((-1, 2), (0.25, 2), (0.6, 0), (0.25, 1.5)):
            loss = sigmoid_focal_loss(logits, torch.full_like(logits, target), alpha, gamma)
            for value, logit in zip(loss.tolist(), logits.tolist()):
                prob = 1 / (1 + math.exp(-logit))
                right = prob if target else 1 - prob
                factor = 1 if alpha < 0 else alpha if target else 1 - alpha
                expected = -factor * (1 - right) ** gamma * math.log(right)
                assert value == pytest.approx(expected, rel=1e-5)


def test_focal_loss_gradient_is_finite_for_extreme_logits() -> None:
    logits = torch.tensor([-100.0, -30, 0, 30, 100], requires_grad=True)
    for target in (0.0, 1.0):
        sigmoid_focal_loss(logits, torch.full((5,), target), 0.25, 2, "sum").backward()
        assert logits.grad is not None and logits.grad.isfinite().all()
