"""Names of `layers` for others' code do what they did; `_C` too."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

_C = importlib.import_module("detectron2._C")
layers = importlib.import_module("detectron2.layers.deform_conv")
mask_ops = importlib.import_module("detectron2.layers.mask_ops")
rotated = importlib.import_module("detectron2.layers.roi_align_rotated")
wrappers = importlib.import_module("detectron2.layers.wrappers")

SETTINGS: Any = ((2, 1), (1, 2), (1, 1), 2, 1)
"""Stride, padding, dilation, groups, deformable groups."""


def test_empty_tensor_of_another_shape_keeps_the_graph() -> None:
    x = torch.ones(0, 3, requires_grad=True)
    y = wrappers._NewEmptyTensorOp.apply(x, (0, 5, 2))
    assert y.shape == (0, 5, 2)
    y.sum().backward()
    assert x.grad is not None and x.grad.shape == (0, 3)


def tensors(dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Input, offset, mask, weight and the gradient of the output."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 4, 7, 6), (2, 18, 4, 8), (2, 9, 4, 8), (6, 2, 3, 3), (2, 6, 4, 8))
    return tuple(torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)


def test_functions_in_the_form_of_autograd_functions() -> None:
    x, offset, mask, weight, _ = tensors()
    assert torch.equal(
        layers._DeformConv.apply(x, offset, weight, *SETTINGS),
        layers.deform_conv(x, offset, weight, *SETTINGS),
    )
    assert torch.equal(
        layers._ModulatedDeformConv.apply(x, offset, mask, weight, None, *SETTINGS),
        layers.modulated_deform_conv(x, offset, mask, weight, None, *SETTINGS),
    )
    rois = torch.tensor([[0, 3.0, 3.0, 4.0, 2.0, 30.0]], dtype=x.dtype)
    assert torch.equal(
        rotated._ROIAlignRotated.apply(x, rois, (2, 2), 0.5, 2),
        rotated.roi_align_rotated(x, rois, (2, 2), 0.5, 2),
    )


def test_masks_are_pasted_without_a_threshold_into_a_part_or_the_whole() -> None:
    masks = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[2.0, 3.0, 9.5, 8.0], [4.0, 1.5, 7.0, 6.0]])
    whole, nothing = mask_ops._do_paste_mask(masks, boxes, 12, 14, skip_empty=False)
    part, slices = mask_ops._do_paste_mask(masks, boxes, 12, 14)
    assert whole.shape == (2, 12, 14) and nothing == ()
    assert slices == (slice(0, 9), slice(1, 11))
    assert torch.equal(part, whole[:, slices[0], slices[1]])
    outside = whole.clone()
    outside[:, slices[0], slices[1]] = 0
    assert not outside.any()
    expected = mask_ops.paste_masks_in_image(masks[:, 0], boxes, (12, 14), 0.5)
    assert torch.equal(whole >= 0.5, expected) and expected.any()
    sizes = (torch.tensor(12), torch.tensor(14))
    assert torch.equal(mask_ops._paste_masks_tensor_shape(masks[:, 0], boxes, sizes, 0.5), expected)


def test_deform_conv_writes_into_what_it_is_given() -> None:
    x, offset, _, weight, grad = tensors()
    scratch = x.new_empty(0)
    # Width before height in the C++ interface; SETTINGS have height first.
    geometry: Any = (3, 3, 1, 2, 2, 1, 1, 1, 2, 1)
    output = x.new_empty(0)
    assert _C.deform_conv_forward(x, weight, offset, output, scratch, scratch, *geometry, 64) == 1
    leaves: Any = [t.clone().requires_grad_() for t in (x, offset, weight)]
    expected = layers.deform_conv(*leaves, *SETTINGS)
    assert torch.equal(output, expected)
    grads = torch.autograd.grad(expected, leaves, grad)
    grad_x, grad_offset, grad_weight = (torch.zeros_like(t) for t in (x, offset, weight))
    _C.deform_conv_backward_input(x, offset, grad, grad_x, grad_offset, weight, scratch, *geometry, 64)
    _C.deform_conv_backward_filter(x, offset, grad, grad_weight, scratch, scratch, *geometry, 0.5, 64)
    for found, wanted in zip((grad_x, grad_offset, grad_weight), (grads[0], grads[1], grads[2] / 2)):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("with_bias", [False, True])
def test_modulated_deform_conv_writes_into_what_it_is_given(with_bias: bool) -> None:
    x, offset, mask, weight, grad = tensors()
    bias = torch.arange(6, dtype=x.dtype)
    scratch, output = x.new_empty(0), x.new_empty(0)
    geometry: Any = (3, 3, 2, 1, 1, 2, 1, 1, 2, 1)
    _C.modulated_deform_conv_forward(
        x, weight, bias, scratch, offset, mask, output, scratch, *geometry, with_bias
    )
    leaves: Any = [t.clone().requires_grad_() for t in (x, offset, mask, weight, bias)]
    used: Any = leaves if with_bias else [*leaves[:4], None]
    expected = layers.modulated_deform_conv(*used, *SETTINGS)
    assert torch.equal(output, expected)
    grads = torch.autograd.grad(expected, leaves, grad, allow_unused=True)
    given: Any = [torch.zeros_like(t) for t in (x, weight, bias, offset, mask)]
    _C.modulated_deform_conv_backward(
        x, weight, bias, scratch, offset, mask, scratch, *given, grad, *geometry, with_bias
    )
    found = dict(zip(("x", "weight", "bias", "offset", "mask"), given))
    wanted = dict(zip(("x", "offset", "mask", "weight", "bias"), grads))
    wanted["bias"] = grads[4] if with_bias else torch.zeros_like(bias)
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[name], msg=name)


def test_facts_of_the_build() -> None:
    assert _C.get_cuda_version() == (
        f"CUDA {torch.version.cuda}" if _C.has_cuda() and torch.version.cuda else "not available"
    )
    assert _C.get_compiler_version().startswith(("GCC ", "clang ", "unknown"))


@pytest.mark.parametrize(
    "name", ["COCOevalEvaluateImages", "COCOevalAccumulate", "ImageEvaluation", "InstanceAnnotation"]
)
def test_steps_of_the_cpp_scorer_say_why_they_are_left_out(name: str) -> None:
    with pytest.raises(NotImplementedError, match=f"{name} is left out: COCO is scored by hotcoco"):
        getattr(_C, name)()
