"""Residual blocks against convolutions written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.layers.batch_norm import FrozenBatchNorm2d
from detectron2.modeling.backbone.residual import BasicBlock, BottleneckBlock, DeformBottleneckBlock


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight and statistic a value that matters, in float64 and evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(noise.abs() + 0.5 if name.endswith("running_var") else 0.3 * noise)
    return module.double().eval()


def conv_bn(x: Tensor, weights: dict[str, Tensor], name: str, **geometry: int) -> Tensor:
    x = F.conv2d(x, weights[f"{name}.weight"], **geometry)
    part = {
        key: weights[f"{name}.norm.{key}"][:, None, None]
        for key in ("weight", "bias", "running_mean", "running_var")
    }
    return (x - part["running_mean"]) / (part["running_var"] + 1e-5).sqrt() * part["weight"] + part["bias"]


@pytest.mark.parametrize("stride", [1, 2])
def test_basic_block_is_two_convolutions_and_a_shortcut(stride: int) -> None:
    block = randomize(BasicBlock(3, 5, stride=stride))
    x = torch.randn(2, 3, 9, 6, dtype=torch.float64)
    w = block.state_dict()
    out = conv_bn(conv_bn(x, w, "conv1", stride=stride, padding=1).relu(), w, "conv2", padding=1)
    expected = (out + conv_bn(x, w, "shortcut", stride=stride)).relu()
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("stride_in_1x1", [True, False])
@pytest.mark.parametrize("dilation", [1, 2])
def test_bottleneck_puts_stride_groups_and_dilation_where_asked(stride_in_1x1: bool, dilation: int) -> None:
    block = randomize(
        BottleneckBlock(
            6,
            10,
            bottleneck_channels=4,
            stride=2,
            num_groups=2,
            stride_in_1x1=stride_in_1x1,
            dilation=dilation,
        )
    )
    x = torch.randn(2, 6, 11, 8, dtype=torch.float64)
    w = block.state_dict()
    first, middle = (2, 1) if stride_in_1x1 else (1, 2)
    out = conv_bn(x, w, "conv1", stride=first).relu()
    out = conv_bn(out, w, "conv2", stride=middle, padding=dilation, dilation=dilation, groups=2).relu()
    expected = (conv_bn(out, w, "conv3") + conv_bn(x, w, "shortcut", stride=2)).relu()
    torch.testing.assert_close(block(x), expected)


def test_block_that_keeps_its_shape_has_no_shortcut_weights() -> None:
    block = BottleneckBlock(8, 8, bottleneck_channels=2)
    assert block.shortcut is None
    assert not any(name.startswith("shortcut") for name in block.state_dict())


def test_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="dilatoin"):
        BottleneckBlock(8, 8, bottleneck_channels=2, dilatoin=2)


@pytest.mark.parametrize("modulated", [True, False])
def test_deformable_block_starts_as_a_regular_grid(modulated: bool) -> None:
    block = randomize(
        DeformBottleneckBlock(4, 8, bottleneck_channels=4, deform_modulated=modulated, deform_num_groups=2)
    )
    for parameter in block.conv2_offset.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(1, 4, 7, 5, dtype=torch.float64)
    w = block.state_dict()
    hidden = conv_bn(x, w, "conv1").relu()
    # Predicting nothing: no offsets, and every tap weighs sigmoid(0).
    taps = F.conv2d(hidden, w["conv2.weight"] * (0.5 if modulated else 1.0), padding=1)
    torch.testing.assert_close(
        block.middle(hidden.clone()), F.relu(_norm(taps, w, "conv2.norm")), atol=1e-6, rtol=1e-6
    )


def _norm(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    mean, var = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, w[f"{name}.weight"], w[f"{name}.bias"])


def test_deformable_block_has_the_published_names() -> None:
    block = DeformBottleneckBlock(4, 8, bottleneck_channels=4, deform_modulated=True)
    assert block.conv2_offset.weight.shape == (27, 4, 3, 3)
    assert {"conv2.weight", "conv2_offset.weight", "conv2_offset.bias"} <= set(block.state_dict())


def test_freezing_makes_norms_constant_and_stops_gradients() -> None:
    block = BottleneckBlock(4, 8, bottleneck_channels=2).freeze()
    assert not any(parameter.requires_grad for parameter in block.parameters())
    assert isinstance(block.conv1.norm, FrozenBatchNorm2d)
    assert isinstance(block.shortcut.norm, FrozenBatchNorm2d)
