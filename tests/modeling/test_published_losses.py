"""Losses that detectron2 publishes for models of a seed: what they draw, and what they make of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import build_backbone
from detectron2.modeling.box_regression import Box2BoxTransform, Box2BoxTransformRotated
from detectron2.modeling.proposal_generator import build_proposal_generator
from detectron2.modeling.proposal_generator.rrpn import RRPN
from detectron2.modeling.roi_heads import StandardROIHeads, build_roi_heads
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.rotated_fast_rcnn import RotatedFastRCNNOutputLayers
from detectron2.structures import BitMasks, Boxes, ImageList, Instances, RotatedBoxes
from detectron2.structures.rotated_boxes import pairwise_iou
from detectron2.utils.events import EventStorage

C4 = {"res4": ShapeSpec(channels=1024, stride=16)}


def check(losses: dict[str, torch.Tensor], expected: dict[str, float]) -> None:
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-5, abs=1e-8)


def truth(boxes: Any, **fields: Any) -> Instances:
    return Instances((15, 15), gt_boxes=boxes, **fields)


def random_images() -> tuple[ImageList, dict[str, torch.Tensor]]:
    images = ImageList(torch.rand(2, 20, 30), [(10, 10), (20, 30)])
    return images, {"res4": torch.rand(2, 1024, 1, 2)}


def rotated_cfg() -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "RRPN"
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RotatedAnchorGenerator"
    cfg.MODEL.RPN.BBOX_REG_WEIGHTS = (1, 1, 1, 1, 1)
    return cfg


@pytest.mark.parametrize("is_rotated", [False, True])
def test_proposals_behind_a_c4_backbone(is_rotated: bool) -> None:
    """The backbone is made first and not run: only what it draws matters, its dropped stage included."""
    cfg = rotated_cfg() if is_rotated else get_cfg()
    if is_rotated:
        anchors = cfg.MODEL.ANCHOR_GENERATOR
        anchors.SIZES, anchors.ASPECT_RATIOS, anchors.ANGLES = [[32, 64]], [[0.25, 1]], [[0, 60]]
    torch.manual_seed(121)
    generator = build_proposal_generator(cfg, build_backbone(cfg).output_shape())
    images, features = random_images()
    boxes = (
        RotatedBoxes(torch.tensor([[2.0, 2, 2, 2, 0], [4, 4, 4, 4, 0]]))
        if is_rotated
        else Boxes(torch.tensor([[1.0, 1, 3, 3], [2, 2, 6, 6]]))
    )
    with EventStorage():
        _, losses = generator(images, features, [truth(boxes[0]), truth(boxes[1])])
    upright = {"loss_rpn_cls": 0.08011703193, "loss_rpn_loc": 0.101470276}
    check(losses, {"loss_rpn_cls": 0.04291602224, "loss_rpn_loc": 0.145077362} if is_rotated else upright)


def test_box_and_mask_heads() -> None:
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.ROI_BOX_HEAD.NAME, cfg.MODEL.ROI_BOX_HEAD.NUM_FC = "FastRCNNConvFCHead", 2
    cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE, cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS = "ROIAlignV2", (10, 10, 5, 5)
    torch.manual_seed(121)
    images, features = random_images()
    objects = [
        truth(
            Boxes(torch.tensor(boxes)),
            gt_classes=torch.tensor(classes),
            gt_masks=BitMasks(torch.rand(2, 15, 15) > 0.5),
        )
        for boxes, classes in (
            ([[1.0, 1, 3, 3], [2, 2, 6, 6]], [2, 1]),
            ([[1.0, 5, 2, 8], [7, 3, 10, 5]], [1, 2]),
        )
    ]
    generator = build_proposal_generator(cfg, C4)
    heads = StandardROIHeads(cfg, C4)
    with EventStorage():
        proposals, losses = generator(images, features, objects)
        losses |= heads(images, features, proposals, objects)[1]
    expected = {
        "loss_cls": 4.5253729820251465,
        "loss_box_reg": 0.009785720147192478,
        "loss_mask": 0.693184494972229,
        "loss_rpn_cls": 0.08186662942171097,
        "loss_rpn_loc": 0.1104838103055954,
    }
    check(losses, expected)


def rotated_losses() -> dict[str, torch.Tensor]:
    """Losses of rotated proposals and heads, for objects that lie inside of most of their anchors."""
    cfg = rotated_cfg()
    head = cfg.MODEL.ROI_BOX_HEAD
    cfg.MODEL.ROI_HEADS.NAME, head.NAME, head.NUM_FC = "RROIHeads", "FastRCNNConvFCHead", 2
    head.POOLER_TYPE, head.BBOX_REG_WEIGHTS = "ROIAlignRotated", (10, 10, 5, 5, 1)
    torch.manual_seed(121)
    images, features = random_images()
    objects = [
        truth(RotatedBoxes(torch.tensor(boxes)), gt_classes=torch.tensor(classes))
        for boxes, classes in (
            ([[2.0, 2, 2, 2, 30], [4, 4, 4, 4, 0]], [2, 1]),
            ([[1.5, 5.5, 1, 3, 0], LAST_OBJECT], [1, 2]),
        )
    ]
    generator, heads = build_proposal_generator(cfg, C4), build_roi_heads(cfg, C4)
    with EventStorage():
        proposals, losses = generator(images, features, objects)
        return losses | heads(images, features, proposals, objects)[1]


LAST_OBJECT = [8.5, 4.0, 3.0, 2.0, -50.0]


def test_rotated_heads_and_the_ties_of_their_anchors(monkeypatch: pytest.MonkeyPatch) -> None:
    """All nine anchors of the smallest size hold the last object, at both places: 18 are equally near.

    So all of them are foreground. In detectron2 areas are rounded to single precision, by which those of the
    second place are a step behind, and background; this step alone makes its losses of the proposals.
    """
    heads = {"loss_cls": 4.365657806396484, "loss_box_reg": 0.0015851043863222003}
    ious = []

    def watched(gt_boxes: Any, anchors: Any, *, one_step_behind: bool = False) -> torch.Tensor:
        iou = pairwise_iou(gt_boxes, anchors)
        is_last = (gt_boxes.tensor == torch.tensor(LAST_OBJECT)).all(dim=1)
        if one_step_behind:
            lower = iou.nextafter(torch.zeros(()))
            iou = lower.where(is_last[:, None] & (anchors.tensor[:, 0] == 16), iou)
        ious.extend(iou[is_last])
        return iou

    monkeypatch.setattr(RRPN, "_pairwise_iou", staticmethod(watched))
    losses = rotated_losses()
    check({name: losses[name] for name in heads}, heads)
    assert (ious[0] == ious[0].max()).sum() == 18 and ious[0].max() == 3 * 2 / 32**2

    monkeypatch.setattr(RRPN, "_pairwise_iou", staticmethod(partial(watched, one_step_behind=True)))
    check(rotated_losses(), {**heads, "loss_rpn_cls": 0.2427729219198227, "loss_rpn_loc": 0.3646621108055115})
    assert (ious[1] == ious[1].max()).sum() == 9


def test_the_predictor_of_upright_and_of_rotated_boxes() -> None:
    cases: list[tuple[Any, Any, Any, float, float]] = [
        (
            FastRCNNOutputLayers,
            Box2BoxTransform(weights=(10, 10, 5, 5)),
            [[[0.8, 1.1, 3.2, 2.8], [2.3, 2.5, 7, 8]], [[1, 1, 3, 3], [2, 2, 6, 6]]],
            1.7951188087,
            4.0357131958,
        ),
        (
            RotatedFastRCNNOutputLayers,
            Box2BoxTransformRotated(weights=(10, 10, 5, 5, 1)),
            [[[2, 1.95, 2.4, 1.7, 0], [4.65, 5.25, 4.7, 5.5, 0]], [[2, 2, 2, 2, 0], [4, 4, 4, 4, 0]]],
            1.7920907736,
            4.0410838127,
        ),
    ]
    for layers, transform, boxes, loss_cls, loss_box_reg in cases:
        torch.manual_seed(132)
        predictor = layers(ShapeSpec(channels=8), box2box_transform=transform, num_classes=5)
        kind = Boxes if len(boxes[0][0]) == 4 else RotatedBoxes
        proposed, matched = (kind(torch.tensor(b, dtype=torch.float32)) for b in boxes)
        proposal = Instances(
            (10, 10), proposal_boxes=proposed, gt_boxes=matched, gt_classes=torch.tensor([1, 2])
        )
        with EventStorage():
            losses = predictor.losses(predictor(torch.rand(2, 8)), [proposal])
        check(losses, {"loss_cls": loss_cls, "loss_box_reg": loss_box_reg})
