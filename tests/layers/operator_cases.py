"""The compiled operators as a table: what to call, the plain twin, and inputs of every kind."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from detectron2.layers import extension, mask_ops, rotated_boxes
from detectron2.layers.deform_conv_reference import deform_conv_reference
from detectron2.layers.ms_deform_attn_reference import ms_deform_attn_reference

# By name, because the package exports functions of these names.
nms, deform_conv, ms_deform_attn, roi_align, roi_align_rotated = (
    importlib.import_module(f"detectron2.layers.{name}")
    for name in ("nms", "deform_conv", "ms_deform_attn", "roi_align", "roi_align_rotated")
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


def attention_inputs(kind: str) -> list[Tensor]:
    """Value, locations and weights, the differentiable ones, and then the sizes and starts of the levels."""
    sizes = [[30, 41], [15, 21], [8, 11]] if kind == "large" else [[5, 7], [3, 4], [1, 2]]
    spatial_shapes = torch.tensor(sizes)
    num_cells = spatial_shapes.prod(dim=1)
    starts = num_cells.cumsum(0) - num_cells
    num_images, num_queries, num_heads = 0 if kind == "empty" else 2, 300 if kind == "large" else 11, 3
    channels = 32 if kind == "large" else 5
    value = randn(num_images, int(num_cells.sum()), num_heads, channels)
    sampling = (num_images, num_queries, num_heads, len(sizes), 4)
    locations = rand(*sampling, 2, seed=1) * 1.4 - 0.2
    if kind == "degenerate":
        locations[0, 0, :, :, 0, 0] = NAN
        locations[0, 1] = INF
        locations[0, 2, :, :, :2] = torch.tensor([[-1e30, 0.5], [1e30, 1e30]], dtype=torch.float64)
        locations[0, 3] = 0.0  # between the corner of a level and the zeros around it
        locations[0, 4] = 1.0
        size = spatial_shapes[:, None].flip(-1)
        on_cells = (locations[1] * size).floor() + 0.5  # where the slope jumps: the right-hand one counts
        locations[1] = on_cells / size
    return [value, locations, rand(*sampling, seed=2), spatial_shapes, starts]


def attend(value: Tensor, locations: Tensor, weights: Tensor, sizes: Tensor, starts: Tensor) -> Tensor:
    return ms_deform_attn.ms_deform_attn(value, sizes, starts, locations, weights)


def attend_plainly(
    value: Tensor, locations: Tensor, weights: Tensor, sizes: Tensor, starts: Tensor
) -> Tensor:
    return ms_deform_attn_reference(value, sizes, starts, locations, weights)


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
    "ms_deform_attn": Operator(attend, attend_plainly, attention_inputs, 3),
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


def operator_arguments(name: str, device: str = "cpu") -> tuple[Any, ...]:
    """Arguments of `torch.ops.detectron2.<name>` in float32."""
    make = functools.partial(make_inputs, kind="random", dtype=torch.float32, device=device)
    x, rois = make("roi_align")
    _, turned_rois = make("roi_align_rotated")
    features, offset, mask, weight = make("deform_conv with mask")
    convolution = ([1, 1], [1, 1], [1, 1], 2, 2)
    value, locations, factors, *levels = make("ms_deform_attn")
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
        "ms_deform_attn": (
            value.requires_grad_(),
            *levels,
            locations.requires_grad_(),
            factors.requires_grad_(),
        ),
        "ms_deform_attn_backward": (
            randn(2, 11, 15).to(x),
            value.detach(),
            *levels,
            locations.detach(),
            factors.detach(),
        ),
        "paste_masks": (*make("paste_masks"), *IMAGE_SIZE, 0.5),
        "paste_masks_rle": (*make("paste_masks"), *IMAGE_SIZE, 0.5),
    }
    return table[name]


def packet(name: str) -> Any:
    return getattr(torch.ops.detectron2, name).default
