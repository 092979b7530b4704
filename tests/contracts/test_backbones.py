"""What every backbone does by itself, those that Python configs make included."""

from __future__ import annotations

import copy
import importlib.util
import pickle
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from detectron2.layers import ShapeSpec
from detectron2.modeling import (
    FPN,
    Backbone,
    MViT,
    ResNet,
    SimpleFeaturePyramid,
    SwinTransformer,
    ViT,
)
from detectron2.modeling.backbone import BasicStem, BottleneckBlock, TimmBackbone, make_stage
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.regnet import RegNet, SimpleStem
from detectron2.modeling.backbone.regnet_blocks import ResBottleneckBlock

from . import registered
from .compare import assert_same

STAGES = ["res2", "res3", "res4", "res5"]


def _resnet() -> ResNet:
    """One bottleneck block a stage."""
    stages = [
        make_stage(
            BottleneckBlock, 1, stride_per_block=[1 if stage == 0 else 2], in_channels=8 << max(stage - 1, 0),
            bottleneck_channels=4, out_channels=8 << stage, norm="BN",
        )
        for stage in range(4)
    ]  # fmt: skip
    return ResNet(BasicStem(3, 8, "BN"), stages, out_features=STAGES)


def _vit() -> ViT:
    return ViT(
        img_size=64, patch_size=16, embed_dim=16, depth=2, num_heads=2, window_size=2,
        window_block_indexes=(0,), use_rel_pos=True, out_feature="last_feat", drop_path_rate=0.0,
    )  # fmt: skip


def _mvit() -> MViT:
    return MViT(
        img_size=64, embed_dim=8, depth=4, num_heads=1, last_block_indexes=(0, 1, 2, 3),
        adaptive_window_size=8, adaptive_kv_stride=2,
    )  # fmt: skip


def _swin() -> SwinTransformer:
    return SwinTransformer(
        embed_dim=8, depths=(2, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=4, drop_path_rate=0.0
    )


def _regnet() -> RegNet:
    return RegNet(
        stem_class=SimpleStem, stem_width=8, block_class=ResBottleneckBlock, depth=4, w_a=8.0, w_0=8, w_m=2.0,
        group_width=8, freeze_at=0, norm="BN",
    )  # fmt: skip


# The smallest of each class.
BACKBONES: dict[str, Callable[[], Backbone]] = {
    "FPN": lambda: FPN(_resnet(), STAGES, 8, norm="", top_block=LastLevelMaxPool()),
    "MViT": _mvit,
    "RegNet": _regnet,
    "ResNet": _resnet,
    "SimpleFeaturePyramid": lambda: SimpleFeaturePyramid(
        _vit(), "last_feat", out_channels=8, scale_factors=(4.0, 2.0, 1.0, 0.5), top_block=LastLevelMaxPool()
    ),
    "SwinTransformer": _swin,
    "TimmBackbone": lambda: TimmBackbone("resnet10t", in_channels=3),
    "ViT": _vit,
}

# Classes that are made through others of the table, with the reason.
BASES = {
    "AnyNet": "RegNet chooses its widths and is otherwise this class",
    "Pyramid": "FPN and SimpleFeaturePyramid make its levels",
}

# A parameter that no gradient reaches, with the reason.
WITHOUT_GRADIENT: dict[str, dict[str, str]] = {}

backbone_names = pytest.mark.parametrize("name", BACKBONES)


def test_every_backbone_has_a_row() -> None:
    assert list(registered.subclasses(Backbone)) == sorted([*BACKBONES, *BASES])


def make(name: str, seed: int = 0) -> Backbone:
    if name == "TimmBackbone" and importlib.util.find_spec("timm") is None:
        pytest.skip("timm is optional and not installed")
    torch.manual_seed(seed)
    backbone = BACKBONES[name]()
    assert type(backbone).__name__ == name
    return backbone


@cache
def built(name: str) -> Backbone:
    return make(name)


def fresh(name: str) -> Backbone:
    return copy.deepcopy(built(name))


def images(number: int = 2, height: int = 64, width: int = 96) -> Tensor:
    return torch.randn(number, 3, height, width, generator=torch.Generator().manual_seed(0))


def train(backbone: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    features: dict[str, Tensor] = backbone.train()(batch)
    sum(map_.float().square().mean() for map_ in features.values()).backward()
    return features


@backbone_names
def test_maps_have_the_stated_shapes_at_every_size(name: str) -> None:
    backbone = fresh(name).eval()
    divisor = max(backbone.size_divisibility, 1)
    for number, height, width in ((1, 64, 64), (2, 96, 160), (1, 128, 64)):
        height, width = -(-height // divisor) * divisor, -(-width // divisor) * divisor
        with torch.no_grad():
            features = backbone(images(number, height, width))
        stated: dict[str, ShapeSpec] = backbone.output_shape()
        assert list(features) == list(stated)
        for key, map_ in features.items():
            stride = stated[key].stride
            assert stride is not None
            expected = (number, stated[key].channels, -(-height // stride), -(-width // stride))
            assert tuple(map_.shape) == expected, key
    strides = [shape.stride for shape in stated.values()]
    assert all(fine < coarse for fine, coarse in pairwise(strides))


@backbone_names
def test_every_parameter_that_is_not_named_gets_a_gradient(name: str) -> None:
    backbone = fresh(name)
    train(backbone, images())
    missed = [key for key, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert missed == list(WITHOUT_GRADIENT.get(name, {}))
    assert all(p.grad.isfinite().all() for p in backbone.parameters() if p.grad is not None)
    dead = [key for key, p in backbone.named_parameters() if p.grad is not None and not p.grad.any()]
    assert dead == []


@backbone_names
def test_evaluation_repeats_and_an_image_does_not_depend_on_its_batch(name: str) -> None:
    backbone, batch = fresh(name).eval(), images()
    with torch.no_grad():
        both, again, one = backbone(batch), backbone(batch), backbone(batch[1:])
    assert_same(both, again)
    assert_same({key: map_[1:] for key, map_ in both.items()}, one, tolerance=1e-5)
    assert not torch.equal(both[next(iter(both))][0], both[next(iter(both))][1])


@backbone_names
def test_weights_carry_over_by_state_dict(name: str) -> None:
    backbone, other = fresh(name).eval(), make(name, seed=1).eval()
    with torch.no_grad():
        expected = backbone(images())
        first = next(iter(expected))
        assert not torch.equal(other(images())[first], expected[first])
        other.load_state_dict(backbone.state_dict(), strict=True)
        assert_same(expected, other(images()))


@backbone_names
@pytest.mark.parametrize("duplicate", ["deepcopy", "pickle"])
def test_a_copy_does_the_same_and_shares_no_weights(name: str, duplicate: str) -> None:
    backbone = fresh(name).eval()
    twin = copy.deepcopy(backbone) if duplicate == "deepcopy" else pickle.loads(pickle.dumps(backbone))
    with torch.no_grad():
        expected = backbone(images())
        for parameter in backbone.parameters():
            parameter.fill_(float("nan"))
        assert_same(expected, twin(images()))
    assert list(twin.state_dict()) == list(backbone.state_dict())


@backbone_names
@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_bfloat16_trains_and_is_near_float32(name: str, how: str) -> None:
    backbone, exact = fresh(name), train(fresh(name), images())
    if how == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            features = train(backbone, images())
    else:
        features = train(backbone.to(torch.bfloat16), images().bfloat16())
        assert {map_.dtype for map_ in features.values()} == {torch.bfloat16}
    for key, map_ in features.items():
        error = (map_.float() - exact[key]).norm() / exact[key].norm()
        assert error < 0.1, f"{key}: {error}"
    assert all(p.grad.isfinite().all() for p in backbone.parameters() if p.grad is not None)


@backbone_names
def test_channels_last_changes_nothing_but_the_order_in_memory(name: str) -> None:
    exact = train(fresh(name), images())
    backbone = fresh(name).to(memory_format=torch.channels_last)
    features = train(backbone, images().to(memory_format=torch.channels_last))
    assert_same(
        {k: v.detach() for k, v in exact.items()},
        {k: v.detach() for k, v in features.items()},
        tolerance=1e-4,
    )


@backbone_names
def test_exports(name: str) -> None:
    backbone = fresh(name).eval()
    with torch.no_grad():
        program = torch.export.export(backbone, (images(1),), strict=False).module()
        assert_same(dict(backbone(images(1))), dict(program(images(1))), tolerance=1e-5)
