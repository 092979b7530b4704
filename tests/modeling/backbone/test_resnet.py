"""ResNet: names, shapes, strides and freezing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detectron2.checkpoint.weight_translation import read_layout
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.layers.batch_norm import FrozenBatchNorm2d
from detectron2.modeling.backbone import build_backbone
from detectron2.modeling.backbone.residual_layout import ResidualLayout
from detectron2.modeling.backbone.resnet import (
    BasicBlock,
    BasicStem,
    BottleneckBlock,
    DeformBottleneckBlock,
    ResNet,
    make_stage,
)
from detectron2.modeling.backbone.stage_plan import BLOCKS_PER_STAGE

ALL_STAGES = ["res2", "res3", "res4", "res5"]


def small_cfg(depth: int = 50, **resnets: object) -> CfgNode:
    cfg = get_cfg()
    node = cfg.MODEL.RESNETS
    node.DEPTH, node.OUT_FEATURES, node.WIDTH_PER_GROUP = depth, ALL_STAGES, 4
    node.STEM_OUT_CHANNELS, node.RES2_OUT_CHANNELS = 8, 16
    if depth < 50:
        node.STEM_OUT_CHANNELS, node.RES2_OUT_CHANNELS = 64, 64
    for key, value in resnets.items():
        node[key] = value
    return cfg


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_names_and_shapes_follow_from_the_depth(depth: int) -> None:
    with torch.device("meta"):
        model = build_backbone(small_cfg(depth))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    layout = read_layout(model.state_dict())
    assert isinstance(layout, ResidualLayout)
    assert layout.depth == depth
    assert layout.blocks_per_stage == BLOCKS_PER_STAGE[depth]
    assert shapes == layout.expected_shapes()


def test_classifier_of_resnet_50_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = ResNet(BasicStem(), ResNet.make_default_stages(50), num_classes=1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == 25_557_032


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 1)])
def test_features_have_the_announced_channels_and_strides(size: tuple[int, int]) -> None:
    model = build_backbone(small_cfg()).eval()
    features = model(torch.rand(2, 3, *size))
    assert list(features) == ALL_STAGES
    for name, shape in model.output_shape().items():
        expected = tuple(-(-side // shape.stride) for side in size)
        assert features[name].shape == (2, shape.channels, *expected)
    assert [shape.stride for shape in model.output_shape().values()] == [4, 8, 16, 32]


def test_no_images_give_no_features() -> None:
    assert build_backbone(small_cfg())(torch.zeros(0, 3, 32, 32))["res5"].shape == (0, 128, 1, 1)


def test_dilated_res5_keeps_the_resolution_of_res4() -> None:
    model = build_backbone(small_cfg(RES5_DILATION=2))
    assert model.output_shape()["res5"].stride == 16
    assert model(torch.zeros(1, 3, 64, 32))["res5"].shape == (1, 128, 4, 2)
    convolutions = [block.conv2 for block in model.res5]
    assert all(conv.dilation == (2, 2) for conv in convolutions)


def test_stages_beyond_the_last_output_are_not_built() -> None:
    model = build_backbone(small_cfg(OUT_FEATURES=["res2", "res4"]))
    assert list(model.output_shape()) == ["res2", "res4"]
    assert not hasattr(model, "res5")


def test_stem_alone_is_a_backbone() -> None:
    model = build_backbone(small_cfg(OUT_FEATURES=["stem"]))
    assert model(torch.zeros(1, 3, 16, 16))["stem"].shape == (1, 8, 4, 4)


def test_deformable_stages_are_those_asked_for() -> None:
    model = build_backbone(small_cfg(DEFORM_ON_PER_STAGE=[False, True, False, True], DEFORM_MODULATED=True))
    kinds = [type(stage[0]) for stage in model.stages]
    assert kinds == [BottleneckBlock, DeformBottleneckBlock, BottleneckBlock, DeformBottleneckBlock]
    assert model(torch.zeros(1, 3, 32, 32))["res5"].shape == (1, 128, 1, 1)


@pytest.mark.parametrize("freeze_at", [0, 1, 3])
def test_freezing_stops_at_the_stage_asked_for(freeze_at: int) -> None:
    cfg = small_cfg(NORM="BN")
    cfg.MODEL.BACKBONE.FREEZE_AT = freeze_at
    model = build_backbone(cfg)
    parts = [model.stem, *model.stages]
    for index, part in enumerate(parts, start=1):
        is_frozen = index <= freeze_at
        assert all(parameter.requires_grad != is_frozen for parameter in part.parameters())
        norm = FrozenBatchNorm2d if is_frozen else nn.BatchNorm2d
        assert any(isinstance(module, norm) for module in part.modules())


def test_linear_gives_one_logit_per_class() -> None:
    stages = ResNet.make_default_stages(18)
    model = ResNet(BasicStem(), stages, num_classes=7)
    assert model(torch.zeros(2, 3, 32, 32))["linear"].shape == (2, 7)
    assert model.output_shape()["linear"].channels == 7


def test_per_block_options_reach_their_block() -> None:
    blocks = make_stage(
        BottleneckBlock, 3, in_channels=4, out_channels=8, bottleneck_channels=2, stride_per_block=[2, 1, 1]
    )
    assert [block.stride for block in blocks] == [2, 1, 1]
    assert [block.in_channels for block in blocks] == [4, 8, 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride_per_block": [2, 1]}, "one value for each of 3 blocks"),
        ({"stride_per_block": [2, 1, 1], "stride": 1}, "not both"),
    ],
)
def test_per_block_options_must_fit(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_stage(BasicBlock, 3, in_channels=4, out_channels=8, **options)


@pytest.mark.parametrize(
    ("depth", "options", "message"),
    [
        (51, {}, r"DEPTH must be one of \[18, 34, 50, 101, 152\], got 51"),
        (18, {"RES2_OUT_CHANNELS": 256}, "RES2_OUT_CHANNELS must be 64, got 256"),
        (34, {"NUM_GROUPS": 2, "RES5_DILATION": 2}, "RES5_DILATION must be 1, got 2; .*NUM_GROUPS must be 1"),
        (18, {"DEFORM_ON_PER_STAGE": [False, False, False, True]}, "DEFORM_ON_PER_STAGE must be all False"),
        (50, {"RES5_DILATION": 4}, "RES5_DILATION must be 1 or 2, got 4"),
        (50, {"OUT_FEATURES": ["res6"]}, "OUT_FEATURES must be some of"),
        (50, {"OUT_FEATURES": []}, "OUT_FEATURES must be some of"),
    ],
)
def test_impossible_settings_are_named(depth: int, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone(small_cfg(depth, **options))


def test_unknown_backbone_lists_near_matches() -> None:
    cfg = small_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbon"
    with pytest.raises(KeyError, match="build_resnet_fpn_backbone"):
        build_backbone(cfg)


def test_input_channels_come_from_the_shape_given() -> None:
    assert build_backbone(small_cfg(), ShapeSpec(channels=5)).stem.conv1.in_channels == 5
    cfg = small_cfg()
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [0.0], [1.0]
    assert build_backbone(cfg).stem.conv1.in_channels == 1


def test_same_seed_gives_the_same_weights() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build_backbone(small_cfg()).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
