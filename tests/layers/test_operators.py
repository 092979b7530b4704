"""What every compiled operator must do: agree with plain PyTorch, differentiate, and refuse nonsense.

With D2_DISABLE_OPS=1 the same functions run on plain PyTorch; tests of the compiled side are skipped then.
That the plain side is right is shown operator by operator, in the files beside this one.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch

from detectron2.layers import extension, mask_ops, rotated_boxes

from .operator_cases import (
    DIFFERENTIABLE,
    DTYPES,
    IMAGE_SIZE,
    KINDS,
    NAN,
    OPERATORS,
    TOLERANCE,
    assert_agree,
    convolve,
    gradients,
    make_inputs,
    needs_operators,
    nms,
    operator_arguments,
    packet,
    randn,
    roi_align,
    roi_align_rotated,
)


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
    elif name.startswith("deform_conv"):
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


# The check itself looks at gradients of tensors that are no leaves, and torch 2.14 warns about it.
about_leaves = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)


@needs_operators
@about_leaves
@pytest.mark.parametrize("name", extension.OPERATORS)
def test_passes_the_checks_of_torch(name: str) -> None:
    result = torch.library.opcheck(packet(name), operator_arguments(name))
    assert set(result.values()) == {"SUCCESS"}


@needs_operators
@about_leaves
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
    ("ms_deform_attn", 0, torch.zeros(2, 49, 15), "value must have shape"),
    ("ms_deform_attn", 0, torch.zeros(2, 49, 4, 5), "sampling_locations must have shape"),
    ("ms_deform_attn", 0, torch.zeros(2, 48, 3, 5), "does not fit"),
    ("ms_deform_attn", 0, torch.zeros(2, 49, 3, 5, dtype=torch.int64), "expected float64"),
    ("ms_deform_attn", 1, torch.zeros(3, 3, dtype=torch.int64), "spatial_shapes must have shape"),
    ("ms_deform_attn", 1, torch.ones(3, 2), "must be int64"),
    ("ms_deform_attn", 1, torch.full((3, 2), -1), "does not fit"),
    ("ms_deform_attn", 1, torch.full((3, 2), 2**62), "does not fit"),
    ("ms_deform_attn", 2, torch.zeros(2, dtype=torch.int64), "level_start_index must have shape"),
    ("ms_deform_attn", 2, torch.tensor([0, 35, -1]), "does not fit"),
    ("ms_deform_attn", 2, torch.tensor([0, 35, 2**62]), "does not fit"),
    ("ms_deform_attn", 3, torch.zeros(2, 11, 3, 3, 4, 3), "sampling_locations must have shape"),
    ("ms_deform_attn", 4, torch.zeros(2, 11, 3, 3, 5), "attention_weights must have shape"),
    ("ms_deform_attn_backward", 0, torch.zeros(2, 11, 14), "grad must have shape"),
    ("ms_deform_attn_backward", 2, torch.full((3, 2), 2**62), "does not fit"),
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
