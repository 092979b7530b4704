from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detectron2.layers import CycleBatchNormList, ShapeSpec
from detectron2.modeling import FCOS, DenseDetector, build_backbone, build_model
from detectron2.modeling.meta_arch.dense_detector import permute_to_N_HWA_K, targets_of_matches
from detectron2.modeling.meta_arch.fcos import FCOSHead
from detectron2.modeling.meta_arch.retinanet import RetinaNet, RetinaNetHead
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

NUM_CLASSES = 3
LEVELS = ["p3", "p4", "p5", "p6", "p7"]


@pytest.fixture
def retinanet_cfg(small_cfg: Callable) -> Callable:
    def make(*overrides: Any) -> Any:
        cfg = small_cfg("RetinaNet")
        cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
        cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[x, x * 2**0.5] for x in (16, 32, 64, 128, 256)]
        cfg.MODEL.RETINANET.NUM_CLASSES = NUM_CLASSES
        cfg.MODEL.RETINANET.NUM_CONVS = 1
        cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.0
        cfg.merge_from_list(list(overrides))
        return cfg

    return make


def make_retinanet(cfg: Any) -> Any:
    torch.manual_seed(0)
    return build_model(cfg)


def make_fcos(cfg: Any, norm: str = "GN", **options: Any) -> Any:
    torch.manual_seed(0)
    cfg.MODEL.FPN.OUT_CHANNELS = 64  # more than the 32 groups of GN
    backbone = build_backbone(cfg)
    shapes = [backbone.output_shape()[name] for name in LEVELS]
    head = FCOSHead(input_shape=shapes, num_classes=NUM_CLASSES, conv_dims=[64], norm=norm)
    options = {"test_score_thresh": 0.0, **options}
    return FCOS(
        backbone=backbone,
        head=head,
        num_classes=NUM_CLASSES,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
        **options,
    )


@pytest.fixture(params=["retinanet", "fcos"])
def model(request: pytest.FixtureRequest, retinanet_cfg: Callable) -> Any:
    cfg = retinanet_cfg()
    return make_retinanet(cfg) if request.param == "retinanet" else make_fcos(cfg)


def losses_of(model: nn.Module, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
    with EventStorage():
        return model(batch)


# ------------------------------------------------------------------------------------------- both models


@pytest.mark.parametrize("counts", [(2, 1), (0, 0)])
def test_training_reaches_all_parameters(model: Any, make_input: Callable, counts: tuple[int, int]) -> None:
    losses = losses_of(model, [make_input(n) for n in counts])
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize("sizes", [[(64, 96)], [(33, 50), (64, 40)], [(1, 1)]])
def test_detections_are_in_the_frame_asked_for(model: Any, sizes: list[tuple[int, int]]) -> None:
    inputs = [{"image": torch.randint(0, 256, (3, *size)), "height": 200, "width": 100} for size in sizes]
    with torch.no_grad():
        results = model.eval()(inputs)
    assert len(results) == len(sizes)
    assert any(len(result["instances"]) for result in results) or sizes == [(1, 1)]
    for result in results:
        found = result["instances"]
        assert found.image_size == (200, 100) and len(found) <= 100
        assert (found.scores[:-1] >= found.scores[1:]).all()
        x1, y1, x2, y2 = found.pred_boxes.tensor.unbind(1)
        assert ((x1 >= 0) & (x2 <= 100) & (y1 >= 0) & (y2 <= 200)).all()


def test_mixed_precision(model: Any, make_input: Callable) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(model, [make_input(2), make_input(0)])
        with torch.no_grad():
            (result,) = model.eval()([make_input(1)])
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    assert result["instances"].scores.dtype == result["instances"].pred_boxes.tensor.dtype == torch.float32


def test_what_is_wrong_with_ground_truth_is_said(model: Any, make_input: Callable) -> None:
    x = make_input(2)
    x["instances"].gt_classes[:] = NUM_CLASSES
    with pytest.raises(ValueError, match=f"class id {NUM_CLASSES}"):
        model([x])
    del x["instances"]
    with pytest.raises(ValueError, match="trained on `instances`"):
        model([x])


def test_loss_normalizer_is_a_running_mean_that_checkpoints_do_not_hold(
    model: Any, make_input: Callable
) -> None:
    start = {RetinaNet: 100.0, FCOS: 300.0}[type(model)]
    assert float(model.loss_normalizer) == start
    labels = torch.full((2, 5), NUM_CLASSES)
    labels[0, :3] = 1
    first = float(model._update_normalizer(labels != NUM_CLASSES))
    second = float(model._update_normalizer(labels > NUM_CLASSES))  # none, counts as one
    assert first == pytest.approx(0.9 * start + 0.1 * 3)
    assert second == pytest.approx(0.9 * first + 0.1 * 1)
    assert "loss_normalizer" not in model.state_dict()


def test_two_batches_may_share_a_backward_pass(model: Any, make_input: Callable) -> None:
    first, second = (losses_of(model, [make_input(n)]) for n in (2, 1))
    (sum(first.values()) + sum(second.values())).backward()


def test_predictions_are_brought_into_the_order_of_anchors() -> None:
    num_anchors, size = 2, 3
    x = torch.arange(2 * num_anchors * size * 4 * 5).reshape(2, num_anchors * size, 4, 5)
    y = permute_to_N_HWA_K(x, size)
    assert y.shape == (2, 4 * 5 * num_anchors, size)
    for n, row, column, a, k in [(0, 0, 0, 0, 0), (1, 3, 4, 1, 2), (0, 2, 1, 1, 0)]:
        assert y[n, (row * 5 + column) * num_anchors + a, k] == x[n, a * size + k, row, column]
    with pytest.raises(ValueError, match="predictions"):
        permute_to_N_HWA_K(x, 4)


def test_candidates_are_limited_per_level_and_filtered_by_score(retinanet_cfg: Callable) -> None:
    model = make_retinanet(retinanet_cfg("MODEL.RETINANET.TOPK_CANDIDATES_TEST", 2))
    model.test_score_thresh = 0.3
    corner = torch.arange(5.0)[:, None] * 100
    anchors = Boxes(torch.cat((corner, corner, corner + 50, corner + 50), dim=1))
    scores = torch.tensor(
        [[0.1, 0.4, 0.2], [0.9, 0.3, 0.1], [0.0, 0.0, 0.5], [0.2, 0.2, 0.2], [0.4, 0.0, 0.0]]
    )
    found = model.inference_single_image(
        [anchors, anchors], [scores, scores * 0.7], [torch.zeros(5, 4)] * 2, (600, 600)
    )
    # The level best ones are (1, 0) and (2, 2); of the second level both are suppressed by the first.
    assert found.pred_classes.tolist() == [0, 2]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.5]))
    torch.testing.assert_close(found.pred_boxes.tensor, anchors.tensor[[1, 2]])
    model.test_score_thresh = 1.0
    assert len(model.inference_single_image([anchors], [scores], [torch.zeros(5, 4)], (600, 600))) == 0


def test_features_for_the_head_are_finest_first_by_default(retinanet_cfg: Callable) -> None:
    cfg = retinanet_cfg()
    detector = DenseDetector(build_backbone(cfg), nn.Identity(), pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3)
    assert detector.head_in_features == LEVELS
    with pytest.raises(NotImplementedError):
        detector.eval()([{"image": torch.zeros(3, 8, 8)}])


def test_targets_of_an_image_without_objects() -> None:
    gt = Instances((8, 8), gt_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0, dtype=torch.int64))
    labels, boxes = targets_of_matches(gt, torch.zeros(3, dtype=torch.int64), torch.tensor([0, 0, -1]), 7)
    assert labels.tolist() == [7, 7, -1] and boxes.shape == (3, 4)


# --------------------------------------------------------------------------------------------- RetinaNet


def test_retinanet_head_layout_and_prior() -> None:
    shapes = [ShapeSpec(channels=8, stride=s) for s in (8, 16)]
    head = RetinaNetHead(input_shape=shapes, num_classes=5, num_anchors=2, conv_dims=[8, 8], prior_prob=0.02)
    names = ["cls_subnet.0", "cls_subnet.2", "bbox_subnet.0", "bbox_subnet.2", "cls_score", "bbox_pred"]
    assert {k.rsplit(".", 1)[0] for k in head.state_dict()} == set(names)
    assert head.cls_score.bias.sigmoid().allclose(torch.tensor(0.02))
    logits, deltas = head([torch.zeros(1, 8, 4, 6), torch.zeros(1, 8, 2, 3)])
    assert [x.shape for x in logits] == [(1, 10, 4, 6), (1, 10, 2, 3)]
    assert [x.shape for x in deltas] == [(1, 8, 4, 6), (1, 8, 2, 3)]
    with pytest.raises(ValueError, match="2 levels"):
        head([torch.zeros(1, 8, 4, 6)])


@pytest.mark.parametrize("norm", ["GN", "BN", "SyncBN"])
def test_norms_of_the_head_keep_statistics_per_level(norm: str) -> None:
    shapes = [ShapeSpec(channels=32, stride=s) for s in (8, 16)]
    head = RetinaNetHead(input_shape=shapes, num_classes=1, num_anchors=1, conv_dims=[32], norm=norm)
    layer = head.cls_subnet[1]
    assert isinstance(layer, nn.GroupNorm if norm == "GN" else CycleBatchNormList)
    if norm == "BN":
        head([torch.randn(2, 32, 4, 4), torch.randn(2, 32, 4, 4) + 100])
        assert not layer[0].running_mean.allclose(layer[1].running_mean)


def test_norms_that_mix_levels_are_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    shapes = [ShapeSpec(channels=4, stride=8)]
    RetinaNetHead(input_shape=shapes, num_classes=1, num_anchors=1, conv_dims=[4], norm="naiveSyncBN")
    assert "naiveSyncBN" in caplog.text


def focal_loss(logit: float, target: int, alpha: float = 0.25, gamma: float = 2.0) -> float:
    p = 1 / (1 + math.exp(-logit))
    if target:
        return -alpha * (1 - p) ** gamma * math.log(p)
    return -(1 - alpha) * p**gamma * math.log(1 - p)


def test_retinanet_losses_are_those_of_the_paper(retinanet_cfg: Callable) -> None:
    model = make_retinanet(retinanet_cfg("MODEL.RETINANET.SMOOTH_L1_LOSS_BETA", 0.0))
    torch.manual_seed(1)
    anchors = [
        Boxes(torch.tensor([[0.0, 0, 10, 10], [5, 5, 25, 45]])),
        Boxes(torch.tensor([[0.0, 0, 40, 40]])),
    ]
    labels = [torch.tensor([1, NUM_CLASSES, -1]), torch.tensor([NUM_CLASSES, 2, 0])]
    boxes = [torch.tensor([[1.0, 2, 9, 12]] * 3), torch.tensor([[3.0, 3, 30, 50]] * 3)]
    logits = [torch.randn(2, 2, NUM_CLASSES), torch.randn(2, 1, NUM_CLASSES)]
    deltas = [torch.randn(2, 2, 4), torch.randn(2, 1, 4)]
    losses = model.losses(anchors, logits, labels, deltas, boxes)

    expected_cls = expected_box = 0.0
    all_anchors = torch.cat([a.tensor for a in anchors]).tolist()
    for n in range(2):
        for r in range(3):
            label = int(labels[n][r])
            logit, delta = torch.cat(logits, 1)[n, r].tolist(), torch.cat(deltas, 1)[n, r].tolist()
            if label == -1:
                continue
            expected_cls += sum(focal_loss(x, int(k == label)) for k, x in enumerate(logit))
            if label == NUM_CLASSES:
                continue
            (ax1, ay1, ax2, ay2), (x1, y1, x2, y2) = all_anchors[r], boxes[n][r].tolist()
            width, height = ax2 - ax1, ay2 - ay1
            target = [
                ((x1 + x2) - (ax1 + ax2)) / 2 / width,
                ((y1 + y2) - (ay1 + ay2)) / 2 / height,
                math.log((x2 - x1) / width),
                math.log((y2 - y1) / height),
            ]
            expected_box += sum(abs(p - t) for p, t in zip(delta, target))
    normalizer = 0.9 * 100 + 0.1 * 3
    assert float(losses["loss_cls"]) == pytest.approx(expected_cls / normalizer, rel=1e-5)
    assert float(losses["loss_box_reg"]) == pytest.approx(expected_box / normalizer, rel=1e-5)


def test_retinanet_labels(retinanet_cfg: Callable) -> None:
    model = make_retinanet(retinanet_cfg())
    anchors = [
        Boxes(torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 22]])),  # IoU 1 and 10 / 22 with the first object
        Boxes(
            torch.tensor([[0.0, 0, 10, 40], [100, 100, 200, 200]])
        ),  # 1 / 4 with it; best of the second one
    ]
    gt = Instances(
        (300, 300),
        gt_boxes=Boxes(torch.tensor([[0.0, 0, 10, 10], [190, 190, 210, 210]])),
        gt_classes=torch.tensor([2, 1]),
    )
    empty = Instances((9, 9), gt_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0, dtype=torch.int64))
    labels, boxes = model.label_anchors(anchors, [gt, empty])
    assert labels[0].tolist() == [2, -1, NUM_CLASSES, 1] and labels[1].tolist() == [NUM_CLASSES] * 4
    assert torch.equal(boxes[0][[0, 3]], gt.gt_boxes.tensor)


def test_pictures_of_training(retinanet_cfg: Callable, make_input: Callable) -> None:
    model = make_retinanet(retinanet_cfg("VIS_PERIOD", 2))
    with EventStorage(1) as storage:
        model([make_input(2)])
        assert not storage._vis_data
        storage.step()
        losses = model([make_input(2)])
        ((name, picture, iteration),) = storage._vis_data
    assert "Predicted" in name and iteration == 2 and picture.shape[2] == 2 * (picture.shape[1] * 96 // 64)
    assert all(loss.requires_grad for loss in losses.values())


def test_levels_with_different_numbers_of_anchors_are_refused(retinanet_cfg: Callable) -> None:
    with pytest.raises(ValueError, match="as many anchors"):
        make_retinanet(retinanet_cfg("MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16], [32], [64], [128, 200]]))


# -------------------------------------------------------------------------------------------------- FCOS


def fcos_target(
    point: tuple[float, float],
    stride: int,
    level: int,
    num_levels: int,
    boxes: list[list[float]],
    radius: float,
) -> int | None:
    """The paper's rule for one location: the smallest object that the level and the location stand for."""
    best, best_area = None, math.inf
    for index, (x1, y1, x2, y2) in enumerate(boxes):
        sides = [point[0] - x1, point[1] - y1, x2 - point[0], y2 - point[1]]
        least = 0 if level == 0 else 4 * stride
        most = math.inf if level == num_levels - 1 else 8 * stride
        offset = max(abs(point[0] - (x1 + x2) / 2), abs(point[1] - (y1 + y2) / 2))
        near = radius == 0 or offset < radius * stride
        area = (x2 - x1) * (y2 - y1)
        if min(sides) > 0 and least < max(sides) < most and near and area < best_area:
            best, best_area = index, area
    return best


@pytest.mark.parametrize("radius", [0.0, 1.5])
def test_fcos_targets_follow_the_paper(retinanet_cfg: Callable, radius: float) -> None:
    model = make_fcos(retinanet_cfg(), center_sampling_radius=radius)
    strides, sizes = [8, 16, 32, 64, 128], [(32, 24), (16, 12), (8, 6), (4, 3), (2, 2)]
    torch.manual_seed(2)
    corner = torch.rand(12, 2) * 150
    boxes = torch.cat((corner, corner + torch.rand(12, 2) * 150 + 2), dim=1)
    classes = torch.arange(12) % NUM_CLASSES
    gt = Instances((256, 192), gt_boxes=Boxes(boxes), gt_classes=classes)
    anchors = model.anchor_generator([torch.zeros(1, 1, *size) for size in sizes])
    (labels,), (targets,) = model.label_anchors(anchors, [gt])
    centerness = model.compute_ctrness_targets(anchors, [targets])[0]

    row, num_foreground = 0, 0
    for level, (stride, (height, width)) in enumerate(zip(strides, sizes)):
        for y in range(height):
            for x in range(width):
                point = ((x + 0.5) * stride, (y + 0.5) * stride)
                chosen = fcos_target(point, stride, level, 5, boxes.tolist(), radius)
                assert int(labels[row]) == (NUM_CLASSES if chosen is None else int(classes[chosen]))
                if chosen is not None:
                    num_foreground += 1
                    assert torch.equal(targets[row], boxes[chosen])
                    x1, y1, x2, y2 = boxes[chosen].tolist()
                    left, right, top, bottom = point[0] - x1, x2 - point[0], point[1] - y1, y2 - point[1]
                    expected = math.sqrt(
                        min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom)
                    )
                    assert float(centerness[row]) == pytest.approx(expected, abs=1e-4)
                row += 1
    assert row == len(labels) and num_foreground > 10


def test_fcos_losses_are_those_of_the_paper(retinanet_cfg: Callable) -> None:
    model = make_fcos(retinanet_cfg())
    torch.manual_seed(3)
    anchors = [Boxes(torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8]])), Boxes(torch.tensor([[0.0, 0, 16, 16]]))]
    labels = [torch.tensor([1, NUM_CLASSES, NUM_CLASSES]), torch.tensor([NUM_CLASSES, 2, 0])]
    boxes = [torch.tensor([[1.0, 2, 12, 15]] * 3), torch.tensor([[3.0, 1, 20, 30]] * 3)]
    logits = [torch.randn(2, 2, NUM_CLASSES), torch.randn(2, 1, NUM_CLASSES)]
    deltas = [torch.rand(2, 2, 4) + 0.1, torch.rand(2, 1, 4) + 0.1]
    center_logits = [torch.randn(2, 2, 1), torch.randn(2, 1, 1)]
    losses = model.losses(anchors, logits, labels, deltas, boxes, center_logits)

    expected = {"cls": 0.0, "loc": 0.0, "ctr": 0.0}
    for n in range(2):
        for r, (ax1, ay1, ax2, ay2) in enumerate(torch.cat([a.tensor for a in anchors]).tolist()):
            label = int(labels[n][r])
            logit = torch.cat(logits, 1)[n, r].tolist()
            expected["cls"] += sum(focal_loss(v, int(k == label)) for k, v in enumerate(logit))
            if label == NUM_CLASSES:
                continue
            x, y, stride = (ax1 + ax2) / 2, (ay1 + ay2) / 2, ax2 - ax1
            left, top, right, bottom = (v * stride for v in torch.cat(deltas, 1)[n, r].tolist())
            tx1, ty1, tx2, ty2 = boxes[n][r].tolist()
            px1, py1, px2, py2 = x - left, y - top, x + right, y + bottom
            shared = max(min(px2, tx2) - max(px1, tx1), 0) * max(min(py2, ty2) - max(py1, ty1), 0)
            union = (px2 - px1) * (py2 - py1) + (tx2 - tx1) * (ty2 - ty1) - shared
            hull = (max(px2, tx2) - min(px1, tx1)) * (max(py2, ty2) - min(py1, ty1))
            expected["loc"] += 1 - shared / union + (hull - union) / hull
            horizontal, vertical = sorted((x - tx1, tx2 - x)), sorted((y - ty1, ty2 - y))
            target = math.sqrt(horizontal[0] / horizontal[1] * vertical[0] / vertical[1])
            p = torch.cat(center_logits, 1)[n, r].sigmoid().item()
            expected["ctr"] -= target * math.log(p) + (1 - target) * math.log(1 - p)
    normalizer = 0.9 * 300 + 0.1 * 3
    for name, value in expected.items():
        assert float(losses[f"loss_fcos_{name}"]) == pytest.approx(value / normalizer, rel=1e-4)


def test_fcos_scores_are_geometric_means(retinanet_cfg: Callable) -> None:
    model = make_fcos(retinanet_cfg(), test_nms_thresh=1.0, max_detections_per_image=1).eval()
    images = model.preprocess_image([{"image": torch.zeros(3, 128, 128)}])
    features = [torch.zeros(1, 32, 128 // s, 128 // s) for s in (8, 16, 32, 64, 128)]
    predictions = tuple(
        [torch.full((1, channels, *f.shape[-2:]), -9.0) for f in features] for channels in (NUM_CLASSES, 4, 1)
    )
    predictions[0][1][0, 2, 3, 4] = 2.0
    predictions[2][1][0, 0, 3, 4] = 1.0
    predictions[1][1][0, :, 3, 4] = torch.tensor([1.0, 0.5, 2.0, 1.5])
    (found,) = model.forward_inference(images, features, predictions)
    sigmoid = torch.tensor([2.0, 1.0]).sigmoid()
    assert found.pred_classes.tolist() == [2]
    torch.testing.assert_close(found.scores[0], (sigmoid[0] * sigmoid[1]).sqrt())
    x, y = 4.5 * 16, 3.5 * 16
    torch.testing.assert_close(found.pred_boxes.tensor, torch.tensor([[x - 16, y - 8, x + 32, y + 24]]))


def test_fcos_head_names() -> None:
    head = FCOSHead(input_shape=[ShapeSpec(channels=4, stride=8)], num_classes=2, conv_dims=[4])
    assert {k.rsplit(".", 1)[0] for k in head.state_dict()} == {
        "cls_subnet.0",
        "bbox_subnet.0",
        "cls_score",
        "bbox_pred",
        "ctrness",
    }
    assert head.cls_score.out_channels == 2 and head.bbox_pred.out_channels == 4
