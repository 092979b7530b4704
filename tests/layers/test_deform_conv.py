"""Deformable convolution against its definition in plain Python, and against ordinary convolution."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.layers.deform_conv import (
    DeformConv,
    ModulatedDeformConv,
    deform_conv,
    modulated_deform_conv,
)


def bilinear(plane: np.ndarray, y: float, x: float) -> float:
    """A value between the cells of (H, W), with zeros around."""
    value = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]:
                value += (1 - abs(y - row)) * (1 - abs(x - column)) * plane[row, column]
    return value


def slow_deform_conv(
    x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, settings: dict[str, int]
) -> Tensor:
    stride, padding, dilation = settings["stride"], settings["padding"], settings["dilation"]
    groups, deformable_groups = settings["groups"], settings["deformable_groups"]
    num_images, channels, _, _ = x.shape
    num_out, per_group, kh, kw = weight.shape
    output = np.zeros((num_images, num_out, *offset.shape[2:]))
    planes, shifts, kernel = x.numpy(), offset.numpy(), weight.numpy()
    factors = np.ones((num_images, deformable_groups * kh * kw, *offset.shape[2:]))
    factors = factors if mask is None else mask.numpy()
    for n, o, i, j in np.ndindex(*output.shape):
        first = o // (num_out // groups) * per_group
        for c in range(first, first + per_group):
            group = c // (channels // deformable_groups)
            for tap, (a, b) in enumerate(np.ndindex(kh, kw)):
                k = group * kh * kw + tap
                y = i * stride - padding + a * dilation + shifts[n, 2 * k, i, j]
                z = j * stride - padding + b * dilation + shifts[n, 2 * k + 1, i, j]
                output[n, o, i, j] += (
                    kernel[o, c - first, a, b] * factors[n, k, i, j] * bilinear(planes[n, c], y, z)
                )
    return torch.from_numpy(output)


SETTINGS = [
    {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, "deformable_groups": 1},
    {"stride": 2, "padding": 1, "dilation": 1, "groups": 2, "deformable_groups": 1},
    {"stride": 1, "padding": 2, "dilation": 2, "groups": 1, "deformable_groups": 2},
    {"stride": 2, "padding": 0, "dilation": 1, "groups": 2, "deformable_groups": 4},
]


def make_case(
    settings: dict[str, int], kernel: tuple[int, int] = (3, 2), image_size: tuple[int, int] = (6, 5)
) -> list[Tensor]:
    """Input, offset, mask, weight, bias in float64."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, weight = randn(2, 4, *image_size), randn(4, 4 // settings["groups"], *kernel)
    size = [
        (n + 2 * settings["padding"] - settings["dilation"] * (k - 1) - 1) // settings["stride"] + 1
        for n, k in zip(x.shape[2:], kernel)
    ]
    taps = settings["deformable_groups"] * kernel[0] * kernel[1]
    return [x, randn(2, 2 * taps, *size) * 2, randn(2, taps, *size), weight, randn(4)]


@pytest.mark.parametrize("settings", SETTINGS)
def test_convolves_at_displaced_positions(settings: dict[str, int], device: str) -> None:
    x, offset, mask, weight, bias = make_case(settings)
    on_device = [tensor.to(device) for tensor in (x, offset, mask, weight, bias)]
    plain = deform_conv(on_device[0], on_device[1], on_device[3], **settings).cpu()
    torch.testing.assert_close(plain, slow_deform_conv(x, offset, None, weight, settings))
    modulated = modulated_deform_conv(*on_device, **settings).cpu()
    expected = slow_deform_conv(x, offset, mask, weight, settings) + bias[:, None, None]
    torch.testing.assert_close(modulated, expected)


@pytest.mark.parametrize("settings", SETTINGS)
def test_without_offsets_it_is_a_convolution(settings: dict[str, int]) -> None:
    x, offset, mask, weight, bias = make_case(settings)
    names = ("stride", "padding", "dilation", "groups")
    expected = F.conv2d(x, weight, bias, **{name: settings[name] for name in names})
    output = modulated_deform_conv(x, offset * 0, mask * 0 + 1, weight, bias, **settings)
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("settings", SETTINGS[2:])
def test_gradients_of_every_input(settings: dict[str, int]) -> None:
    inputs = [
        tensor[:1] if tensor.ndim == 4 and len(tensor) == 2 else tensor
        for tensor in make_case(settings, (2, 1), (3, 2))
    ]
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    assert torch.autograd.gradcheck(lambda *args: modulated_deform_conv(*args, **settings), inputs)


def test_positions_far_outside_give_zero_and_no_gradient() -> None:
    x, offset, _, weight, _ = make_case(SETTINGS[0])
    offset = torch.full_like(offset, 1e6).requires_grad_()
    output = deform_conv(x, offset, weight, **SETTINGS[0])
    assert output.eq(0).all()
    output.sum().backward()
    assert offset.grad is not None and offset.grad.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_returns_its_dtype(dtype: torch.dtype) -> None:
    inputs = [tensor.to(dtype) for tensor in make_case(SETTINGS[0])]
    output = modulated_deform_conv(*inputs, **SETTINGS[0])
    assert output.dtype == dtype
    exact = modulated_deform_conv(*[tensor.double() for tensor in inputs], **SETTINGS[0])
    torch.testing.assert_close(output.double(), exact, atol=0.1, rtol=0.05)


def test_modules_apply_norm_and_activation_and_train_on_no_image() -> None:
    norm = nn.BatchNorm2d(6).eval()
    conv = DeformConv(4, 6, 3, padding=1, deformable_groups=2, norm=norm, activation=F.relu)
    assert {name for name, _ in conv.named_parameters()} == {"weight", "norm.weight", "norm.bias"}
    output = conv(torch.randn(2, 4, 5, 5), torch.randn(2, 36, 5, 5))
    assert output.shape == (2, 6, 5, 5) and output.min() >= 0
    modulated = ModulatedDeformConv(4, 6, 3, stride=2, padding=1)
    output = modulated(torch.zeros(0, 4, 5, 5), torch.zeros(0, 18, 3, 3), torch.zeros(0, 9, 3, 3))
    assert output.shape == (0, 6, 3, 3)
    output.sum().backward()
    assert modulated.weight.grad is not None and modulated.bias is not None


def test_text_of_the_modules_names_their_settings() -> None:
    """As detectron2 prints them: the first version has pairs, the second what it was given."""
    assert repr(DeformConv(3, 10, kernel_size=3, padding=1, deformable_groups=1)) == (
        "DeformConv(in_channels=3, out_channels=10, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), "
        "dilation=(1, 1), groups=1, deformable_groups=1, bias=False)"
    )
    assert repr(ModulatedDeformConv(3, 10, kernel_size=3, padding=1, deformable_groups=2)) == (
        "ModulatedDeformConv(in_channels=3, out_channels=10, kernel_size=(3, 3), stride=1, padding=1, "
        "dilation=1, groups=1, deformable_groups=2, bias=True)"
    )


def test_what_does_not_fit_is_named() -> None:
    x, offset, mask, weight, bias = make_case(SETTINGS[0])
    with pytest.raises(ValueError, match="expected offset of shape"):
        deform_conv(x, offset[..., 1:], weight, padding=1)
    with pytest.raises(ValueError, match="expected mask of shape"):
        modulated_deform_conv(x, offset, mask[:, 1:], weight, bias, padding=1)
    with pytest.raises(ValueError, match="too small"):
        deform_conv(x[..., :1], offset, weight)
    with pytest.raises(ValueError, match="groups"):
        deform_conv(x, offset, weight, padding=1, deformable_groups=3)
    with pytest.raises(ValueError, match="no bias"):
        DeformConv(4, 4, 3, bias=True)
