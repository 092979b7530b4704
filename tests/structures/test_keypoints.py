"""Keypoints and their heatmaps, against loops over single keypoints."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from detectron2.structures.keypoints import Keypoints, heatmaps_to_keypoints


def test_construction_and_indexing() -> None:
    values = [[[1, 2, 2], [3, 4, 0]], [[5, 6, 1], [7, 8, 2]]]
    for source in (values, np.array(values), torch.tensor(values)):
        keypoints = Keypoints(source)
        assert keypoints.tensor.dtype == torch.float32 and len(keypoints) == 2
    assert len(keypoints[1]) == 1 and len(keypoints[:0]) == 0
    assert keypoints[torch.tensor([False, True])].tensor[0, 0, 0] == 5
    assert len(Keypoints.cat([keypoints, keypoints[0]])) == 3
    assert keypoints.to("cpu").device.type == "cpu" and "num_keypoints=2" in repr(keypoints)
    with pytest.raises(ValueError, match=r"\(N, K, 3\)"):
        Keypoints(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="no Keypoints"):
        Keypoints.cat([])
    with pytest.raises(TypeError, match="Tensor"):
        Keypoints.cat([keypoints, keypoints.tensor])


def test_keypoints_find_their_cells(device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(5, 8, 3, generator=generator) * torch.tensor([40.0, 40, 3])
    points[..., 2] = points[..., 2].floor()
    start = torch.rand(5, 2, generator=generator) * 20
    boxes = torch.cat([start, start + torch.rand(5, 2, generator=generator) * 30 + 1], dim=1)
    points[0, 0] = torch.tensor([boxes[0, 2], boxes[0, 3], 2])  # on the last edges
    points[0, 1] = torch.tensor([boxes[0, 0], boxes[0, 1], 2])  # on the first
    cells, valid = Keypoints(points).to(device).to_heatmap(boxes.to(device), 14)
    assert cells.dtype == valid.dtype == torch.int64
    for i, k in np.ndindex(5, 8):
        x, y, visibility = points[i, k].tolist()
        x1, y1, x2, y2 = boxes[i].tolist()
        column = 13 if x == x2 else math.floor((x - x1) * 14 / (x2 - x1))
        row = 13 if y == y2 else math.floor((y - y1) * 14 / (y2 - y1))
        expected = 0 <= column < 14 and 0 <= row < 14 and visibility > 0
        assert valid[i, k] == expected
        assert cells[i, k] == (row * 14 + column if expected else 0)
    assert 5 < valid.sum() < 35 and valid[0, :2].all()


def test_no_instances_and_boxes_without_extent() -> None:
    cells, valid = Keypoints(torch.zeros(0, 17, 3)).to_heatmap(torch.zeros(0, 4), 56)
    assert cells.shape == valid.shape == (0, 17)
    cells, valid = Keypoints([[[1.0, 1, 2], [2, 2, 2]]]).to_heatmap(torch.tensor([[0.0, 0, 0, 0]]), 56)
    assert cells.tolist() == valid.tolist() == [[0, 0]]
    assert heatmaps_to_keypoints(torch.zeros(0, 17, 56, 56), torch.zeros(0, 4)).shape == (0, 17, 4)


def test_peaks_are_found_at_pixel_centres_with_their_probability() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 4, 8, 8, generator=generator)
    rois = torch.tensor([[3.0, 4, 19.5, 22.3], [0, 0, 8, 8], [5, 5, 5.2, 5.3]])
    keypoints = heatmaps_to_keypoints(maps, rois)
    assert keypoints.shape == (3, 4, 4)
    for i, k in np.ndindex(3, 4):
        x1, y1, x2, y2 = rois[i].tolist()
        width, height = max(x2 - x1, 1), max(y2 - y1, 1)
        size = (math.ceil(height), math.ceil(width))
        resized = F.interpolate(maps[i : i + 1, k : k + 1].double(), size=size, mode="bicubic")[0, 0]
        row, column = np.unravel_index(int(resized.argmax()), size)
        logit = float(resized.max())
        x, y = x1 + (column + 0.5) * width / size[1], y1 + (row + 0.5) * height / size[0]
        probability = math.exp(logit) / float(maps[i, k].double().exp().sum())
        assert keypoints[i, k].tolist() == pytest.approx([x, y, logit, probability], rel=1e-4)


def test_encoding_and_decoding_meet_within_a_cell() -> None:
    box = torch.tensor([[10.0, 20, 66, 76]])  # one cell is one pixel
    points = torch.tensor([[[15.2, 33.7, 2.0], [60.9, 75.1, 2.0]]])
    cells, _ = Keypoints(points).to_heatmap(box, 56)
    maps = F.one_hot(cells, 56 * 56).view(1, 2, 56, 56) * 10.0
    decoded = heatmaps_to_keypoints(maps, box)
    assert (decoded[..., :2] - points[..., :2]).abs().max() <= 0.5
