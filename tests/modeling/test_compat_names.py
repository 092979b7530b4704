"""Names of `modeling` for others' code do what they did."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn

from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

anchors = importlib.import_module("detectron2.modeling.anchor_generator")
poolers = importlib.import_module("detectron2.modeling.poolers")
retinanet = importlib.import_module("detectron2.modeling.meta_arch.retinanet")
proposal_utils = importlib.import_module("detectron2.modeling.proposal_generator.proposal_utils")
modeling = importlib.import_module("detectron2.modeling")


def test_offsets_of_a_grid() -> None:
    x, y = anchors._create_grid_offsets((2, 3), 4, 0.5, torch.zeros(1))
    assert x.tolist() == [2, 6, 10, 2, 6, 10] and y.tolist() == [2, 2, 2, 6, 6, 6]
    generator = DefaultAnchorGenerator(sizes=[[2.0]], aspect_ratios=[[1.0]], strides=[4], offset=0.5)
    (grid,) = generator([torch.zeros(1, 1, 2, 3)])
    assert torch.equal(grid.get_centers(), torch.stack([x, y], dim=1))


def test_values_are_spread_over_levels() -> None:
    assert anchors._broadcast_params([1.0, 2.0], 2, "sizes") == [[1.0, 2.0], [1.0, 2.0]]
    with pytest.raises(ValueError, match="Anchor sizes .* 3 feature levels; got 2"):
        anchors._broadcast_params([[1.0], [2.0]], 3, "sizes")


def test_boxes_get_the_index_of_their_image() -> None:
    boxes = torch.arange(12.0).reshape(3, 4)
    found = poolers._convert_boxes_to_pooler_format(boxes, torch.tensor([1, 0, 2]))
    assert found[:, 0].tolist() == [0, 2, 2] and torch.equal(found[:, 1:], boxes)


def test_zeros_of_a_pooler() -> None:
    like = torch.ones(1, dtype=torch.float64)
    assert poolers._create_zeros(None, 3, 2, 1, like).shape == (0, 3, 2, 1)
    found = poolers._create_zeros(torch.ones(5, 4), 3, 2, 1, like)
    assert found.shape == (5, 3, 2, 1) and found.dtype == like.dtype and not found.any()


def test_predictions_of_a_level_in_the_order_of_anchors() -> None:
    x = torch.arange(2 * 6 * 2 * 2.0).reshape(2, 6, 2, 2)
    found = retinanet.permute_to_N_HWA_K(x, 3)
    assert found.shape == (2, 8, 3)
    for n in range(2):
        for a in range(2):
            assert torch.equal(found[n, 2 * 3 + a], x[n, 3 * a : 3 * a + 3, 1, 1])


class TellsOfTracing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + float(proposal_utils._is_tracing())


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
def test_tracing_is_noticed() -> None:
    x = torch.zeros(1)
    assert TellsOfTracing()(x) == 0
    traced = torch.jit.trace(TellsOfTracing(), x, check_trace=False)
    assert traced(x) == 1


@pytest.mark.parametrize("name", ["MMDetBackbone", "MMDetDetector"])
def test_mmdetection_is_left_out(name: str) -> None:
    kind = getattr(modeling, name)
    assert issubclass(kind, nn.Module) and kind is getattr(modeling.mmdet_wrapper, name)
    with pytest.raises(NotImplementedError, match=f"{name} is left out: it was made for mmdetection 2"):
        kind(backbone=None)
