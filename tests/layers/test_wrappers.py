"""Thin layers and functions over torch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from detectron2.layers import extension
from detectron2.layers.aspp import ASPP
from detectron2.layers.batch_norm import FrozenBatchNorm2d
from detectron2.layers.blocks import CNNBlockBase, DepthwiseSeparableConv2d
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.weight_init import c2_msra_fill, c2_xavier_fill
from detectron2.layers.wrappers import (
    Conv2d,
    cat,
    check_if_dynamo_compiling,
    cross_entropy,
    disable_torch_compiler,
    move_device_like,
    nonzero_tuple,
    shapes_to_tensor,
)


def test_conv_applies_norm_then_activation() -> None:
    norm = nn.BatchNorm2d(4).eval()
    nn.init.uniform_(norm.weight), nn.init.normal_(norm.bias)
    conv = Conv2d(3, 4, 3, padding=1, bias=False, norm=norm, activation=F.relu)
    x = torch.randn(2, 3, 5, 6)
    torch.testing.assert_close(conv(x), F.relu(norm(F.conv2d(x, conv.weight, padding=1))))
    assert list(conv.state_dict())[:2] == ["weight", "norm.weight"]
    plain = Conv2d(3, 4, 1)
    torch.testing.assert_close(plain(x), F.conv2d(x, plain.weight, plain.bias))


def test_conv_trains_on_no_image() -> None:
    conv = Conv2d(3, 4, 3, stride=2, norm=FrozenBatchNorm2d(4), activation=F.relu)
    y = conv(torch.zeros(0, 3, 9, 9))
    assert y.shape == (0, 4, 4, 4)
    y.sum().backward()
    assert conv.weight.grad is not None and conv.weight.grad.eq(0).all()


def test_cross_entropy_of_nothing_is_zero_with_a_gradient() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(0, dtype=torch.int64))
    assert loss.item() == 0
    loss.backward()
    logits, target = torch.randn(4, 5), torch.tensor([0, 1, 2, 3])
    for reduction in ("mean", "sum", "none"):
        expected = F.cross_entropy(logits, target, reduction=reduction)
        torch.testing.assert_close(cross_entropy(logits, target, reduction=reduction), expected)
    weight = torch.rand(5)
    torch.testing.assert_close(
        cross_entropy(logits, target, weight=weight), F.cross_entropy(logits, target, weight=weight)
    )


def test_cat_of_one_copies_nothing() -> None:
    x = torch.randn(2, 3)
    assert cat([x]) is x
    assert cat([x, x], dim=1).shape == (2, 6)


def test_nonzero_tuple_counts_a_scalar_as_a_vector() -> None:
    rows, columns = nonzero_tuple(torch.tensor([[0, 1], [1, 1]]))
    assert rows.tolist() == [0, 1, 1] and columns.tolist() == [1, 0, 1]
    assert [index.tolist() for index in nonzero_tuple(torch.tensor(True))] == [[0]]
    assert [index.tolist() for index in nonzero_tuple(torch.zeros(0))] == [[]]


def test_small_helpers() -> None:
    assert shapes_to_tensor([3, 4]).tolist() == [3, 4]
    assert shapes_to_tensor([torch.tensor(3), 4]).tolist() == [3, 4]
    assert move_device_like(torch.zeros(1), torch.zeros(1)).device.type == "cpu"
    assert not check_if_dynamo_compiling()
    assert disable_torch_compiler(lambda a, b=1: a + b)(1, b=2) == 3


def test_shape_spec_knows_nothing_by_default() -> None:
    assert ShapeSpec() == ShapeSpec(channels=None, height=None, width=None, stride=None)
    assert ShapeSpec(channels=3).channels == 3


def test_initialisers_have_the_variance_they_promise() -> None:
    conv = nn.Conv2d(64, 32, 3)
    nn.init.ones_(conv.bias)
    c2_xavier_fill(conv)
    bound = math.sqrt(3 / (64 * 9))
    assert conv.weight.abs().max() <= bound and conv.bias.eq(0).all()
    assert conv.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    c2_msra_fill(conv)
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (32 * 9)), rel=0.03)
    c2_msra_fill(nn.Conv2d(2, 2, 1, bias=False))
    with pytest.raises(TypeError, match="ReLU has no weight"):
        c2_xavier_fill(nn.ReLU())


def test_freezing_a_block_stops_its_training() -> None:
    class Block(CNNBlockBase):
        def __init__(self) -> None:
            super().__init__(3, 4, 2)
            self.conv = Conv2d(3, 4, 1, norm=nn.BatchNorm2d(4))

    block = Block()
    assert block.freeze() is block and (block.in_channels, block.out_channels, block.stride) == (3, 4, 2)
    assert not any(parameter.requires_grad for parameter in block.parameters())
    assert isinstance(block.conv.norm, FrozenBatchNorm2d)


def test_separable_conv_is_two_convs() -> None:
    block = DepthwiseSeparableConv2d(
        4, 6, padding=2, dilation=2, norm1="BN", activation1=F.relu, activation2=F.relu
    ).eval()
    x = torch.randn(2, 4, 7, 7)
    inner = F.relu(block.depthwise.norm(F.conv2d(x, block.depthwise.weight, None, 1, 2, 2, groups=4)))
    expected = F.relu(F.conv2d(inner, block.pointwise.weight, block.pointwise.bias))
    torch.testing.assert_close(block(x), expected)
    assert block.depthwise.bias is None and block.pointwise.bias is not None


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("pool", [None, (4, 4)])
def test_aspp_merges_five_views(pool: tuple[int, int] | None, separable: bool) -> None:
    aspp = ASPP(
        4,
        8,
        [1, 2, 3],
        norm="BN",
        activation=F.relu,
        pool_kernel_size=pool,
        dropout=0.5,
        use_depthwise_separable_conv=separable,
    ).eval()
    assert len(aspp.convs) == 5 and aspp.project.in_channels == 40
    x = torch.randn(2, 4, 8, 12)
    y = aspp(x)
    assert y.shape == (2, 8, 8, 12) and y.min() >= 0
    views = [conv(x) for conv in aspp.convs]
    views[4] = F.interpolate(views[4], size=(8, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(y, aspp.project(torch.cat(views, 1)))
    assert aspp.train()(x).shape == y.shape


def test_aspp_names_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="three dilations"):
        ASPP(4, 8, [1, 2], norm="", activation=F.relu)
    aspp = ASPP(4, 8, [1, 2, 3], norm="", activation=F.relu, pool_kernel_size=(3, 4))
    with pytest.raises(ValueError, match="not divisible"):
        aspp(torch.randn(1, 4, 8, 12))


def test_missing_operators_say_how_to_build_them() -> None:
    reason = extension.missing_reason()
    assert not reason or "pip install" in reason or "D2_DISABLE_OPS" in reason
    assert (extension.find_operator("nms", torch.device("cpu")) is None) == bool(reason)
    assert extension.find_operator("no_such_operator", torch.device("cpu")) is None


def test_compiled_code_runs_disabled_functions_eagerly() -> None:
    compiling = []

    @disable_torch_compiler
    def inner(x: torch.Tensor) -> torch.Tensor:
        compiling.append(check_if_dynamo_compiling())
        return x * float(x.max())

    compiled = torch.compile(lambda x: inner(x + 1) * 2, backend="eager")
    assert compiled(torch.tensor([1.0, 2.0])).tolist() == [12.0, 18.0]
    assert compiling == [False]


@pytest.mark.parametrize("norm", ["", None])
def test_aspp_without_a_norm_has_biases(norm: str | None) -> None:
    aspp = ASPP(4, 8, (1, 2, 3), norm=norm, activation=F.relu)
    assert all(f"{name}.bias" in aspp.state_dict() for name in ("convs.0", "convs.1", "project"))
