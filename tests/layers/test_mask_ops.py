"""Mask pasting against bilinear sampling written out pixel by pixel."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from detectron2.layers import extension
from detectron2.layers.mask_ops import (
    _run_length_code,
    pad_masks,
    paste_mask_in_image_old,
    paste_masks_in_image,
    paste_masks_to_rle,
    sample_masks,
    scale_boxes,
)


def slow_paste(mask: Tensor, box: list[float], height: int, width: int) -> np.ndarray:
    """Probability at every pixel centre, 0 outside the box."""
    values, side = mask.double().numpy(), mask.shape[0]
    x0, y0, x1, y1 = box
    image = np.zeros((height, width))
    for row, column in np.ndindex(height, width):
        if x1 <= x0 or y1 <= y0:
            continue
        y = (row + 0.5 - y0) / (y1 - y0) * side - 0.5
        x = (column + 0.5 - x0) / (x1 - x0) * side - 0.5
        for i in (math.floor(y), math.floor(y) + 1):
            for j in (math.floor(x), math.floor(x) + 1):
                if 0 <= i < side and 0 <= j < side:
                    image[row, column] += (1 - abs(y - i)) * (1 - abs(x - j)) * values[i, j]
    return image


BOXES = [
    [2.3, 3.1, 15.7, 11.2],
    [0.0, 0.0, 20.0, 14.0],
    [-8.0, -5.5, 7.0, 6.0],  # leaves the image
    [15.5, 10.5, 40.0, 30.0],
    [5.0, 5.0, 5.0, 9.0],  # no width
    [4.2, 4.2, 4.9, 4.9],  # less than a pixel
    [30.0, 30.0, 40.0, 40.0],  # outside
    [-100.0, -100.0, 120.0, 120.0],  # larger than the image
    [6.5, 7.5, 10.5, 9.5],
]


def make_masks(side: int = 5) -> Tensor:
    return torch.rand(len(BOXES), side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("side", [1, 5, 28])
def test_pastes_bilinear_samples(side: int, device: str) -> None:
    masks, boxes = make_masks(side), torch.tensor(BOXES)
    expected = np.stack([slow_paste(mask, box, 14, 20) for mask, box in zip(masks, BOXES)])
    values = paste_masks_in_image(masks.to(device), boxes.to(device), (14, 20), threshold=-1)
    assert values.dtype == torch.uint8 and values.shape == (len(BOXES), 14, 20)
    difference = values.cpu().numpy().astype(int) - np.floor(expected * 255 + 1e-6)
    assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 1e-3
    binary = paste_masks_in_image(masks.to(device), boxes.to(device), (14, 20), threshold=0.5)
    assert binary.dtype == torch.bool
    certain = np.abs(expected - 0.5) > 1e-5
    assert (binary.cpu().numpy() == (expected >= 0.5))[certain].all()


def test_a_full_mask_fills_its_box() -> None:
    pasted = paste_masks_in_image(torch.ones(1, 28, 28), torch.tensor([[3.0, 2, 9, 7]]), (10, 12))
    expected = torch.zeros(1, 10, 12, dtype=torch.bool)
    expected[:, 2:7, 3:9] = True
    assert torch.equal(pasted, expected)


def test_chunks_of_a_device_agree_with_single_boxes() -> None:
    masks, boxes = make_masks(), torch.tensor(BOXES[:4])
    whole = sample_masks(masks[:4], boxes, 0, 14, 0, 20) >= 0.5
    assert torch.equal(whole, paste_masks_in_image(masks[:4], boxes, (14, 20)))


@pytest.mark.parametrize(("threshold", "dtype"), [(0.5, torch.bool), (-1, torch.uint8)])
def test_no_masks(threshold: float, dtype: torch.dtype) -> None:
    pasted = paste_masks_in_image(torch.zeros(0, 28, 28), torch.zeros(0, 4), (5, 6), threshold)
    assert pasted.shape == (0, 5, 6) and pasted.dtype == dtype


def test_boxes_may_be_an_object_and_masks_bool_or_half() -> None:
    class Holder:
        tensor = torch.tensor(BOXES[:2])

    masks = make_masks()[:2] > 0.5
    as_float = paste_masks_in_image(masks.float(), Holder.tensor, (14, 20))
    assert torch.equal(paste_masks_in_image(masks, Holder(), (14, 20)), as_float)
    assert torch.equal(paste_masks_in_image(masks.half(), Holder(), (14, 20)), as_float)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_boxes_without_finite_edges_show_nothing(bad: float) -> None:
    boxes = torch.tensor([[0.0, 0, bad, 10], BOXES[1]])
    pasted = paste_masks_in_image(torch.ones(2, 7, 7), boxes, (14, 20))
    assert not pasted[0].any() and pasted[1].all()


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(R, M, M\)"):
        paste_masks_in_image(torch.ones(2, 7, 6), torch.zeros(2, 4), (5, 5))
    with pytest.raises(ValueError, match="a box per mask"):
        paste_masks_in_image(torch.ones(2, 7, 7), torch.zeros(3, 4), (5, 5))


def test_the_old_way_pastes_whole_pixels() -> None:
    pasted = paste_mask_in_image_old(torch.ones(28, 28), torch.tensor([2.9, 1.2, 5.7, 3.9]), 6, 8, 0.5)
    expected = torch.zeros(6, 8, dtype=torch.uint8)
    expected[1:4, 2:6] = 1
    assert torch.equal(pasted, expected)
    values = paste_mask_in_image_old(torch.ones(4, 4), torch.tensor([-2.0, -2, 1, 1]), 6, 8, -1)
    assert values[:2, :2].eq(255).all() and values.sum() == 4 * 255
    outside = paste_mask_in_image_old(torch.ones(4, 4), torch.tensor([20.0, 20, 25, 25]), 6, 8, 0.5)
    assert not outside.any()


def test_padding_and_scaling_keep_the_object_in_place() -> None:
    masks = torch.rand(2, 4, 4)
    padded, scale = pad_masks(masks, 1)
    assert padded.shape == (2, 6, 6) and scale == 1.5
    assert torch.equal(padded[:, 1:5, 1:5], masks) and padded.sum() == pytest.approx(masks.sum().item())
    boxes = scale_boxes(torch.tensor([[0.0, 2, 4, 4]]), 1.5)
    assert boxes.tolist() == [[-1.0, 1.5, 5.0, 4.5]]
    assert scale_boxes(torch.zeros(0, 4), 2.0).shape == (0, 4)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (13, 11), (70, 90), (300, 200)])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_codes_of_bitmaps_are_cocos(size: tuple[int, int], share: float) -> None:
    from pycocotools import mask as coco_mask

    bitmap = np.random.RandomState(0).rand(*size) < share
    expected = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    assert _run_length_code(bitmap) == expected["counts"]


def test_codes_without_the_operator_are_those_with_it() -> None:
    masks = torch.rand(len(BOXES), 7, 7, generator=torch.Generator().manual_seed(0))
    arguments = (masks, torch.tensor(BOXES), (14, 20))
    expected = paste_masks_to_rle(*arguments)
    with mock.patch.dict(extension._KERNELS, clear=True):
        assert paste_masks_to_rle(*arguments) == expected
