"""Res2Net: both published variants against loops written out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling.backbone import build_backbone
from detectron2.modeling.backbone.res2net import (
    DeepStem,
    DeformRes2NetBottleneckBlock,
    Res2NetBottleneckBlock,
)
from detectron2.modeling.backbone.resnet import BasicStem, ResNet

ALL_STAGES = ["res2", "res3", "res4", "res5"]


def small_cfg(**res2net: object) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_res2net_backbone"
    node = cfg.MODEL.RESNETS
    node.OUT_FEATURES, node.STRIDE_IN_1X1 = ALL_STAGES, False
    node.WIDTH_PER_GROUP, node.STEM_OUT_CHANNELS, node.RES2_OUT_CHANNELS = 2, 8, 16
    cfg.MODEL.RES2NET.STAGE_BLOCKS = [2, 1, 1, 2]
    for key, value in res2net.items():
        cfg.MODEL.RES2NET[key] = value
    return cfg


def randomize(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(noise.abs() + 0.5 if name.endswith("running_var") else 0.3 * noise)
    return module.double().eval()


def norm(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    scale = w[f"{name}.weight"] / (w[f"{name}.running_var"] + 1e-5).sqrt()
    return (x - w[f"{name}.running_mean"][:, None, None]) * scale[:, None, None] + w[f"{name}.bias"][
        :, None, None
    ]


def window_means(x: Tensor, size: int, stride: int, padding: int, count_padding: bool) -> Tensor:
    """Average pooling pixel by pixel, over windows that start inside the padded map."""
    height, width = x.shape[2:]
    rows, columns = (
        (side + 2 * padding - (size if padding else 1)) // stride + 1 for side in (height, width)
    )
    out = x.new_zeros(*x.shape[:2], rows, columns)
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride - padding, j * stride - padding
            window = x[:, :, max(top, 0) : top + size, max(left, 0) : left + size]
            count = size * size if count_padding else window.shape[2] * window.shape[3]
            out[:, :, i, j] = window.sum((2, 3)) / count
    return out


def reference_block(
    x: Tensor,
    w: dict[str, Tensor],
    *,
    scale: int,
    stride: int,
    stride_in_1x1: bool,
    is_first: bool,
    groups: int = 1,
    dilation: int = 1,
    pooled: bool = True,
) -> Tensor:
    outer, inner = (stride, 1) if stride_in_1x1 else (1, stride)
    y = norm(F.conv2d(x, w["conv1.weight"], stride=outer), w, "conv1.norm").relu()
    width = y.shape[1] // scale
    outputs = []
    for i in range(max(scale - 1, 1)):
        split = y[:, i * width : (i + 1) * width]
        if i > 0 and not is_first:
            split = split + outputs[i - 1]
        convolved = F.conv2d(split, w[f"convs.{i}.weight"], None, inner, dilation, dilation, groups)
        outputs.append(norm(convolved, w, f"bns.{i}").relu())
    if scale > 1:
        last = y[:, (scale - 1) * width :]
        outputs.append(window_means(last, 3, inner, 1, count_padding=True) if is_first and pooled else last)
    y = norm(F.conv2d(torch.cat(outputs, 1), w["conv3.weight"]), w, "conv3.norm")
    if is_first:
        pooled_input = window_means(x, stride, stride, 0, count_padding=False)
        x = norm(F.conv2d(pooled_input, w["shortcut.1.weight"]), w, "shortcut.1.norm")
    return (y + x).relu()


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_first_block_of_a_stage_takes_every_split_alone(scale: int, stride: int, stride_in_1x1: bool) -> None:
    block = randomize(
        Res2NetBottleneckBlock(
            6, 10, bottleneck_channels=8, stride=stride, stride_in_1x1=stride_in_1x1, scale=scale
        )
    )
    x = torch.randn(2, 6, 9, 6, dtype=torch.float64)
    expected = reference_block(
        x,
        block.state_dict(),
        scale=scale,
        stride=stride,
        stride_in_1x1=stride_in_1x1,
        is_first=True,
        pooled=not stride_in_1x1,
    )
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_later_blocks_feed_each_split_with_the_one_before(scale: int, stride_in_1x1: bool) -> None:
    block = randomize(
        Res2NetBottleneckBlock(10, 10, bottleneck_channels=8, stride_in_1x1=stride_in_1x1, scale=scale)
    )
    x = torch.randn(2, 10, 5, 7, dtype=torch.float64)
    w = block.state_dict()
    expected = reference_block(
        x, w, scale=scale, stride=1, stride_in_1x1=stride_in_1x1, is_first=False, pooled=False
    )
    torch.testing.assert_close(block(x), expected)


def test_groups_and_dilation_reach_the_3x3_convolutions() -> None:
    block = randomize(
        Res2NetBottleneckBlock(6, 10, bottleneck_channels=16, num_groups=2, dilation=2, scale=4)
    )
    x = torch.randn(1, 6, 8, 8, dtype=torch.float64)
    w = block.state_dict()
    assert w["convs.0.weight"].shape == (4, 2, 3, 3)
    expected = reference_block(
        x, w, scale=4, stride=1, stride_in_1x1=False, is_first=True, groups=2, dilation=2
    )
    torch.testing.assert_close(block(x), expected)


def test_the_two_variants_share_names_and_differ_in_values() -> None:
    options = {"bottleneck_channels": 8, "stride": 2, "scale": 4}
    in_3x3 = randomize(Res2NetBottleneckBlock(6, 10, stride_in_1x1=False, **options))
    in_1x1 = Res2NetBottleneckBlock(6, 10, stride_in_1x1=True, **options).double().eval()
    in_1x1.load_state_dict(in_3x3.state_dict())
    x = torch.randn(1, 6, 8, 8, dtype=torch.float64)
    assert in_3x3(x).shape == in_1x1(x).shape
    assert not torch.allclose(in_3x3(x), in_1x1(x))


@pytest.mark.parametrize(
    ("stride_in_1x1", "stage_pool", "expected"),
    [
        (False, "auto", True),
        (True, "auto", False),
        (False, True, True),
        (True, True, True),
        (True, False, False),
    ],
)
def test_stage_pool_can_be_forced(stride_in_1x1: bool, stage_pool: bool | str, expected: bool) -> None:
    block = Res2NetBottleneckBlock(
        4, 8, bottleneck_channels=8, stride=2, stride_in_1x1=stride_in_1x1, stage_pool=stage_pool
    )
    assert isinstance(block.pool, nn.AvgPool2d) is expected
    assert block(torch.zeros(1, 4, 6, 5)).shape == (1, 8, 3, 3)


def test_unpooled_split_beside_strided_convolutions_is_refused() -> None:
    with pytest.raises(ValueError, match=r"STAGE_POOL to True, or MODEL.RESNETS.STRIDE_IN_1X1 to True"):
        Res2NetBottleneckBlock(4, 8, bottleneck_channels=8, stride=2, stage_pool=False)


def test_channels_that_do_not_split_are_refused() -> None:
    with pytest.raises(ValueError, match="10 bottleneck channels do not split into scale=4"):
        Res2NetBottleneckBlock(4, 8, bottleneck_channels=10)


def test_without_average_pooling_the_shortcut_is_that_of_resnet() -> None:
    block = Res2NetBottleneckBlock(4, 8, bottleneck_channels=8, stride=2, avg_down=False)
    assert block.shortcut.weight.shape == (8, 4, 1, 1)
    assert block.shortcut.stride == (2, 2)


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_block_keeps_shape_contract(scale: int, device: str) -> None:
    block = Res2NetBottleneckBlock(64, 256, bottleneck_channels=64, stride=2, scale=scale).to(device)
    assert block(torch.zeros(2, 64, 16, 12, device=device)).shape == (2, 256, 8, 6)
    assert len(block.convs) == max(scale - 1, 1)


def test_deep_stem_has_the_published_names() -> None:
    stem = DeepStem()
    shapes = {name: tuple(t.shape) for name, t in stem.state_dict().items() if name.endswith("weight")}
    assert shapes == {
        "conv1.0.weight": (32, 3, 3, 3),
        "conv1.1.weight": (32,),
        "conv1.3.weight": (32, 32, 3, 3),
        "conv1.4.weight": (32,),
        "conv1.6.weight": (64, 32, 3, 3),
        "bn1.weight": (64,),
    }
    assert stem(torch.zeros(1, 3, 33, 30)).shape == (1, 64, 9, 8)


@pytest.mark.parametrize(("depth", "millions"), [(50, 25.72), (101, 45.23)])
def test_v1b_has_the_published_number_of_parameters(depth: int, millions: float) -> None:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_res2net_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    node = cfg.MODEL.RESNETS
    node.DEPTH, node.WIDTH_PER_GROUP, node.NORM, node.OUT_FEATURES = depth, 26, "BN", ALL_STAGES
    with torch.device("meta"):
        model = build_backbone(cfg)
    classifier = 2048 * 1000 + 1000
    count = sum(parameter.numel() for parameter in model.parameters()) + classifier
    assert round(count / 1e6, 2) == millions


@pytest.mark.parametrize("deep_stem", [True, False])
@pytest.mark.parametrize("avg_down", [True, False])
@pytest.mark.parametrize("stride_in_1x1", [True, False])
def test_every_combination_of_switches_builds_a_backbone(
    deep_stem: bool, avg_down: bool, stride_in_1x1: bool
) -> None:
    cfg = small_cfg(DEEP_STEM=deep_stem, AVG_DOWN=avg_down, SCALE=2)
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = stride_in_1x1
    model = build_backbone(cfg)
    assert isinstance(model, ResNet)
    assert isinstance(model.stem, DeepStem if deep_stem else BasicStem)
    features = model(torch.zeros(1, 3, 33, 65))
    sizes = [tuple(feature.shape[1:]) for feature in features.values()]
    assert sizes == [(16, 9, 17), (32, 5, 9), (64, 3, 5), (128, 2, 3)]


def test_dilated_res5_keeps_the_resolution_of_res4() -> None:
    cfg = small_cfg()
    cfg.MODEL.RESNETS.RES5_DILATION = 2
    model = build_backbone(cfg)
    assert model(torch.zeros(1, 3, 64, 32))["res5"].shape == (1, 128, 4, 2)


@pytest.mark.parametrize("value", ["True", "False", "auto", True, False])
def test_stage_pool_of_a_config_is_understood(value: str | bool) -> None:
    cfg = small_cfg()
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = True
    cfg.MODEL.RES2NET.STAGE_POOL = value
    block = build_backbone(cfg).res3[0]
    assert isinstance(block.pool, nn.AvgPool2d) is (str(value) == "True")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("STAGE_POOL", "perhaps", "STAGE_POOL must be"),
        ("STAGE_BLOCKS", [2, 2], "four positive numbers"),
        ("STAGE_BLOCKS", [2, 2, 0, 2], "four positive numbers"),
    ],
)
def test_impossible_settings_are_named(key: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone(small_cfg(**{key: value}))


def test_depth_without_bottlenecks_is_refused() -> None:
    cfg = small_cfg(STAGE_BLOCKS=[])
    cfg.MODEL.RESNETS.DEPTH = 18
    with pytest.raises(ValueError, match=r"use 50, 101 or 152, or set MODEL.RES2NET.STAGE_BLOCKS"):
        build_backbone(cfg)


def test_no_norm_is_possible() -> None:
    cfg = small_cfg()
    cfg.MODEL.RESNETS.NORM = ""
    model = build_backbone(cfg)
    assert not any("bn" in name or "norm" in name for name in model.state_dict())
    assert model(torch.zeros(1, 3, 32, 32))["res5"].shape == (1, 128, 1, 1)


@pytest.mark.parametrize("modulated", [True, False])
def test_deformable_blocks_have_an_offset_convolution_per_split(modulated: bool) -> None:
    cfg = small_cfg()
    cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE = [False, False, False, True]
    cfg.MODEL.RESNETS.DEFORM_MODULATED = modulated
    model = build_backbone(cfg)
    block = model.res5[0]
    assert isinstance(block, DeformRes2NetBottleneckBlock)
    assert [conv.out_channels for conv in block.conv2_offsets] == [27 if modulated else 18] * 3
    model(torch.rand(1, 3, 64, 64))["res5"].sum().backward()
    assert all(conv.weight.grad is not None for conv in block.conv2_offsets)


@pytest.mark.parametrize("name", ["build_res2net_fpn_backbone", "build_retinanet_res2net_fpn_backbone"])
def test_pyramids_stand_on_it(name: str) -> None:
    cfg = small_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.FPN.OUT_CHANNELS = name, 8
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"] if "retina" in name else ALL_STAGES
    model = build_backbone(cfg)
    levels = ["p3", "p4", "p5", "p6", "p7"] if "retina" in name else ["p2", "p3", "p4", "p5", "p6"]
    assert list(model(torch.zeros(1, 3, 64, 64))) == levels == list(model.output_shape())


def test_only_the_package_knows_the_plug_in() -> None:
    from detectron2.modeling.backbone import resnet

    assert "res2net" not in Path(resnet.__file__).read_text(encoding="utf-8").lower()
