"""Feature pyramids against sums written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone, build_backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7


class Slices(Backbone):
    """A backbone without weights: every second pixel, every fourth, ..."""

    def __init__(self, strides: dict[str, int]) -> None:
        super().__init__()
        self.strides = strides

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: x[:, :, ::stride, ::stride] for name, stride in self.strides.items()}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {name: ShapeSpec(channels=3, stride=stride) for name, stride in self.strides.items()}


STRIDES = {"res3": 8, "res4": 16, "res5": 32}


@pytest.mark.parametrize("fuse_type", ["sum", "avg"])
def test_levels_are_lateral_plus_enlarged_coarser_levels(fuse_type: str) -> None:
    fpn = FPN(Slices(STRIDES), list(STRIDES), 4, fuse_type=fuse_type).double()
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    bottom_up = fpn.bottom_up(x)
    lateral = {
        level: F.conv2d(bottom_up[f"res{level}"], conv.weight, conv.bias)
        for level in (3, 4, 5)
        for conv in [getattr(fpn, f"fpn_lateral{level}")]
    }
    divisor = 2 if fuse_type == "avg" else 1
    fused = {5: lateral[5]}
    for level in (4, 3):
        enlarged = fused[level + 1].repeat_interleave(2, 2).repeat_interleave(2, 3)
        fused[level] = (lateral[level] + enlarged) / divisor
    features = fpn(x)
    assert list(features) == ["p3", "p4", "p5"]
    for level in (3, 4, 5):
        output = getattr(fpn, f"fpn_output{level}")
        expected = F.conv2d(fused[level], output.weight, output.bias, padding=1)
        torch.testing.assert_close(features[f"p{level}"], expected)


def test_max_pool_block_takes_every_second_pixel_of_p5() -> None:
    fpn = FPN(Slices(STRIDES), list(STRIDES), 4, top_block=LastLevelMaxPool())
    features = fpn(torch.randn(1, 3, 64, 96))
    assert list(features) == ["p3", "p4", "p5", "p6"]
    assert torch.equal(features["p6"], features["p5"][:, :, ::2, ::2])
    assert fpn.output_shape()["p6"].stride == 64


@pytest.mark.parametrize("source", ["res5", "p5"])
def test_p6_and_p7_are_strided_convolutions_of_their_source(source: str) -> None:
    block = LastLevelP6P7(3 if source == "res5" else 4, 4, in_feature=source)
    fpn = FPN(Slices(STRIDES), list(STRIDES), 4, top_block=block)
    x = torch.randn(1, 3, 64, 96)
    features = fpn(x)
    taken = fpn.bottom_up(x)["res5"] if source == "res5" else features["p5"]
    p6 = F.conv2d(taken, block.p6.weight, block.p6.bias, stride=2, padding=1)
    p7 = F.conv2d(p6.relu(), block.p7.weight, block.p7.bias, stride=2, padding=1)
    torch.testing.assert_close(features["p6"], p6)
    torch.testing.assert_close(features["p7"], p7)


def test_a_norm_replaces_the_bias() -> None:
    fpn = FPN(Slices(STRIDES), list(STRIDES), 32, norm="GN")
    names = set(fpn.state_dict())
    assert {"fpn_lateral3.norm.weight", "fpn_output5.norm.bias"} <= names
    assert "fpn_lateral3.bias" not in names


def test_convolutions_are_listed_from_coarse_to_fine() -> None:
    fpn = FPN(Slices(STRIDES), list(STRIDES), 4)
    assert fpn.lateral_convs == [fpn.fpn_lateral5, fpn.fpn_lateral4, fpn.fpn_lateral3]
    assert fpn.output_convs == [fpn.fpn_output5, fpn.fpn_output4, fpn.fpn_output3]


def test_input_must_divide_by_the_coarsest_stride() -> None:
    fpn = FPN(Slices(STRIDES), list(STRIDES), 4, square_pad=128)
    assert fpn.size_divisibility == 32
    assert fpn.padding_constraints == {"square_size": 128}


def test_no_images_give_empty_levels() -> None:
    features = FPN(Slices(STRIDES), list(STRIDES), 4)(torch.zeros(0, 3, 64, 32))
    assert features["p4"].shape == (0, 4, 4, 2)


@pytest.mark.parametrize(
    ("strides", "features", "options", "message"),
    [
        (STRIDES, ["res3", "res5"], {}, "half the resolution"),
        (STRIDES, ["res2"], {}, r"\['res2'\] are not among"),
        (STRIDES, [], {}, "needs in_features"),
        (STRIDES, ["res3"], {"fuse_type": "mean"}, "fuse_type must be one of"),
        ({"res3": 6, "res4": 12}, ["res3", "res4"], {}, "powers of two"),
    ],
)
def test_impossible_pyramids_are_refused(
    strides: dict[str, int], features: list[str], options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        FPN(Slices(strides), features, 4, **options)


@pytest.mark.parametrize("name", ["build_resnet_fpn_backbone", "build_retinanet_resnet_fpn_backbone"])
def test_registered_builders_follow_the_config(name: str) -> None:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = name
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 8
    levels = ["p3", "p4", "p5", "p6"] + (["p7"] if "retina" in name else [])
    model = build_backbone(cfg)
    assert list(model(torch.zeros(1, 3, 64, 64))) == levels
    assert {shape.channels for shape in model.output_shape().values()} == {8}


def test_retinanet_pyramid_needs_res5() -> None:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4"]
    with pytest.raises(ValueError, match="add it to MODEL.RESNETS.OUT_FEATURES"):
        build_backbone(cfg)


def test_without_a_norm_there_are_biases() -> None:
    for norm in ("", None):
        fpn = FPN(Slices(STRIDES), list(STRIDES), 8, norm=norm)
        assert {"fpn_lateral3.bias", "fpn_output5.bias"} <= set(fpn.state_dict())


def test_a_top_block_needs_its_source_when_the_pyramid_is_made() -> None:
    """Without it the fault would show in the first forward pass."""
    below, names = Slices({"res2": 4, "res3": 8}), ["res2", "res3"]
    with pytest.raises(ValueError, match=r"LastLevelMaxPool makes its levels from 'p5'.*\['p2', 'p3'\]"):
        FPN(below, names, 8, top_block=LastLevelMaxPool())
    with pytest.raises(ValueError, match=r"'res5'.*\['res2', 'res3'\]"):
        FPN(below, names, 8, top_block=LastLevelP6P7(3, 8))
    top = LastLevelP6P7(3, 8, in_feature="res3")
    assert list(FPN(below, names, 8, top_block=top).output_shape()) == ["p2", "p3", "p4", "p5"]
