"""What every compiled operator must do: agree with plain PyTorch, differentiate, trace, and refuse nonsense.

With D2_DISABLE_OPS=1 the same functions run on plain PyTorch; tests of the compiled side are skipped then.
That the plain side is right is shown operator by operator, in the files beside this one.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from detectron2.layers import extension, mask_ops, rotated_boxes
from detectron2.layers.deform_conv_reference import deform_conv_reference

# By name, because the package exports functions of these names.
nms, deform_conv, roi_align, roi_align_rotated = (
    importlib.import_module(f"detectron2.layers.{name}")
    for name in ("nms", "deform_conv", "roi_align", "roi_align_rotated")
)
needs_operators = pytest.mark.skipif(
    bool(extension.missing_reason()), reason=f"no compiled operators: {extension.missing_reason()}"
)
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 8e-2}
DTYPES = list(TOLERANCE)
KINDS = ("random", "empty", "degenerate", "large", "strided")
NAN, INF = float("nan"), float("inf")


class Operator(NamedTuple):
    """A public function and its plain twin, as functions of tensors alone, and inputs for both."""

    call: Callable[..., Any]
    reference: Callable[..., Any]
    make: Callable[[str], list[Tensor]]  # kind -> float64 tensors, and int64 ones for classes
    num_differentiable: int = 0  # of the leading inputs


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def as_strided_view(tensor: Tensor) -> Tensor:
    """The same numbers, every second one in memory."""
    return tensor.repeat_interleave(2, dim=-1)[..., ::2]


def upright_boxes(kind: str) -> Tensor:
    count = {"empty": 0, "large": 3000}.get(kind, 60)
    start = rand(count, 2) * 60 - 10
    boxes = torch.cat([start, start + rand(count, 2, seed=1) ** 2 * 50], dim=1)
    if kind == "degenerate":
        x, y = boxes[0, 0].item(), boxes[0, 1].item()
        special = [
            [x, y, x, y],  # no extent
            [5, 5, 5, 30],
            [30, 30, 10, 10],  # corners swapped
            [500, 500, 600, 600],  # outside
            [-300, -300, -200, -200],
            [-1e5, -1e5, 1e5, 1e5],  # much larger than the image
            [NAN, 2, 3, 4],
            [0, NAN, 30, NAN],
            [NAN] * 4,
            [0, 0, INF, INF],
            [-INF, -INF, INF, INF],
            [0, 0, 40, 40],
            [0, 0, 40, 40],  # twice the same
        ]
        boxes[10 : 10 + len(special)] = torch.tensor(special, dtype=torch.float64)
    return boxes


def turned_boxes(kind: str) -> Tensor:
    count = {"empty": 0, "large": 400}.get(kind, 60)
    boxes = torch.cat(
        [rand(count, 2) * 40, rand(count, 2, seed=1) * 30, rand(count, 1, seed=2) * 720 - 360], dim=1
    )
    if kind == "degenerate":
        special = [
            [5, 5, 0, 0, 10],
            [5, 5, 0, 20, 30],
            [20, 20, -8, 9, 0],
            [20, 20, -8, -9, 15],
            [900, 900, 10, 10, 45],
            [20, 20, 3000, 3000, 45],
            [NAN, 5, 10, 10, 0],
            [5, 5, NAN, 10, 0],
            [5, 5, 10, 10, NAN],
            [5, 5, INF, 10, 0],
            [10, 10, 6, 4, 90],
            [10, 10, 6, 4, 90],
            [10, 10, 4, 6, 0],  # the same box once more
        ]
        boxes[10 : 10 + len(special)] = torch.tensor(special, dtype=torch.float64)
    return boxes


def suppression_inputs(kind: str, boxes: Callable[[str], Tensor], num_classes: int = 0) -> list[Tensor]:
    rows = boxes(kind)
    scores = (rand(len(rows), seed=3) * 50).round() / 50  # with ties
    if kind == "degenerate":
        scores[3], scores[4], scores[5] = NAN, INF, -INF
    classes = (rand(len(rows), seed=4) * num_classes).long()
    return [rows, scores, classes] if num_classes else [rows, scores]


def iou_inputs(kind: str) -> list[Tensor]:
    boxes = turned_boxes(kind)
    return [boxes, boxes[: len(boxes) // 2] + 0.25]


def roi_inputs(kind: str, boxes: Callable[[str], Tensor]) -> list[Tensor]:
    rows = boxes(kind)[:600]
    images = (rand(len(rows), 1, seed=5) * 2).floor()
    size = (70, 90) if kind == "large" else (11, 14)
    return [randn(2, 3, *size), torch.cat([images, rows], dim=1)]


def deform_inputs(kind: str, modulated: bool) -> list[Tensor]:
    num_images = 0 if kind == "empty" else 2
    size = (40, 45) if kind == "large" else (7, 6)
    x = randn(num_images, 4, *size)
    offset = randn(num_images, 2 * 2 * 9, *size, seed=1) * 2
    if kind == "degenerate":
        offset[0, :4, :3] = torch.tensor([NAN, INF, 1e9, -1.0], dtype=torch.float64)[:, None, None]
        offset[1] = offset[1].round()  # on cells, where the slope jumps: the right-hand one counts
    mask = [rand(num_images, 2 * 9, *size, seed=2)] if modulated else []
    return [x, offset, *mask, randn(6, 2, 3, 3, seed=3)]


def paste_inputs(kind: str) -> list[Tensor]:
    boxes = upright_boxes(kind)[:300]
    return [rand(len(boxes), 28 if kind == "large" else 7, 28 if kind == "large" else 7, seed=6), boxes]


def convolve(x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor) -> Tensor:
    return deform_conv.modulated_deform_conv(
        x, offset, mask, weight, None, 1, 1, 1, groups=2, deformable_groups=2
    )


def convolve_plainly(x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor) -> Tensor:
    pairs = ((1, 1), (1, 1), (1, 1))
    return deform_conv_reference(x, offset, mask, weight, None, *pairs, 2)


IMAGE_SIZE = (41, 53)
upright, turned = upright_boxes, turned_boxes
OPERATORS = {
    "nms": Operator(
        lambda b, s: nms.nms(b, s, 0.4),
        lambda b, s: nms._nms_reference(b, s, 0.4),
        lambda kind: suppression_inputs(kind, upright),
    ),
    "batched_nms": Operator(
        lambda b, s, c: nms.batched_nms(b, s, c, 0.4),
        lambda b, s, c: nms._batched_nms_reference(b, s, c, 0.4),
        lambda kind: suppression_inputs(kind, upright, num_classes=7),
    ),
    "nms_rotated": Operator(
        lambda b, s: nms.nms_rotated(b, s, 0.3),
        lambda b, s: nms._nms_rotated_reference(b, s, 0.3),
        lambda kind: suppression_inputs(kind, turned),
    ),
    "batched_nms_rotated": Operator(
        lambda b, s, c: nms.batched_nms_rotated(b, s, c, 0.3),
        lambda b, s, c: nms._batched_nms_rotated_reference(b, s, c, 0.3),
        lambda kind: suppression_inputs(kind, turned, num_classes=7),
    ),
    "box_iou_rotated": Operator(
        rotated_boxes.pairwise_iou_rotated, rotated_boxes._pairwise_iou_rotated_reference, iou_inputs
    ),
    "roi_align": Operator(
        lambda x, b: roi_align.roi_align(x, b, (5, 4), 0.25, 0, True),
        lambda x, b: roi_align._roi_align_reference(x, b, (5, 4), 0.25, 0, True),
        lambda kind: roi_inputs(kind, upright),
        1,
    ),
    "roi_align of 2 x 2 samples, not aligned": Operator(
        lambda x, b: roi_align.roi_align(x, b, (3, 3), 0.3, 2, False),
        lambda x, b: roi_align._roi_align_reference(x, b, (3, 3), 0.3, 2, False),
        lambda kind: roi_inputs(kind, upright),
        1,
    ),
    "roi_align_rotated": Operator(
        lambda x, b: roi_align_rotated.roi_align_rotated(x, b, (5, 4), 0.25, 0),
        lambda x, b: roi_align_rotated._roi_align_rotated_reference(x, b, (5, 4), 0.25, 0),
        lambda kind: roi_inputs(kind, turned),
        1,
    ),
    "roi_align_rotated of 2 x 2 samples": Operator(
        lambda x, b: roi_align_rotated.roi_align_rotated(x, b, (3, 3), 0.3, 2),
        lambda x, b: roi_align_rotated._roi_align_rotated_reference(x, b, (3, 3), 0.3, 2),
        lambda kind: roi_inputs(kind, turned),
        1,
    ),
    "deform_conv": Operator(
        lambda x, o, w: convolve(x, o, None, w),
        lambda x, o, w: convolve_plainly(x, o, None, w),
        lambda kind: deform_inputs(kind, modulated=False),
        3,
    ),
    "deform_conv with mask": Operator(
        convolve, convolve_plainly, lambda kind: deform_inputs(kind, modulated=True), 4
    ),
    "paste_masks": Operator(
        lambda m, b: mask_ops.paste_masks_in_image(m, b, IMAGE_SIZE, 0.5),
        lambda m, b: mask_ops._paste_masks_reference(m, b, *IMAGE_SIZE, 0.5),
        paste_inputs,
    ),
    "paste_masks without threshold": Operator(
        lambda m, b: mask_ops.paste_masks_in_image(m, b, IMAGE_SIZE, -1),
        lambda m, b: mask_ops._paste_masks_reference(m, b, *IMAGE_SIZE, -1),
        paste_inputs,
    ),
}
DIFFERENTIABLE = [name for name, operator in OPERATORS.items() if operator.num_differentiable]


def make_inputs(
    name: str, kind: str, dtype: torch.dtype = torch.float64, device: str | torch.device = "cpu"
) -> list[Tensor]:
    """Inputs of an operator; boxes keep float32 where features are half precision, as under autocast."""
    inputs = OPERATORS[name].make(kind)
    if kind == "strided":
        inputs = [as_strided_view(tensor) for tensor in inputs]
    for index, tensor in enumerate(inputs):
        if tensor.is_floating_point():
            is_box = tensor.ndim == 2
            wanted = dtype if not is_box or dtype == torch.float64 else torch.float32
            inputs[index] = tensor.to(wanted) if tensor.dtype != wanted else tensor
    return [tensor.to(device) for tensor in inputs]


def assert_agree(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    actual = actual.cpu()
    if actual.dtype in (
        torch.bool,
        torch.uint8,
    ):  # pasted masks: a value on the threshold may fall either way
        difference = (actual.int() - expected.int()).abs()
        assert difference.numel() == 0 or (
            (difference > 1).sum() == 0 and (difference > 0).float().mean() < 1e-4
        )
    elif actual.is_floating_point():
        torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance, equal_nan=True)
    else:
        assert torch.equal(actual, expected)


def gradients(function: Callable[..., Tensor], inputs: list[Tensor], count: int) -> list[Tensor]:
    leaves = [t.detach().requires_grad_() if i < count else t for i, t in enumerate(inputs)]
    output = function(*leaves)
    weight = randn(*output.shape, seed=9).to(output)
    return list(torch.autograd.grad(output, leaves[:count], weight))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPERATORS)
def test_agrees_with_plain_pytorch(name: str, kind: str, dtype: torch.dtype) -> None:
    operator, inputs = OPERATORS[name], make_inputs(name, kind, dtype)
    assert_agree(operator.call(*inputs), operator.reference(*inputs), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_agree_with_plain_pytorch(name: str, kind: str, dtype: torch.dtype) -> None:
    operator = OPERATORS[name]
    inputs, count = make_inputs(name, kind, dtype), operator.num_differentiable
    actual, expected = (gradients(f, inputs, count) for f in (operator.call, operator.reference))
    for one, other in zip(actual, expected):
        scale = max(float(other.abs().nan_to_num().amax()), 1.0) if other.numel() else 1.0
        assert_agree(one / scale, other / scale, TOLERANCE[dtype])


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_match_finite_differences(name: str) -> None:
    operator = OPERATORS[name]
    inputs = make_inputs(name, "random")
    if "roi" in name:
        inputs = [inputs[0][:, :1], inputs[1][:6]]
    else:
        inputs = [t[:1, :, :3, :3] if t.shape[0] == 2 else t for t in inputs]
    count = operator.num_differentiable
    leaves = [t.clone().requires_grad_(i < count) for i, t in enumerate(inputs)]
    assert torch.autograd.gradcheck(operator.call, leaves, fast_mode="deform" in name)


@needs_operators
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_second_derivative_is_refused_in_a_sentence(name: str) -> None:
    operator = OPERATORS[name]
    x, *rest = make_inputs(name, "random")
    x.requires_grad_()
    output = operator.call(x, *rest)
    (grad,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        grad.sum().backward()


# --- what a compiled operator is asked directly


def operator_arguments(name: str, device: str = "cpu") -> tuple[Any, ...]:
    """Arguments of `torch.ops.detectron2.<name>` in float32."""
    make = functools.partial(make_inputs, kind="random", dtype=torch.float32, device=device)
    x, rois = make("roi_align")
    _, turned_rois = make("roi_align_rotated")
    features, offset, mask, weight = make("deform_conv with mask")
    convolution = ([1, 1], [1, 1], [1, 1], 2, 2)
    table: dict[str, tuple[Any, ...]] = {
        "nms": (*make("nms"), 0.5),
        "batched_nms": (*make("batched_nms"), 0.5),
        "nms_rotated": (*make("nms_rotated"), 0.5),
        "batched_nms_rotated": (*make("batched_nms_rotated"), 0.5),
        "box_iou_rotated": tuple(make("box_iou_rotated")),
        "roi_align": (x.requires_grad_(), rois, 0.5, 3, 4, 0, True),
        "roi_align_backward": (randn(60, 3, 3, 4).to(x), rois, 0.5, *x.shape, 0, True),
        "roi_align_rotated": (x.requires_grad_(), turned_rois, 0.5, 3, 4, 0),
        "roi_align_rotated_backward": (randn(60, 3, 3, 4).to(x), turned_rois, 0.5, *x.shape, 0),
        "deform_conv": (*(t.requires_grad_() for t in (features, offset, mask, weight)), *convolution),
        "deform_conv_backward": (
            randn(2, 6, 7, 6).to(x),
            *(t.detach() for t in (features, offset, mask, weight)),
            *convolution,
        ),
        "paste_masks": (*make("paste_masks"), *IMAGE_SIZE, 0.5),
        "paste_masks_rle": (*make("paste_masks"), *IMAGE_SIZE, 0.5),
    }
    return table[name]


def packet(name: str) -> Any:
    return getattr(torch.ops.detectron2, name).default


@needs_operators
@pytest.mark.parametrize("name", extension.OPERATORS)
def test_passes_the_checks_of_torch(name: str) -> None:
    result = torch.library.opcheck(packet(name), operator_arguments(name))
    assert set(result.values()) == {"SUCCESS"}


@needs_operators
def test_deform_conv_without_mask_passes_the_checks_of_torch() -> None:
    x, offset, _, *rest = operator_arguments("deform_conv")
    torch.library.opcheck(packet("deform_conv"), (x, offset, None, *rest))


WRONG: list[tuple[str, int, Any, str]] = [
    ("nms", 0, torch.zeros(60, 5), "boxes must have shape"),
    ("nms", 0, torch.zeros(60, 4, dtype=torch.int64), "expected float64"),
    ("nms", 1, torch.zeros(59), "scores must have shape"),
    ("nms", 1, torch.zeros(60, dtype=torch.bool), "expected float64"),
    ("batched_nms", 2, torch.zeros(60, 1, dtype=torch.int64), "idxs must have shape"),
    ("nms_rotated", 0, torch.zeros(60, 4), "boxes must have shape"),
    ("batched_nms_rotated", 2, torch.zeros(3, dtype=torch.int64), "idxs must have shape"),
    ("box_iou_rotated", 1, torch.zeros(3, 4), "boxes2 must have shape"),
    ("box_iou_rotated", 0, torch.zeros(3, 5, dtype=torch.int32), "expected float64"),
    ("roi_align", 0, torch.zeros(3, 11, 14), "input must have shape"),
    ("roi_align", 0, torch.zeros(2, 3, 11, 14, dtype=torch.uint8), "expected float64"),
    ("roi_align", 1, torch.zeros(60, 6), "boxes must have shape"),
    ("roi_align", 1, torch.full((1, 5), 2.0), "names image"),
    ("roi_align", 1, torch.full((1, 5), -1.0), "names image"),
    ("roi_align", 1, torch.full((1, 5), NAN), "names image"),
    ("roi_align", 3, 0, "output size"),
    ("roi_align_backward", 0, torch.zeros(60, 2, 3, 4), "grad must have shape"),
    ("roi_align_backward", 1, torch.full((60, 5), 7.0), "names image"),
    ("roi_align_rotated", 1, torch.zeros(60, 5), "boxes must have shape"),
    ("roi_align_rotated", 1, torch.full((1, 6), 2.0), "names image"),
    ("roi_align_rotated_backward", 0, torch.zeros(59, 3, 3, 4), "grad must have shape"),
    ("deform_conv", 0, torch.zeros(2, 5, 7, 6), "do not fit"),
    ("deform_conv", 0, torch.zeros(2, 4, 0, 6), "rows and columns"),
    ("deform_conv", 1, torch.zeros(2, 36, 7, 7), "offset must have shape"),
    ("deform_conv", 2, torch.zeros(1, 18, 7, 6), "mask must have shape"),
    ("deform_conv", 3, torch.zeros(6, 2, 30, 3), "larger than the padded input"),
    ("deform_conv", 4, [0, 1], "must be positive"),
    ("deform_conv", 5, [-1, 0], "not be negative"),
    ("deform_conv", 6, [1], "two numbers each"),
    ("deform_conv", 8, 3, "deformable groups"),
    ("deform_conv_backward", 0, torch.zeros(2, 6, 7, 7), "grad must have shape"),
    ("paste_masks", 0, torch.zeros(60, 7), "masks must have shape"),
    ("paste_masks", 1, torch.zeros(60, 5), "boxes must have shape"),
    ("paste_masks", 2, -1, "image size"),
    ("paste_masks_rle", 4, 0.0, "threshold must be positive"),
]


@needs_operators
@pytest.mark.parametrize(
    ("name", "position", "value", "message"), WRONG, ids=[f"{w[0]}-{w[3]}" for w in WRONG]
)
def test_wrong_arguments_are_errors_not_crashes(name: str, position: int, value: Any, message: str) -> None:
    arguments = list(operator_arguments(name))
    arguments[position] = value
    with pytest.raises(RuntimeError, match=message):
        packet(name)(*arguments)


@needs_operators
def test_tensors_without_data_take_the_fake_kernels() -> None:
    x, rois = torch.empty(2, 3, 8, 8, device="meta"), torch.empty(5, 5, device="meta")
    assert roi_align.roi_align(x, rois, 4).shape == (5, 3, 4, 4)
    iou = rotated_boxes.pairwise_iou_rotated(
        torch.empty(2, 5, device="meta"), torch.empty(3, 5, device="meta")
    )
    assert iou.shape == (2, 3)


# --- autocast, determinism, empty and huge sizes


@pytest.mark.parametrize("name", OPERATORS)
def test_autocast_changes_nothing_the_input_decides(name: str) -> None:
    operator, inputs = OPERATORS[name], make_inputs(name, "random", torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = operator.call(*inputs)
    assert_agree(output, operator.call(*inputs), 0.0)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_half_precision_features_with_float_boxes_train(name: str) -> None:
    operator, inputs = OPERATORS[name], make_inputs(name, "random", torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x, *rest = inputs
        grads = gradients(operator.call, [x.bfloat16(), *rest], operator.num_differentiable)
    assert grads[0].dtype == torch.bfloat16
    assert all(grad.dtype == torch.float32 for grad in grads[1:])


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_do_not_depend_on_the_number_of_threads(name: str) -> None:
    operator, inputs = OPERATORS[name], make_inputs(name, "random", torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for num_threads in (1, 4):
            torch.set_num_threads(num_threads)
            results.append(gradients(operator.call, inputs, operator.num_differentiable)[0])
    finally:
        torch.set_num_threads(before)
    one, four = results
    if not extension.missing_reason():
        assert torch.equal(one, four)
    assert_agree(one, four, 1e-5)


@pytest.mark.parametrize("channels", [1, 16, 37])
@pytest.mark.parametrize("name", ["roi_align", "roi_align_rotated"])
def test_pooling_takes_any_number_of_channels(name: str, channels: int) -> None:
    operator = OPERATORS[name]
    _, rois = make_inputs(name, "large")
    inputs = [randn(2, channels, 30, 40), rois[:200]]
    assert_agree(operator.call(*inputs), operator.reference(*inputs), 1e-9)
    actual, expected = (gradients(f, inputs, 1)[0] for f in (operator.call, operator.reference))
    assert_agree(actual, expected, 1e-9)


def test_nothing_in_gives_nothing_out() -> None:
    boxes = torch.zeros(0, 5)
    assert roi_align.roi_align(torch.zeros(0, 3, 8, 8), boxes, 7).shape == (0, 3, 7, 7)  # no images
    assert roi_align.roi_align(torch.zeros(2, 0, 8, 8), torch.zeros(4, 5), 7).shape == (
        4,
        0,
        7,
        7,
    )  # no channels
    turned_rois = torch.zeros(0, 6)
    assert roi_align_rotated.roi_align_rotated(torch.zeros(1, 3, 8, 8), turned_rois, 7, 1.0, 0).shape[0] == 0
    assert rotated_boxes.pairwise_iou_rotated(boxes, torch.zeros(3, 5)).shape == (0, 3)
    assert mask_ops.paste_masks_in_image(torch.rand(2, 7, 7), torch.rand(2, 4), (0, 5)).shape == (2, 0, 5)
    no_channels = convolve(torch.zeros(1, 0, 5, 5), torch.zeros(1, 36, 5, 5), None, torch.zeros(2, 0, 3, 3))
    assert no_channels.eq(0).all() and no_channels.shape == (1, 2, 5, 5)


@needs_operators
def test_maps_without_cells_pool_to_zero() -> None:
    rois = torch.tensor([[0.0, 0, 0, 5, 5]])
    for size in ((0, 5), (5, 0)):
        pooled = packet("roi_align")(torch.zeros(1, 2, *size), rois, 1.0, 2, 2, 0, True)
        assert pooled.eq(0).all() and pooled.shape == (1, 2, 2, 2)


@pytest.mark.slow
def test_a_box_of_astronomic_size_takes_no_astronomic_time() -> None:
    far = torch.tensor([[0.0, -1e30, -1e30, 1e30, 1e30], [0, 1e20, 0, 2e20, 9], [0, -1e7, -1e7, 1e7, 1e7]])
    pooled = roi_align.roi_align(torch.ones(1, 1, 20, 20), far, 7, 1.0, 0, True)
    assert pooled.isfinite().all()
    turned_far = torch.tensor([[0.0, 10, 10, 1e30, 1e30, 30.0]])
    assert (
        roi_align_rotated.roi_align_rotated(torch.ones(1, 1, 20, 20), turned_far, 2, 1.0, 0).isfinite().all()
    )


@pytest.mark.slow
def test_indices_are_safe_beyond_two_to_the_31() -> None:
    """The last of three bitmaps lies beyond 2**31 bytes."""
    free = (os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) >> 30
    if extension.missing_reason() or free < 6:
        pytest.skip(f"needs compiled operators and 6 GiB of memory, {free} GiB are free")
    side = 30_000
    box = torch.tensor([[side - 300.0, side - 200.0, side, side]])
    images = mask_ops.paste_masks_in_image(torch.ones(3, 28, 28), box.expand(3, 4), (side, side))
    assert images.numel() > 2**31
    expected = mask_ops.paste_masks_in_image(
        torch.ones(1, 28, 28), torch.tensor([[0.0, 0, 300, 200]]), (200, 300)
    )
    assert torch.equal(images[2, -200:, -300:], expected[0])
    assert not images[2, :-200].any() and not images[2, -200:, :-300].any() and not images[1, -201].any()


@needs_operators
def test_classes_of_large_coordinates_keep_their_precision() -> None:
    # Moving class 1000 aside by the largest coordinate would cost these boxes their fractions in float32.
    boxes = torch.tensor([[1e6, 0, 1e6 + 1, 1], [1e6 + 0.5, 0, 1e6 + 1.5, 1]])
    kept = nms.batched_nms(boxes, torch.tensor([0.9, 0.8]), torch.tensor([1000, 1000]), 0.4)
    assert kept.tolist() == [0, 1]  # their IoU is 1/3


# pycocotools.mask.decode warns with NumPy 2.
ignores_numpy_warning = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# --- run-length codes


@ignores_numpy_warning
@pytest.mark.parametrize("kind", ["random", "empty", "degenerate", "large"])
def test_codes_are_those_of_the_bitmaps(kind: str) -> None:
    from pycocotools import mask as coco_mask

    masks, boxes = make_inputs("paste_masks", kind, torch.float32)
    codes = mask_ops.paste_masks_to_rle(masks, boxes, IMAGE_SIZE)
    bitmaps = mask_ops.paste_masks_in_image(masks, boxes, IMAGE_SIZE).numpy().astype(np.uint8)
    assert len(codes) == len(bitmaps)
    for code, bitmap in zip(codes, bitmaps):
        assert code == coco_mask.encode(np.asfortranarray(bitmap))
    if codes:
        assert np.array_equal(coco_mask.decode(codes).transpose(2, 0, 1), bitmaps)


@ignores_numpy_warning
def test_codes_of_boxes_at_every_border() -> None:
    from pycocotools import mask as coco_mask

    height, width = 5, 6
    boxes = [[x0, y0, x1, y1] for x0 in (0, 2) for x1 in (3, 6) for y0 in (0, 2) for y1 in (3, 5)]
    codes = mask_ops.paste_masks_to_rle(
        torch.ones(len(boxes), 4, 4), torch.tensor(boxes).float(), (height, width)
    )
    for (x0, y0, x1, y1), code in zip(boxes, codes):
        expected = np.zeros((height, width), dtype=np.uint8)
        expected[y0:y1, x0:x1] = 1
        assert np.array_equal(coco_mask.decode(code), expected)


def test_codes_need_a_threshold() -> None:
    with pytest.raises(ValueError, match="above 0"):
        mask_ops.paste_masks_to_rle(torch.ones(1, 4, 4), torch.zeros(1, 4), (5, 5), 0.0)


# --- torch.compile and torch.export


class Module(torch.nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def traced_functions() -> dict[str, tuple[Callable[..., Tensor], str]]:
    """Functions that use an operator between others, and whose inputs they take."""
    return {name: (lambda *inputs, f=op.call: f(*inputs) * 2, name) for name, op in OPERATORS.items()} | {
        "nms of a selection": (
            lambda boxes, scores: boxes[scores > 0.3][
                nms.nms(boxes[scores > 0.3], scores[scores > 0.3], 0.4)
            ],
            "nms",
        )
    }


@needs_operators
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", traced_functions())
def test_compiles_without_a_graph_break(name: str) -> None:
    function, inputs_of = traced_functions()[name]
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    inputs = make_inputs(inputs_of, "random", torch.float32)
    assert torch.equal(compiled(*inputs), function(*inputs))
    count = OPERATORS[inputs_of].num_differentiable
    if count:
        for actual, expected in zip(gradients(compiled, inputs, count), gradients(function, inputs, count)):
            torch.testing.assert_close(actual, expected)


@needs_operators
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", traced_functions())
def test_exports_with_any_number_of_rows(name: str) -> None:
    function, inputs_of = traced_functions()[name]
    inputs = make_inputs(inputs_of, "random", torch.float32)
    is_ragged = [len(tensor) == 60 for tensor in inputs]
    shapes = tuple({0: torch.export.Dim.AUTO} if ragged else {} for ragged in is_ragged)
    program = torch.export.export(Module(function), tuple(inputs), dynamic_shapes=(shapes,), strict=False)
    for rows in (60, 23):
        chosen = [t[:rows] if ragged else t for t, ragged in zip(inputs, is_ragged)]
        assert torch.equal(program.module()(*chosen), function(*chosen))


# --- GPU


@pytest.mark.gpu
@needs_operators
@pytest.mark.parametrize("name", extension.OPERATORS)
def test_there_is_a_kernel_for_the_gpu(name: str) -> None:
    found = extension.find_operator(name, torch.device("cuda"))
    assert found is not None or name == "paste_masks_rle"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPERATORS)
def test_gpu_agrees_with_the_cpu(name: str, kind: str, dtype: torch.dtype) -> None:
    operator, inputs = OPERATORS[name], make_inputs(name, kind, dtype)
    on_gpu = operator.call(*(tensor.cuda() for tensor in inputs))
    assert on_gpu.is_cuda
    assert_agree(on_gpu, operator.call(*inputs), TOLERANCE[dtype])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gpu_gradients_agree_with_the_cpu(name: str, kind: str, dtype: torch.dtype) -> None:
    operator = OPERATORS[name]
    inputs, count = make_inputs(name, kind, dtype), operator.num_differentiable
    on_gpu = gradients(operator.call, [tensor.cuda() for tensor in inputs], count)
    for one, other in zip(on_gpu, gradients(operator.call, inputs, count)):
        scale = max(float(other.abs().nan_to_num().amax()), 1.0) if other.numel() else 1.0
        assert_agree(one / scale, other / scale, TOLERANCE[dtype])


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in extension.OPERATORS if name != "paste_masks_rle"])
def test_gpu_passes_the_checks_of_torch(name: str) -> None:
    torch.library.opcheck(packet(name), operator_arguments(name, "cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("warn_only", [False, True])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gpu_gradients_repeat_where_determinism_is_asked_for(
    name: str, warn_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    operator, inputs = OPERATORS[name], make_inputs(name, "large", torch.float32, "cuda")
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        first, *others = (gradients(operator.call, inputs, operator.num_differentiable) for _ in range(4))
    finally:
        torch.use_deterministic_algorithms(False)
    for other in others:
        assert all(torch.equal(one, two) for one, two in zip(first, other))


@pytest.mark.gpu
def test_gpu_kernels_run_on_the_current_stream_and_device() -> None:
    x, rois = make_inputs("roi_align", "large", torch.float32, f"cuda:{torch.cuda.device_count() - 1}")
    expected = roi_align.roi_align(x, rois, 7, 0.25, 0, True)
    stream = torch.cuda.Stream(x.device)
    with torch.cuda.stream(stream):
        doubled = x
        for _ in range(50):
            doubled = doubled * 2 / 2
        pooled = roi_align.roi_align(doubled, rois, 7, 0.25, 0, True)
    stream.synchronize()
    torch.testing.assert_close(pooled, expected)


@pytest.mark.gpu
@needs_operators
def test_gpu_boxes_of_an_image_that_is_not_there_pool_nan() -> None:
    x = torch.ones(2, 1, 8, 8, device="cuda", requires_grad=True)
    for name, sizes in (("roi_align", [4.0] * 4), ("roi_align_rotated", [4.0] * 4 + [0.0])):
        rois = torch.tensor([[image, *sizes] for image in (2.0, -1.0, NAN, 1.0)], device="cuda")
        pooled = packet(name)(x, rois, 1.0, 2, 2, 2, *([True] if name == "roi_align" else []))
        assert pooled[:3].isnan().all() and pooled[3].isfinite().all()
        (grad,) = torch.autograd.grad(pooled.sum(), x)
        assert grad[0].eq(0).all() and grad.isfinite().all()


@pytest.mark.gpu
def test_tensors_on_two_devices_are_refused() -> None:
    x, rois = make_inputs("roi_align", "random", torch.float32)
    with pytest.raises(RuntimeError, match="same CUDA device"):
        roi_align.roi_align(x.cuda(), rois, 7)
