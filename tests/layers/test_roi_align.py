"""ROIAlign against its definition: loops over samples in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from detectron2.layers.roi_align import ROIAlign, roi_align

TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def bilinear(image: np.ndarray, y: float, x: float) -> np.ndarray:
    """(C, H, W) at one point, with ROIAlign's rule at the border."""
    _, height, width = image.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(len(image))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = math.floor(y), math.floor(x)
    value = np.zeros(len(image))
    for row, column in itertools.product((top, top + 1), (left, left + 1)):
        weight = max(0, 1 - abs(y - row)) * max(0, 1 - abs(x - column))
        if weight:
            value += weight * image[:, row, column]
    return value


def slow_roi_align(
    features: Tensor, rois: Tensor, size: tuple[int, int], scale: float, ratio: int, aligned: bool
) -> Tensor:
    maps = features.double().numpy()
    output = np.zeros((len(rois), maps.shape[1], *size))
    for r, (image, *edges) in enumerate(rois.double().tolist()):
        x1, y1, x2, y2 = (edge * scale - 0.5 * aligned for edge in edges)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1), max(height, 1)
        cell_h, cell_w = height / size[0], width / size[1]
        num_y = ratio if ratio > 0 else math.ceil(cell_h)
        num_x = ratio if ratio > 0 else math.ceil(cell_w)
        for py, px in np.ndindex(*size):
            for iy, ix in np.ndindex(max(num_y, 0), max(num_x, 0)):
                y = y1 + py * cell_h + (iy + 0.5) * cell_h / num_y
                x = x1 + px * cell_w + (ix + 0.5) * cell_w / num_x
                output[r, :, py, px] += bilinear(maps[int(image)], y, x) / (num_y * num_x)
    return torch.from_numpy(output)


def make_case(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Two maps of 12 x 17 cells at stride 4, and boxes of all sizes that also leave the image."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 12, 17, generator=generator).to(dtype)
    start = torch.rand(14, 2, generator=generator) * 80 - 15
    extent = torch.rand(14, 2, generator=generator) ** 2 * 70
    special = torch.tensor(
        [
            [0.0, 0, 68, 48],  # all of it
            [5, 5, 5, 5],  # nothing
            [-50, -50, -20, -20],  # outside
            [60, 40, 200, 200],  # mostly outside
            [67.9, 47.9, 68.1, 48.1],  # at the last corner
            [20, 20, 10, 10],  # turned inside out
            [-400, -310, 500, 400],  # larger than the image
        ]
    )
    boxes = torch.cat([torch.cat([start, start + extent], dim=1), special])
    return features, torch.cat([(torch.arange(len(boxes)) % 2)[:, None], boxes], dim=1)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (7, 7)])
def test_pools_what_the_definition_says(
    size: tuple[int, int], ratio: int, aligned: bool, device: str
) -> None:
    features, rois = make_case(torch.float64)
    pooled = roi_align(features.to(device), rois.to(device).double(), size, 0.25, ratio, aligned)
    expected = slow_roi_align(features, rois, size, 0.25, ratio, aligned)
    torch.testing.assert_close(pooled.cpu(), expected, atol=TOLERANCE[torch.float64], rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_half_precision_is_accumulated_in_float32(dtype: torch.dtype, device: str) -> None:
    features, rois = make_case(dtype)
    pooled = roi_align(features.to(device), rois.to(device), (4, 5), 0.25, 0, True)
    assert pooled.dtype == dtype
    expected = slow_roi_align(features, rois, (4, 5), 0.25, 0, True)
    torch.testing.assert_close(pooled.cpu().double(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_gradient(ratio: int, aligned: bool) -> None:
    _, rois = make_case()
    features = torch.randn(2, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    rois = rois[::2].double()
    rois[:, 1:] /= 2

    def pool(x: Tensor) -> Tensor:
        return roi_align(x, rois, (2, 3), 0.25, ratio, aligned)

    assert torch.autograd.gradcheck(pool, (features,))


def test_gradient_is_the_transpose_of_the_forward_pass_in_float32() -> None:
    features, rois = make_case()
    features.requires_grad_()
    pooled = roi_align(features, rois, (7, 7), 0.25, 0, True)
    grad_out = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1))
    (grad,) = torch.autograd.grad(pooled, features, grad_out)
    probe = torch.randn(features.shape, generator=torch.Generator().manual_seed(2))
    forward = (roi_align(probe, rois, (7, 7), 0.25, 0, True).double() * grad_out.double()).sum()
    torch.testing.assert_close((grad.double() * probe.double()).sum(), forward, rtol=1e-4, atol=1e-4)


def test_no_boxes_and_no_images_are_part_of_the_graph() -> None:
    features = torch.randn(1, 3, 5, 5, requires_grad=True)
    pooled = roi_align(features, torch.zeros(0, 5), (7, 7), 1.0, 0, True)
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert features.grad is not None and features.grad.eq(0).all()
    nothing = torch.zeros(0, 3, 5, 5, requires_grad=True)
    roi_align(nothing, torch.zeros(0, 5), (7, 7), 1.0, 2, True).sum().backward()
    assert nothing.grad is not None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_boxes_without_finite_edges_pool_nothing(bad: float) -> None:
    features, rois = make_case()
    rois[3, 2] = bad
    pooled = roi_align(features, rois, (3, 3), 0.25, 0, True)
    assert pooled[3].eq(0).all() and pooled.isfinite().all()
    others = torch.arange(len(rois)) != 3
    expected = slow_roi_align(features, rois[others], (3, 3), 0.25, 0, True)
    torch.testing.assert_close(pooled[others].double(), expected, atol=2e-5, rtol=0)


def test_a_huge_box_needs_little_memory() -> None:
    features = torch.ones(1, 1, 8, 8)
    rois = torch.tensor([[0, -1e6, -1e6, 1e6, 1e6], [0, 0, 0, 1e30, 1e30]])
    pooled = roi_align(features, rois, (3, 3), 1.0, 0, True)
    # The map and its margin are 9.5 of the 2e6 / 3 rows and columns of the middle cell (half a cell beyond
    # the last row less than a whole one: ROIAlign repeats the border for one cell).
    assert pooled[0, 0, 1, 1].item() == pytest.approx((9 / (2e6 / 3)) ** 2, rel=0.2)
    assert pooled.isfinite().all()


def test_views_and_channels_last_maps() -> None:
    features, rois = make_case()
    expected = roi_align(features, rois, (3, 3), 0.25, 0, True)
    wide = torch.cat([features, features], dim=3)[..., :17]
    other = torch.stack([rois, rois], dim=1)[:, 1]
    for view in (features.contiguous(memory_format=torch.channels_last), wide):
        pooled = roi_align(view, other, (3, 3), 0.25, 0, True)
        torch.testing.assert_close(pooled, expected)
        assert pooled.is_contiguous()


def test_many_boxes_are_pooled_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    features, rois = make_case()
    expected = roi_align(features, rois, (7, 7), 0.25, 0, True)
    monkeypatch.setattr("detectron2.layers.roi_sampling._MAX_ENTRIES", 2000)
    torch.testing.assert_close(roi_align(features, rois, (7, 7), 0.25, 0, True), expected)


def test_constant_maps_stay_constant_inside() -> None:
    features = torch.full((1, 1, 20, 20), 3.0)
    rois = torch.tensor([[0, 10.0, 12, 50, 60]])
    torch.testing.assert_close(roi_align(features, rois, 5, 0.25, 0, True), torch.full((1, 1, 5, 5), 3.0))


def test_module_pools_with_its_settings() -> None:
    features, rois = make_case()
    pooler = ROIAlign((3, 2), 0.25, 2)
    assert pooler.aligned
    torch.testing.assert_close(pooler(features, rois), roi_align(features, rois, (3, 2), 0.25, 2, True))
    assert "sampling_ratio=2" in repr(pooler)


def test_wrong_inputs_are_named() -> None:
    features, rois = make_case()
    with pytest.raises(ValueError, match=r"features of shape \(N, C, H, W\)"):
        roi_align(features[0], rois, 7)
    with pytest.raises(ValueError, match="image index first"):
        roi_align(features, rois[:, 1:], 7)
    rois[0, 0] = 2
    with pytest.raises(ValueError, match="images 0 to 2, but there are features of 2"):
        roi_align(features, rois, 7)
