"""Losses that detectron2 publishes for models of a seed: what they draw, and what they make of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import build_backbone
from detectron2.modeling.box_regression import Box2BoxTransform, Box2BoxTransformRotated
from detectron2.modeling.proposal_generator import build_proposal_generator
from detectron2.modeling.roi_heads import StandardROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.rotated_fast_rcnn import RotatedFastRCNNOutputLayers
from detectron2.structures import BitMasks, Boxes, ImageList, Instances, RotatedBoxes
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
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32, 64]]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[0.25, 1]]
    cfg.MODEL.ANCHOR_GENERATOR.ANGLES = [[0, 60]]
    cfg.MODEL.RPN.BBOX_REG_WEIGHTS = (1, 1, 1, 1, 1)
    return cfg


@pytest.mark.parametrize("is_rotated", [False, True])
def test_proposals_behind_a_c4_backbone(is_rotated: bool) -> None:
    """The backbone is made first and not run: only what it draws matters, its dropped stage included."""
    cfg = rotated_cfg() if is_rotated else get_cfg()
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
