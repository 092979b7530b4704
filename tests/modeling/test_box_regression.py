from __future__ import annotations

import math

import pytest
import torch

from detectron2.modeling.box_regression import (
    Box2BoxTransform,
    Box2BoxTransformLinear,
    Box2BoxTransformRotated,
    _dense_box_regression_loss,
)
from detectron2.structures import Boxes


def random_boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 100
    return torch.cat((corner, corner + 1 + torch.rand(count, 2, generator=generator) * 80), dim=1)


def test_deltas_by_hand() -> None:
    transform = Box2BoxTransform(weights=(10, 10, 5, 5))
    source = torch.tensor([[0.0, 0, 10, 20]])  # centre (5, 10), size 10 x 20
    target = torch.tensor([[4.0, 5, 24, 15]])  # centre (14, 10), size 20 x 10
    expected = [10 * 9 / 10, 0.0, 5 * math.log(2), 5 * math.log(0.5)]
    torch.testing.assert_close(transform.get_deltas(source, target), torch.tensor([expected]))


@pytest.mark.parametrize("count", [0, 1, 50])
@pytest.mark.parametrize("transform", [Box2BoxTransform((10, 10, 5, 5)), Box2BoxTransformLinear(False)])
def test_round_trip(transform: Box2BoxTransform, count: int) -> None:
    targets = random_boxes(count, 1)
    # The linear transform needs the source's centre inside of the target.
    sources = targets + torch.tensor([-1.0, 0.5, 1, 0.5]) * torch.rand(count, 1)
    decoded = transform.apply_deltas(transform.get_deltas(sources, targets), sources)
    torch.testing.assert_close(decoded, targets, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 50])
def test_rotated_round_trip_up_to_full_turns(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    transform = Box2BoxTransformRotated((10, 10, 5, 5, 1))

    def boxes() -> torch.Tensor:
        xywh = torch.rand(count, 4, generator=generator) * 50 + 1
        return torch.cat((xywh, torch.rand(count, 1, generator=generator) * 720 - 360), dim=1)

    sources, targets = boxes(), boxes()
    deltas = transform.get_deltas(sources, targets)
    decoded = transform.apply_deltas(deltas, sources)
    torch.testing.assert_close(decoded[:, :4], targets[:, :4], rtol=1e-4, atol=1e-3)
    turns = (decoded[:, 4] - targets[:, 4]) / 360
    torch.testing.assert_close(turns, turns.round(), rtol=0, atol=1e-4)
    assert ((decoded[:, 4] >= -180) & (decoded[:, 4] < 180)).all()
    assert (deltas[:, 4].abs() <= math.pi + 1e-5).all()


def test_each_group_of_deltas_is_applied_to_the_same_box() -> None:
    transform = Box2BoxTransform((1, 1, 1, 1))
    boxes, deltas = random_boxes(3, 0), torch.randn(3, 8)
    both = transform.apply_deltas(deltas, boxes)
    torch.testing.assert_close(both[:, :4], transform.apply_deltas(deltas[:, :4], boxes))
    torch.testing.assert_close(both[:, 4:], transform.apply_deltas(deltas[:, 4:], boxes))


def test_growth_is_limited_and_half_precision_is_decoded_in_float32() -> None:
    transform = Box2BoxTransform((1, 1, 1, 1))
    deltas = torch.tensor([[0.0, 0, 50, 50]], dtype=torch.float16)
    decoded = transform.apply_deltas(deltas, torch.tensor([[0.0, 0, 16, 16]]))
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(decoded, torch.tensor([[-492.0, -492, 508, 508]]))  # 16 * 1000/16 wide


def test_linear_deltas_by_hand() -> None:
    source, target = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[1.0, 2, 20, 30]])
    normalised = Box2BoxTransformLinear().get_deltas(source, target)
    torch.testing.assert_close(normalised, torch.tensor([[0.4, 8 / 20, 1.5, 1.0]]))
    negative = Box2BoxTransformLinear(False).apply_deltas(torch.tensor([[-3.0, 1, 2, -4]]), source)
    torch.testing.assert_close(negative, torch.tensor([[5.0, 9, 7, 10]]))


@pytest.mark.parametrize("transform", [Box2BoxTransform((1, 1, 1, 1)), Box2BoxTransformLinear()])
def test_a_source_without_area_is_refused(transform: Box2BoxTransform) -> None:
    flat = torch.tensor([[3.0, 3, 3, 9]])
    with pytest.raises(ValueError, match="positive width and height"):
        transform.get_deltas(flat, flat)


def test_boxes_object_instead_of_tensor_is_refused() -> None:
    boxes = Boxes(random_boxes(1, 0))
    with pytest.raises(TypeError, match=r"\.tensor"):
        Box2BoxTransform((1, 1, 1, 1)).get_deltas(boxes, boxes)  # type: ignore[arg-type]


def test_smooth_l1_loss_equals_a_loop() -> None:
    transform, beta = Box2BoxTransform((2, 2, 1, 1)), 0.5
    anchors = [Boxes(random_boxes(4, 0)), Boxes(random_boxes(3, 1))]
    predictions = [torch.randn(2, 4, 4), torch.randn(2, 3, 4)]
    gt = [random_boxes(7, 2), random_boxes(7, 3)]
    mask = torch.tensor([[1, 0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0, 1]], dtype=torch.bool)
    loss = _dense_box_regression_loss(anchors, transform, predictions, gt, mask, "smooth_l1", beta)

    expected, sources = 0.0, torch.cat([a.tensor for a in anchors])
    for image in range(2):
        for row in range(7):
            if not mask[image, row]:
                continue
            delta = torch.cat([p[image] for p in predictions])[row]
            target = transform.get_deltas(sources[row][None], gt[image][row][None])[0]
            for error in (delta - target).abs().tolist():
                expected += 0.5 * error**2 / beta if error < beta else error - beta / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss_type", ["giou", "diou", "ciou"])
def test_iou_losses_vanish_for_perfect_predictions_only(loss_type: str) -> None:
    transform, sources, targets = Box2BoxTransform((1, 1, 1, 1)), random_boxes(5, 0), random_boxes(5, 1)
    perfect = transform.get_deltas(sources, targets)[None]
    mask = torch.ones(1, 5, dtype=torch.bool)

    def loss(deltas: torch.Tensor) -> float:
        return _dense_box_regression_loss([sources], transform, [deltas], [targets], mask, loss_type).item()

    assert loss(perfect) == pytest.approx(0, abs=1e-4)
    assert loss(perfect + 0.3) > 0.1


@pytest.mark.parametrize("loss_type", ["smooth_l1", "giou", "diou", "ciou"])
def test_without_foreground_the_loss_is_zero_with_a_gradient(loss_type: str) -> None:
    prediction = torch.randn(1, 5, 4, requires_grad=True)
    mask = torch.zeros(1, 5, dtype=torch.bool)
    loss = _dense_box_regression_loss(
        [random_boxes(5, 0)],
        Box2BoxTransform((1, 1, 1, 1)),
        [prediction],
        [torch.zeros(5, 4)],
        mask,
        loss_type,
    )
    loss.backward()
    assert loss.item() == 0 and prediction.grad is not None and not prediction.grad.any()


def test_an_unknown_loss_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="smooth_l1, giou, diou, ciou"):
        _dense_box_regression_loss(
            [random_boxes(1, 0)],
            Box2BoxTransform((1, 1, 1, 1)),
            [torch.zeros(1, 1, 4)],
            [random_boxes(1, 1)],
            ...,
            "l2",
        )
