from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers, fast_rcnn_inference
from detectron2.modeling.roi_heads.rotated_fast_rcnn import fast_rcnn_inference_rotated
from detectron2.structures import Boxes, Instances, RotatedBoxes
from detectron2.utils.events import EventStorage

TRANSFORM = Box2BoxTransform((1, 1, 1, 1))


def make_predictor(**arguments) -> FastRCNNOutputLayers:
    torch.manual_seed(0)
    return FastRCNNOutputLayers(
        ShapeSpec(channels=6), **{"box2box_transform": TRANSFORM, "num_classes": 3, **arguments}
    )


def proposals(*classes_per_image: list[int]) -> list[Instances]:
    """Sources (0, 0, 10, 10), targets moved right by 1 per class id."""
    out = []
    for classes in classes_per_image:
        ids = torch.tensor(classes, dtype=torch.int64)
        boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(len(ids), 1)
        x = Instances((50, 50), proposal_boxes=Boxes(boxes), gt_classes=ids)
        if any(c < 3 for c in classes):
            x.gt_boxes = Boxes(boxes + torch.tensor([1.0, 0, 1, 0]) * ids[:, None])
        out.append(x)
    return out


def test_detections_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10, 0, 0, 20, 20], [1, 0, 11, 10, 40, 40, 80, 80]])
    scores = torch.tensor([[0.9, 0.3, 0.1], [0.8, 0.6, 0.05]])  # the last column is background
    (result,), (rows,) = fast_rcnn_inference([boxes], [scores], [(50, 50)], 0.25, 0.5, 10)
    # Box 1 of class 0 falls to box 0 (IoU 9/11); classes do not compete with each other.
    assert result.scores.tolist() == pytest.approx([0.9, 0.6, 0.3])
    assert result.pred_classes.tolist() == [0, 1, 1]
    assert result.pred_boxes.tensor.tolist() == [[0, 0, 10, 10], [40, 40, 50, 50], [0, 0, 20, 20]]  # clipped
    assert rows.tolist() == [0, 1, 0]
    (top,), _ = fast_rcnn_inference([boxes], [scores], [(50, 50)], 0.25, 0.5, 1)
    assert top.scores.tolist() == pytest.approx([0.9])


def test_class_agnostic_boxes_serve_all_classes() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.0]])
    (result,), (rows,) = fast_rcnn_inference(
        [torch.tensor([[0.0, 0, 5, 5]])], [scores], [(9, 9)], 0.1, 0.5, 10
    )
    assert result.pred_classes.tolist() == [0, 1] and rows.tolist() == [0, 0]
    assert torch.equal(result.pred_boxes.tensor[0], result.pred_boxes.tensor[1])


@pytest.mark.parametrize("count", [0, 3])
def test_nothing_above_the_threshold(count: int) -> None:
    (result,), (rows,) = fast_rcnn_inference(
        [torch.rand(count, 8)], [torch.zeros(count, 3)], [(9, 9)], 0.5, 0.5, 10
    )
    assert len(result) == len(rows) == 0 and result.pred_boxes.tensor.shape == (0, 4)


def test_non_finite_predictions_are_dropped() -> None:
    boxes = torch.tensor([[math.nan, 0, 5, 5], [0, 0, 5, 5], [0, 0, 5, 5.0]])
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [math.nan, 0.1]])
    (result,), (rows,) = fast_rcnn_inference([boxes], [scores], [(9, 9)], 0.1, 0.5, 10)
    assert rows.tolist() == [1] and result.scores.tolist() == pytest.approx([0.8])


def test_rotated_detections() -> None:
    boxes = torch.tensor([[20.0, 20, 10, 4, 0], [20, 20, 10, 4, 2], [20, 20, 10, 4, 90]])
    scores = torch.tensor([[0.7, 0.1], [0.9, 0.1], [0.8, 0.1]])
    (result,), (rows,) = fast_rcnn_inference_rotated([boxes], [scores], [(50, 50)], 0.1, 0.5, 10)
    assert isinstance(result.pred_boxes, RotatedBoxes) and rows.tolist() == [1, 2]


@pytest.mark.parametrize("agnostic", [False, True])
def test_losses_by_hand(agnostic: bool) -> None:
    predictor = make_predictor(cls_agnostic_bbox_reg=agnostic, loss_weight={"loss_box_reg": 2.0})
    logits = torch.randn(4, 4)
    deltas = torch.zeros(4, 4 if agnostic else 12)
    batch = proposals([1, 3], [2, 0])  # 3 is background
    with EventStorage() as storage:
        losses = predictor.losses((logits, deltas), batch)
    probs = logits.softmax(1)
    expected = -sum(math.log(probs[row, c]) for row, c in enumerate([1, 3, 2, 0])) / 4
    assert losses["loss_cls"].item() == pytest.approx(expected, rel=1e-5)
    # L1 of dx: class / 10, over all four regions, times the weight.
    assert losses["loss_box_reg"].item() == pytest.approx((0.1 + 0.2 + 0.0) / 4 * 2, rel=1e-5)
    right = (logits.argmax(1) == torch.tensor([1, 3, 2, 0])).float()
    assert storage.latest()["fast_rcnn/cls_accuracy"][0] == pytest.approx(right.mean().item())
    assert storage.latest()["fast_rcnn/fg_cls_accuracy"][0] == pytest.approx(right[[0, 2, 3]].mean().item())


def test_only_the_true_class_is_regressed() -> None:
    predictor = make_predictor()
    deltas = torch.randn(1, 12)
    target = torch.tensor([0.1, 0, 0, 0])
    loss = predictor.losses((torch.zeros(1, 4), deltas), proposals([1]))["loss_box_reg"]
    assert loss.item() == pytest.approx((deltas[0, 4:8] - target).abs().sum().item(), rel=1e-5)


@pytest.mark.parametrize("batch", [[[]], [[], []], [[3, 3]], []])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_without_regions_or_foreground_all_parameters_get_gradients(batch: list, sigmoid: bool) -> None:
    predictor = make_predictor(use_sigmoid_ce=sigmoid)
    predictions = predictor(torch.randn(sum(len(b) for b in batch), 6))
    losses = predictor.losses(predictions, proposals(*batch))
    sum(losses.values()).backward()
    assert losses["loss_box_reg"] == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in predictor.parameters())


def test_sigmoid_loss_by_hand() -> None:
    predictor = make_predictor(use_sigmoid_ce=True)
    logits, classes = torch.randn(3, 4), torch.tensor([0, 3, 2])
    expected = 0.0
    for row, true_class in enumerate(classes.tolist()):
        for c in range(3):
            p = 1 / (1 + math.exp(-logits[row, c]))
            expected -= math.log(p if c == true_class else 1 - p)
    assert predictor.sigmoid_cross_entropy_loss(logits, classes).item() == pytest.approx(
        expected / 3, rel=1e-5
    )
    (probs,) = predictor.predict_probs((logits, torch.zeros(3, 12)), proposals([0, 3, 2]))
    torch.testing.assert_close(probs, logits.sigmoid())


def test_federated_loss_looks_at_present_classes_and_drawn_ones() -> None:
    weights = torch.tensor([0.0, 1.0, 0.0])
    predictor = make_predictor(
        use_sigmoid_ce=True,
        use_fed_loss=True,
        get_fed_loss_cls_weights=lambda: weights,
        fed_loss_num_classes=2,
    )
    assert "fed_loss_cls_weights" not in predictor.state_dict()
    classes = torch.tensor([2, 2])
    drawn = predictor.get_fed_loss_classes(classes, 2, 3, weights)
    assert sorted(drawn.tolist()) == [1, 2]  # class 0 has no weight
    assert predictor.get_fed_loss_classes(torch.tensor([0, 2, 3]), 2, 3, weights).tolist() == [0, 2, 3]
    logits = torch.randn(2, 4)
    target = F.one_hot(classes, 4)[:, 1:3].float()
    expected = F.binary_cross_entropy_with_logits(logits[:, 1:3], target, reduction="sum") / 2
    torch.testing.assert_close(predictor.sigmoid_cross_entropy_loss(logits, classes), expected)


def test_federated_loss_needs_sigmoid_and_matching_weights() -> None:
    with pytest.raises(ValueError, match="USE_SIGMOID_CE"):
        make_predictor(use_fed_loss=True, get_fed_loss_cls_weights=lambda: torch.ones(3))
    with pytest.raises(ValueError, match="weights of 5 classes, NUM_CLASSES is 3"):
        make_predictor(use_fed_loss=True, use_sigmoid_ce=True, get_fed_loss_cls_weights=lambda: torch.ones(5))


def test_predicted_boxes_per_image() -> None:
    predictor = make_predictor()
    deltas = torch.zeros(3, 12)
    deltas[:, 4] = 0.5  # class 1 moves right by half a box
    batch = proposals([1, 0], [3])
    boxes = predictor.predict_boxes((torch.zeros(3, 4), deltas), batch)
    assert [b.shape for b in boxes] == [(2, 12), (1, 12)]
    assert boxes[0][0].tolist() == [0, 0, 10, 10, 5, 0, 15, 10, 0, 0, 10, 10]
    of_class = predictor.predict_boxes_for_gt_classes((torch.zeros(3, 4), deltas), batch)
    assert [b.tolist() for b in of_class] == [[[5, 0, 15, 10], [0, 0, 10, 10]], [[0, 0, 10, 10]]]
    assert predictor.predict_boxes((torch.zeros(0, 4), torch.zeros(0, 12)), []) == []


def test_mixed_precision_predictions_give_float32_losses(device: str) -> None:
    predictor = make_predictor().to(device)
    with torch.autocast(device, dtype=torch.bfloat16):
        predictions = predictor(torch.randn(2, 6, device=device))
        assert predictions[0].dtype == torch.bfloat16
        batch = [p.to(device) for p in proposals([1, 3])]
        losses = predictor.losses(predictions, batch)
        detections, _ = predictor.inference(predictions, batch)
    assert {x.dtype for x in losses.values()} == {torch.float32}
    assert detections[0].scores.dtype == detections[0].pred_boxes.tensor.dtype == torch.float32
