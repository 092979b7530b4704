"""RegNet against its formulas, its published plans, and plain functional code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone.regnet import (
    SE,
    AnyNet,
    BasicTransform,
    RegNet,
    ResBasicBlock,
    ResBottleneckBlock,
    ResStem,
    SimpleStem,
    VanillaBlock,
    adjust_block_compatibility,
    conv2d,
    generate_regnet_parameters,
    pool2d,
)

X_4GF = {"depth": 23, "w_a": 38.65, "w_0": 96, "w_m": 2.43, "group_width": 40}
Y_4GF = {"depth": 22, "w_a": 31.41, "w_0": 96, "w_m": 2.24, "group_width": 64, "se_ratio": 0.25}


def make_regnet(**kwargs: object) -> RegNet:
    return RegNet(stem_class=SimpleStem, stem_width=32, block_class=ResBottleneckBlock, **kwargs)


@pytest.mark.parametrize(
    ("plan", "widths", "depths", "num_parameters"),
    [
        (X_4GF, [80, 240, 560, 1360], [2, 5, 14, 2], 22118248),
        (Y_4GF, [128, 192, 512, 1088], [2, 6, 12, 2], 20646656),
    ],
)
def test_published_models(
    plan: dict[str, float], widths: list[int], depths: list[int], num_parameters: int
) -> None:
    with torch.device("meta"):
        net = make_regnet(**plan)
    stages = [stage for stage, _ in net.stages_and_names]
    assert [stage.b1.out_channels for stage in stages] == widths
    assert [len(list(stage.children())) for stage in stages] == depths
    # The published number is with a classifier of 1000 classes.
    assert sum(p.numel() for p in net.parameters()) + 1000 * (widths[-1] + 1) == num_parameters


def test_parameters_by_hand() -> None:
    # Widths 8, 16, 24, 32 are 8 * 2^0, 2^1, 2^1.58 and 2^2; the third exponent rounds to 2.
    assert generate_regnet_parameters(8, 8, 2, 4) == (
        [8, 16, 32],
        [1, 1, 2],
        3,
        3,
        [8, 16, 32, 32],
        [8, 16, 24, 32],
    )
    with pytest.raises(ValueError, match="w_0 a positive multiple of 8"):
        generate_regnet_parameters(8, 9, 2, 4)


def test_widths_split_into_groups() -> None:
    assert adjust_block_compatibility([20, 50], [1, 1], [16, 16]) == ([16, 48], [1, 1], [16, 16])
    assert adjust_block_compatibility([8], [1], [16]) == ([8], [1], [8])
    assert adjust_block_compatibility([20], [0.25], [3]) == ([24], [0.25], [3])
    with pytest.raises(ValueError, match="one entry per stage"):
        adjust_block_compatibility([8], [1, 1], [8])
    with pytest.raises(ValueError, match="positive"):
        adjust_block_compatibility([8], [0], [8])


def conv_bn(x: Tensor, block: nn.Module, name: str, stride: int = 1, groups: int = 1) -> Tensor:
    weight = block.get_submodule(name).weight
    x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
    bn = block.get_submodule("bn" if name == "proj" else f"{name}_bn")
    return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias)


@pytest.mark.parametrize("se_ratio", [0.0, 0.5])
@pytest.mark.parametrize("stride", [1, 2])
def test_bottleneck_block(stride: int, se_ratio: float) -> None:
    width_in = 8 if stride == 1 else 4
    params = {"bot_mul": 0.5, "group_w": 2, "se_r": se_ratio}
    block = ResBottleneckBlock(width_in, 8, stride, "BN", nn.ReLU, params).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, width_in, 5, 6, dtype=torch.float64)
    y = conv_bn(x, block.f, "a").relu()
    y = conv_bn(y, block.f, "b", stride, groups=2).relu()
    if se_ratio:
        first, second = block.f.se.f_ex[0], block.f.se.f_ex[2]
        mean = y.mean((2, 3))
        squeezed = (mean @ first.weight.flatten(1).T + first.bias).relu()
        y = y * (squeezed @ second.weight.flatten(1).T + second.bias).sigmoid()[..., None, None]
    shortcut = x if stride == 1 else conv_bn(x, block, "proj", stride)
    torch.testing.assert_close(block(x), (shortcut + conv_bn(y, block.f, "c")).relu())


def test_basic_blocks() -> None:
    x = torch.randn(1, 4, 6, 6)
    vanilla = VanillaBlock(4, 8, 2, "BN", nn.ReLU, {}).eval()
    y = conv_bn(conv_bn(x, vanilla, "a", 2).relu(), vanilla, "b").relu()
    torch.testing.assert_close(vanilla(x), y)
    transform = BasicTransform(4, 8, 2, "BN", nn.ReLU, {}).eval()
    y = conv_bn(conv_bn(x, transform, "a", 2).relu(), transform, "b")
    torch.testing.assert_close(transform(x), y)
    block = ResBasicBlock(4, 4, 1, "BN", nn.ReLU, {}).eval()
    torch.testing.assert_close(block(x), (x + block.f(x)).relu())
    assert block.proj is None


def test_parts_keep_the_size() -> None:
    x = torch.randn(1, 4, 7, 5)
    assert conv2d(4, 2, 5)(x).shape == (1, 2, 7, 5)
    assert pool2d(3, stride=2)(x).shape == (1, 4, 4, 3)
    assert SE(4, 2, nn.ReLU)(x).shape == x.shape
    assert ResStem(4, 6, "BN", nn.ReLU)(torch.randn(1, 4, 16, 8)).shape == (1, 6, 4, 2)
    for part in (lambda: conv2d(4, 4, 2), lambda: pool2d(2)):
        with pytest.raises(ValueError, match="odd kernels"):
            part()


def make_anynet(**kwargs: object) -> AnyNet:
    options = {
        "stem_class": SimpleStem,
        "stem_width": 4,
        "block_class": ResBottleneckBlock,
        "depths": [1, 2],
        "widths": [8, 12],
        "group_widths": [4, 4],
        "strides": [2, 2],
        "bottleneck_ratios": [1.0, 1.0],
        "se_ratio": 0.0,
        "activation_class": nn.ReLU,
    }
    return AnyNet(**{**options, **kwargs})


def test_maps_of_the_chosen_stages() -> None:
    net = make_anynet(out_features=["stem", "s2"])
    out = net(torch.randn(2, 3, 16, 24))
    assert {name: value.shape for name, value in out.items()} == {"stem": (2, 4, 8, 12), "s2": (2, 12, 2, 3)}
    shapes = {name: (spec.channels, spec.stride) for name, spec in net.output_shape().items()}
    assert shapes == {"stem": (4, 2), "s2": (12, 8)}
    assert list(make_anynet().output_shape()) == ["s2"]
    assert "s2.b2.f.b_bn.running_mean" in net.state_dict()
    with pytest.raises(ValueError, match="out_features must be some of"):
        make_anynet(out_features=["s3"])
    with pytest.raises(ValueError, match=r"\(N, C, H, W\) images"):
        net(torch.zeros(3, 16, 16))


@pytest.mark.parametrize(("freeze_at", "prefixes"), [(0, ()), (1, ("stem.",)), (2, ("stem.", "s1."))])
def test_freezing(freeze_at: int, prefixes: tuple[str, ...]) -> None:
    net = make_anynet(freeze_at=freeze_at)
    for name, parameter in net.named_parameters():
        assert parameter.requires_grad != name.startswith(prefixes), name
    frozen = [name for name, module in net.named_modules() if isinstance(module, FrozenBatchNorm2d)]
    assert bool(frozen) == bool(freeze_at)
    assert all(name.startswith(prefixes) for name in frozen)
