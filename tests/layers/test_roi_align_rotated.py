"""ROIAlign in rotated boxes, against loops over samples in float64 and against the upright operator."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from detectron2.layers.roi_align import roi_align
from detectron2.layers.roi_align_rotated import ROIAlignRotated, roi_align_rotated


def bilinear(image: np.ndarray, y: float, x: float) -> np.ndarray:
    _, height, width = image.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(len(image))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    value = np.zeros(len(image))
    for row, column in itertools.product(range(height), range(width)):
        value += max(0, 1 - abs(y - row)) * max(0, 1 - abs(x - column)) * image[:, row, column]
    return value


def slow_roi_align_rotated(
    features: Tensor, rois: Tensor, size: tuple[int, int], scale: float, ratio: int
) -> Tensor:
    maps = features.double().numpy()
    output = np.zeros((len(rois), maps.shape[1], *size))
    for r, (image, x0, y0, width, height, angle) in enumerate(rois.double().tolist()):
        x0, y0, width, height = x0 * scale - 0.5, y0 * scale - 0.5, width * scale, height * scale
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        num_y = ratio or math.ceil(height / size[0])
        num_x = ratio or math.ceil(width / size[1])
        for py, px in np.ndindex(*size):
            for iy, ix in np.ndindex(num_y, num_x):
                v = (py + (iy + 0.5) / num_y) * height / size[0] - height / 2
                u = (px + (ix + 0.5) / num_x) * width / size[1] - width / 2
                point = bilinear(maps[int(image)], y0 + v * cos - u * sin, x0 + v * sin + u * cos)
                output[r, :, py, px] += point / (num_y * num_x)
    return torch.from_numpy(output)


def make_case() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 2, 7, 9, generator=generator, dtype=torch.float64)
    boxes = torch.rand(8, 5, generator=generator, dtype=torch.float64)
    boxes = boxes * torch.tensor([40.0, 30, 40, 30, 360]) - torch.tensor([3.0, 3, 0, 0, 180])
    boxes[0, 2] = 0  # no width
    return features, torch.cat([(torch.arange(8) % 2)[:, None], boxes], dim=1)


@pytest.mark.parametrize("ratio", [0, 1, 2])
@pytest.mark.parametrize("size", [(1, 1), (3, 2)])
def test_pools_what_the_definition_says(size: tuple[int, int], ratio: int, device: str) -> None:
    features, rois = make_case()
    pooled = roi_align_rotated(features.to(device), rois.to(device), size, 0.25, ratio).cpu()
    torch.testing.assert_close(pooled, slow_roi_align_rotated(features, rois, size, 0.25, ratio))
    single = roi_align_rotated(features.float(), rois.float(), size, 0.25, ratio)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), pooled, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("ratio", [0, 2])
def test_boxes_that_are_not_turned_pool_like_roi_align(ratio: int) -> None:
    features, rois = make_case()
    rois[:, 5] = 0
    start, end = rois[:, 1:3] - rois[:, 3:5] / 2, rois[:, 1:3] + rois[:, 3:5] / 2
    upright = torch.cat([rois[:, :1], start, end], dim=1)
    torch.testing.assert_close(
        roi_align_rotated(features, rois, (4, 3), 0.25, ratio),
        roi_align(features, upright, (4, 3), 0.25, ratio, True),
    )


def test_a_quarter_turn_turns_the_output() -> None:
    features, rois = make_case()
    rois[:, 5] = 0
    turned = rois.clone()
    turned[:, 5] = 90
    turned[:, 3], turned[:, 4] = rois[:, 4], rois[:, 3]
    pooled = roi_align_rotated(features, turned, (3, 4), 0.25, 2)
    upright = roi_align_rotated(features, rois, (4, 3), 0.25, 2)
    torch.testing.assert_close(pooled, upright.flip(2).transpose(2, 3))


@pytest.mark.parametrize("ratio", [0, 2])
def test_gradient(ratio: int) -> None:
    features, rois = make_case()
    features = features[:, :1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: roi_align_rotated(x, rois, (2, 2), 0.25, ratio), (features,))


def test_empty_inputs_and_bad_boxes() -> None:
    features = torch.randn(1, 3, 5, 5, requires_grad=True)
    pooler = ROIAlignRotated(2, 1.0, 0)
    pooled = pooler(features, torch.zeros(0, 6))
    assert pooled.shape == (0, 3, 2, 2)
    pooled.sum().backward()
    bad = torch.tensor([[0, float("nan"), 2, 2, 2, 0], [0, 2, 2, float("inf"), 2, 0], [0, 2, 2, 2, 2, 0]])
    pooled = pooler(features, bad)
    assert pooled[:2].eq(0).all() and pooled[2].ne(0).all()
    with pytest.raises(ValueError, match=r"\(R, 6\)"):
        pooler(features, torch.zeros(1, 5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_returns_its_dtype(dtype: torch.dtype) -> None:
    features, rois = make_case()
    pooled = roi_align_rotated(features.to(dtype), rois.float(), (2, 2), 0.25, 0)
    assert pooled.dtype == dtype
    expected = slow_roi_align_rotated(features.to(dtype), rois, (2, 2), 0.25, 0)
    torch.testing.assert_close(pooled.double(), expected, atol=2e-2, rtol=2e-2)


def test_many_boxes_are_pooled_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    features, rois = make_case()
    expected = roi_align_rotated(features, rois, (3, 3), 0.25, 0)
    monkeypatch.setattr("detectron2.layers.roi_sampling._MAX_ENTRIES", 500)
    torch.testing.assert_close(roi_align_rotated(features, rois, (3, 3), 0.25, 0), expected)
