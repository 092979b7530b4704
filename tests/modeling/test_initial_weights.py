"""A seed decides initial weights: layers are made and drawn again in a fixed order."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch.fcos import FCOSHead

from .seeded_draws import (
    WIDTHS,
    Draws,
    bottleneck,
    box_head,
    box_predictor,
    check,
    dense_head,
    fpn,
    keypoint_head,
    mask_head,
    res2net,
    resnet50,
    rpn,
    sem_seg_head,
    top_block,
)

SEED, CLASSES, STUFF, KEYPOINTS, FC = 11, 3, 4, 5, 24


def small_cfg(**settings: object) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    node = cfg.MODEL.RESNETS
    node.OUT_FEATURES, node.WIDTH_PER_GROUP = ["res2", "res3", "res4", "res5"], WIDTHS["bottleneck"]
    node.STEM_OUT_CHANNELS, node.RES2_OUT_CHANNELS = WIDTHS["stem"], WIDTHS["res2"]
    cfg.MODEL.FPN.IN_FEATURES, cfg.MODEL.FPN.OUT_CHANNELS = node.OUT_FEATURES, WIDTHS["fpn"]
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_HEADS.NUM_CLASSES = "StandardROIHeads", CLASSES
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ROI_BOX_HEAD.NAME, cfg.MODEL.ROI_BOX_HEAD.NUM_FC = "FastRCNNConvFCHead", 2
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM, cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = FC, 7
    cfg.MODEL.ROI_MASK_HEAD.NAME, cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = "MaskRCNNConvUpsampleHead", 4
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 8
    for key, value in settings.items():
        cfg.merge_from_list([f"MODEL.{key.replace('__', '.')}", value])
    return cfg


def build(cfg: CfgNode) -> nn.Module:
    torch.manual_seed(SEED)
    return build_model(cfg)


def draw_detector(d: Draws) -> None:
    resnet50(d, "backbone.bottom_up")
    fpn(d, "backbone")
    rpn(d, WIDTHS["fpn"], 3)
    box_head(d, "roi_heads.box_head", WIDTHS["fpn"], 7, fcs=(FC, FC))
    box_predictor(d, "roi_heads.box_predictor", FC, CLASSES, 4 * CLASSES)


def test_mask_rcnn() -> None:
    model = build(small_cfg(MASK_ON=True))
    draws = Draws(SEED)
    draw_detector(draws)
    mask_head(draws, WIDTHS["fpn"], [8] * 5, CLASSES)
    check(model, draws)


def test_freezing_draws_nothing() -> None:
    frozen, trained = (
        build(small_cfg(BACKBONE__FREEZE_AT=at, RESNETS__NORM=norm)).state_dict()
        for at, norm in ((3, "FrozenBN"), (0, "BN"))
    )
    assert all(torch.equal(frozen[name], trained[name]) for name in frozen if "norm" not in name)


def test_keypoint_rcnn() -> None:
    model = build(
        small_cfg(
            KEYPOINT_ON=True, ROI_KEYPOINT_HEAD__NUM_KEYPOINTS=KEYPOINTS, ROI_KEYPOINT_HEAD__CONV_DIMS=[8, 8]
        )
    )
    draws = Draws(SEED)
    draw_detector(draws)
    keypoint_head(draws, WIDTHS["fpn"], [8, 8], KEYPOINTS)
    check(model, draws)


@pytest.mark.parametrize("norm", ["GN", ""])
def test_panoptic_fpn(norm: str) -> None:
    model = build(
        small_cfg(
            META_ARCHITECTURE="PanopticFPN",
            MASK_ON=True,
            SEM_SEG_HEAD__NUM_CLASSES=STUFF,
            SEM_SEG_HEAD__CONVS_DIM=32,
            SEM_SEG_HEAD__NORM=norm,
        )
    )
    draws = Draws(SEED)
    draw_detector(draws)
    mask_head(draws, WIDTHS["fpn"], [8] * 5, CLASSES)
    sem_seg_head(draws, WIDTHS["fpn"], 32, STUFF, bias=not norm)
    check(model, draws)


def test_retinanet() -> None:
    levels = ["res3", "res4", "res5"]
    model = build(
        small_cfg(
            META_ARCHITECTURE="RetinaNet",
            BACKBONE__NAME="build_retinanet_resnet_fpn_backbone",
            RESNETS__OUT_FEATURES=levels,
            FPN__IN_FEATURES=levels,
            RETINANET__NUM_CLASSES=CLASSES,
            RETINANET__NUM_CONVS=2,
        )
    )
    draws = Draws(SEED)
    resnet50(draws, "backbone.bottom_up")
    top_block(draws, "backbone")
    fpn(draws, "backbone", (3, 4, 5))
    dense_head(draws, WIDTHS["fpn"], 2, 3 * CLASSES, 3 * 4)
    check(model, draws)


def test_head_of_fcos() -> None:
    torch.manual_seed(SEED)
    module = nn.ModuleDict(
        {"head": FCOSHead(input_shape=[ShapeSpec(channels=8)], conv_dims=[8, 8], num_classes=CLASSES)}
    )
    draws = Draws(SEED)
    dense_head(draws, 8, 2, CLASSES, 4)
    draws.normal(0.01, draws.conv("head.ctrness", 8, 1, 3))
    check(module, draws)


def test_the_last_stage_of_c4_is_drawn_twice() -> None:
    """The backbone drops its own res5 only after it was made; the region heads make another."""
    model = build(
        small_cfg(
            BACKBONE__NAME="build_resnet_backbone",
            RESNETS__OUT_FEATURES=["res4"],
            RPN__IN_FEATURES=["res4"],
            ANCHOR_GENERATOR__SIZES=[[32, 64]],
            ROI_HEADS__NAME="Res5ROIHeads",
            ROI_HEADS__IN_FEATURES=["res4"],
            ROI_MASK_HEAD__NUM_CONV=0,
            MASK_ON=True,
        )
    )
    draws = Draws(SEED)
    resnet50(draws, "backbone")
    draws.forget("backbone.res5")
    res4, res5, mid = WIDTHS["res2"] << 2, WIDTHS["res2"] << 3, WIDTHS["bottleneck"] << 3
    rpn(draws, res4, 6)
    for block in range(3):
        bottleneck(draws, f"roi_heads.res5.{block}", res4 if block == 0 else res5, mid, res5)
    box_predictor(draws, "roi_heads.box_predictor", res5, CLASSES, 4 * CLASSES)
    mask_head(draws, res5, [8], CLASSES)
    check(model, draws)


def test_cascade_with_convolutions_and_deformable_stage() -> None:
    model = build(
        small_cfg(
            ROI_HEADS__NAME="CascadeROIHeads",
            ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG=True,
            ROI_BOX_HEAD__NUM_CONV=2,
            ROI_BOX_HEAD__NUM_FC=1,
            ROI_BOX_HEAD__CONV_DIM=WIDTHS["fpn"],
            RESNETS__DEFORM_ON_PER_STAGE=[False, False, False, True],
        )
    )
    draws = Draws(SEED)
    resnet50(draws, "backbone.bottom_up", deform_res5=True)
    fpn(draws, "backbone")
    rpn(draws, WIDTHS["fpn"], 3)
    for stage in range(3):
        box_head(draws, f"roi_heads.box_head.{stage}", WIDTHS["fpn"], 7, num_convs=2, fcs=(FC,))
        box_predictor(draws, f"roi_heads.box_predictor.{stage}", FC, CLASSES, 4)
    check(model, draws)


def test_res2net() -> None:
    model = build(
        small_cfg(
            BACKBONE__NAME="build_res2net_fpn_backbone",
            RES2NET__STAGE_BLOCKS=[2, 1, 1, 2],
            RESNETS__WIDTH_PER_GROUP=4,
            RESNETS__STRIDE_IN_1X1=False,
        )
    )
    draws = Draws(SEED)
    res2net(draws, "backbone.bottom_up", scale=4, width=4, blocks=(2, 1, 1, 2))
    fpn(draws, "backbone")
    rpn(draws, WIDTHS["fpn"], 3)
    box_head(draws, "roi_heads.box_head", WIDTHS["fpn"], 7, fcs=(FC, FC))
    box_predictor(draws, "roi_heads.box_predictor", FC, CLASSES, 4 * CLASSES)
    check(model, draws)


def test_another_seed_draws_other_weights() -> None:
    model = build(small_cfg())
    draws = Draws(SEED + 1)
    draw_detector(draws)
    with pytest.raises(AssertionError):
        check(model, draws)
