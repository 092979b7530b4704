"""Masks against pycocotools and against pixel loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from detectron2.structures.boxes import Boxes
from detectron2.structures.masks import (
    BitMasks,
    PolygonMasks,
    ROIMasks,
    polygon_area,
    polygons_to_bitmask,
    rasterize_polygons_within_box,
)

# pycocotools 2.0.11 does not know the `copy` argument of numpy 2 yet.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)

TRIANGLE = [2.0, 2.0, 12.0, 2.0, 2.0, 9.0]
SQUARE = [5.5, 5.5, 15.5, 5.5, 15.5, 15.5, 5.5, 15.5]


def random_polygons(num: int, size: float = 30, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.uniform(-3, size + 3, 2 * generator.integers(3, 9)) for _ in range(num)]


def coco_rasterise(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    if not polygons:
        return np.zeros((height, width), dtype=bool)
    rles = coco_mask.frPyObjects([polygon.tolist() for polygon in polygons], height, width)
    return coco_mask.decode(coco_mask.merge(rles)).astype(bool)


def test_polygons_are_rasterised_like_coco_does() -> None:
    for seed in range(40):
        polygons = random_polygons(seed % 4, seed=seed)
        bitmask = polygons_to_bitmask(polygons, 31, 37)
        assert bitmask.dtype == bool and bitmask.shape == (31, 37)
        assert np.array_equal(bitmask, coco_rasterise(polygons, 31, 37))


def test_polygons_are_rasterised_within_boxes_like_coco_does() -> None:
    generator = np.random.default_rng(0)
    for seed in range(40):
        polygons = random_polygons(2, seed=seed)
        start, size = generator.uniform(-4, 20, 2), generator.uniform(0.5, 25, 2)
        box = np.concatenate([start, start + size]).astype(np.float32)
        scale = np.float32(28) / (box[2:] - box[:2])
        moved = [((polygon.reshape(-1, 2) - box[:2]) * scale).reshape(-1) for polygon in polygons]
        mask = rasterize_polygons_within_box(polygons, box, 28)
        assert mask.dtype == torch.bool and np.array_equal(mask.numpy(), coco_rasterise(moved, 28, 28))
    assert not rasterize_polygons_within_box([], box, 5).any()
    # A box without extent counts as a tenth of a pixel.
    assert rasterize_polygons_within_box([np.array(SQUARE)], np.array([8.0, 8, 8, 8]), 5).all()


def test_polygon_area() -> None:
    assert polygon_area(np.array([0.0, 4, 4, 0]), np.array([0.0, 0, 3, 3])) == 12
    assert polygon_area(np.array([0.0, 0, 4]), np.array([0.0, 3, 0])) == 6


def make_polygon_masks() -> PolygonMasks:
    return PolygonMasks([[TRIANGLE], [np.array(SQUARE), torch.tensor(TRIANGLE)], []])


def test_polygon_masks_measure_their_instances() -> None:
    masks = make_polygon_masks()
    assert len(masks) == 3 and masks.device.type == "cpu" and masks.to("cpu") is masks
    assert masks.get_bounding_boxes().tensor.tolist() == [[2, 2, 12, 9], [2, 2, 15.5, 15.5], [0, 0, 0, 0]]
    assert masks.area().tolist() == [35, 135, 0] and masks.area().dtype == torch.float64
    assert masks.nonempty().tolist() == [True, True, False]
    assert all(polygon.dtype == np.float64 for polygons in masks for polygon in polygons)
    assert "num_instances=3" in repr(masks)


@pytest.mark.parametrize(
    ("item", "counts"),
    [
        (0, [1]),
        (-2, [2]),
        (slice(1, 3), [2, 0]),
        ([1, 0], [2, 1]),
        ([], []),
        (torch.tensor([1, 1]), [2, 2]),
        (torch.tensor([False, True, True]), [2, 0]),
        (np.array([2, 0]), [0, 1]),
    ],
)
def test_polygon_masks_indexing(item: object, counts: list[int]) -> None:
    assert [len(polygons) for polygons in make_polygon_masks()[item]] == counts


def test_indexing_out_of_range_is_an_error() -> None:
    for index in (3, [0, 7], torch.tensor([True])):
        with pytest.raises(IndexError):
            make_polygon_masks()[index]
    assert len(PolygonMasks([])[torch.zeros(0, dtype=torch.bool)]) == 0


def test_polygons_that_are_none_are_named() -> None:
    for bad in ([1.0, 2, 3, 4], [1.0, 2, 3, 4, 5, 6, 7], [[1.0, 2], [3, 4], [5, 6]]):
        with pytest.raises(ValueError, match="polygon 1 of instance 2 has"):
            PolygonMasks([[TRIANGLE], [], [TRIANGLE, bad]])
    with pytest.raises(TypeError, match="instance 0"):
        PolygonMasks([np.array(TRIANGLE)])
    with pytest.raises(TypeError, match="list of polygons per instance"):
        PolygonMasks("abc")


def test_polygon_masks_cat_and_crop() -> None:
    masks = make_polygon_masks()
    assert len(PolygonMasks.cat([masks, PolygonMasks([]), masks])) == 6 and len(PolygonMasks.cat([])) == 0
    with pytest.raises(TypeError, match="list"):
        PolygonMasks.cat([masks, [[TRIANGLE]]])
    boxes = torch.tensor([[2.0, 2, 12, 9], [0, 0, 20, 20], [0, 0, 5, 5]])
    cropped = masks.crop_and_resize(boxes, 14)
    assert cropped.shape == (3, 14, 14) and cropped.dtype == torch.bool
    for mask, polygons, box in zip(cropped, masks, boxes.numpy()):
        assert torch.equal(mask, rasterize_polygons_within_box(polygons, box, 14))
    assert PolygonMasks([]).crop_and_resize(torch.zeros(0, 4), 14).shape == (0, 14, 14)
    with pytest.raises(ValueError, match=r"a box per mask, shape \(3, 4\), got \(2, 4\)"):
        masks.crop_and_resize(boxes[:2], 14)


def test_polygons_become_bitmaps() -> None:
    masks = make_polygon_masks()
    for source in (masks, masks.polygons):
        bitmasks = BitMasks.from_polygon_masks(source, 18, 22)
        assert bitmasks.image_size == (18, 22) and bitmasks.tensor.dtype == torch.bool
        for mask, polygons in zip(bitmasks, masks):
            assert np.array_equal(mask.numpy(), coco_rasterise(polygons, 18, 22))
    assert BitMasks.from_polygon_masks([], 4, 5).tensor.shape == (0, 4, 5)


def test_bitmasks_find_their_boxes(device: str) -> None:
    tensor = torch.rand(6, 9, 11, generator=torch.Generator().manual_seed(0)) > 0.93
    tensor[2] = False
    masks = BitMasks(tensor).to(device)
    expected = []
    for mask in tensor:
        rows, columns = mask.nonzero(as_tuple=True)
        some = len(rows) > 0
        expected.append(
            [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if some else [0, 0, 0, 0]
        )
    boxes = masks.get_bounding_boxes()
    assert boxes.device.type == device and boxes.tensor.cpu().tolist() == expected
    assert masks.nonempty().tolist() == tensor.flatten(1).any(1).tolist()
    for shape in ((0, 9, 11), (3, 0, 4)):
        assert BitMasks(torch.zeros(shape)).get_bounding_boxes().tensor.eq(0).all()


def slow_crop(mask: np.ndarray, box: list[float], size: int) -> np.ndarray:
    """Mean of the bilinear samples in each cell, as ROIAlign with adaptive sampling takes them."""
    height, width = mask.shape
    cell_w, cell_h = (box[2] - box[0]) / size, (box[3] - box[1]) / size
    result = np.zeros((size, size))
    num_y, num_x = math.ceil(cell_h), math.ceil(cell_w)
    for py, px in np.ndindex(size, size):
        for iy, ix in np.ndindex(num_y, num_x):
            y = box[1] - 0.5 + (py + (iy + 0.5) / num_y) * cell_h
            x = box[0] - 0.5 + (px + (ix + 0.5) / num_x) * cell_w
            if -1 <= y <= height and -1 <= x <= width:
                y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
                for i, j in np.ndindex(height, width):
                    weight = max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j))
                    result[py, px] += weight * mask[i, j] / (num_y * num_x)
    return result


def test_bitmasks_are_cropped_by_roi_align() -> None:
    tensor = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(0)) > 0.5
    boxes = [[0.0, 0, 11, 9], [2.2, 3.1, 6.7, 8.9], [-3.0, -2, 14, 12]]
    cropped = BitMasks(tensor).crop_and_resize(torch.tensor(boxes), 4)
    assert cropped.shape == (3, 4, 4) and cropped.dtype == torch.bool
    for mask, box, result in zip(tensor.numpy(), boxes, cropped.numpy()):
        mean = slow_crop(mask, box, 4)
        certain = np.abs(mean - 0.5) > 1e-5
        assert certain.mean() > 0.6 and (result == (mean >= 0.5))[certain].all()
    assert BitMasks(tensor[:0]).crop_and_resize(torch.zeros(0, 4), 4).shape == (0, 4, 4)
    with pytest.raises(ValueError, match="a box per mask"):
        BitMasks(tensor).crop_and_resize(torch.zeros(1, 4), 4)


def test_bitmask_construction_indexing_and_cat() -> None:
    masks = BitMasks(np.eye(3)[None].repeat(2, axis=0))
    assert masks.tensor.dtype == torch.bool and len(masks) == 2 and masks.device.type == "cpu"
    assert len(masks[0]) == 1 and len(masks[:0]) == 0 and len(masks[torch.tensor([True, False])]) == 1
    assert [tuple(mask.shape) for mask in masks] == [(3, 3)] * 2
    assert len(BitMasks.cat([masks, masks[:1]])) == 3 and "image_size=(3, 3)" in repr(masks)
    assert len(BitMasks([np.eye(3), np.eye(3)])) == 2
    with pytest.raises(ValueError, match=r"\(N, H, W\)"):
        BitMasks(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="one dimension"):
        masks[torch.ones(2, 3, dtype=torch.bool)]
    with pytest.raises(ValueError, match="no BitMasks"):
        BitMasks.cat([])


def paste(mask: Tensor, box: list[int], height: int, width: int) -> Tensor:
    image = torch.zeros(height, width, dtype=torch.bool)
    image[box[1] : box[3], box[0] : box[2]] = mask
    return image


def test_roi_masks_are_pasted_into_their_boxes() -> None:
    tensor = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
    masks, boxes = ROIMasks(tensor), [[1, 2, 5, 6], [3, 0, 7, 4]]  # as large as the masks: pixel by pixel
    bitmasks = masks.to_bitmasks(torch.tensor(boxes, dtype=torch.float32), 8, 9)
    assert isinstance(bitmasks, BitMasks)
    for result, mask, box in zip(bitmasks, tensor, boxes):
        assert torch.equal(result, paste(mask >= 0.5, box, 8, 9))
    again = masks.to_bitmasks(Boxes(torch.tensor(boxes)), 8, 9, threshold=0.9)
    assert again.tensor.sum() < bitmasks.tensor.sum()
    whole = BitMasks.from_roi_masks(masks, 4, 4)
    assert torch.equal(whole.tensor, tensor >= 0.5)
    assert masks[:0].to_bitmasks(torch.zeros(0, 4), 8, 9).tensor.shape == (0, 8, 9)


def test_roi_masks_indexing() -> None:
    masks = ROIMasks(torch.rand(3, 4, 4))
    assert len(masks) == 3 and len(masks[1]) == 1 and len(masks[torch.tensor([0, 2])]) == 2
    assert masks.to("cpu").device.type == "cpu" and "mask_size=(4, 4)" in repr(masks)
    with pytest.raises(ValueError, match=r"\(N, S, S\)"):
        ROIMasks(torch.zeros(4, 4))
