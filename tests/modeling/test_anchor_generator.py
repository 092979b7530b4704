from __future__ import annotations

import math

import pytest
import torch

from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import (
    DefaultAnchorGenerator,
    RotatedAnchorGenerator,
    build_anchor_generator,
)


def test_anchors_of_one_location_by_hand() -> None:
    generator = DefaultAnchorGenerator(
        sizes=[[32, 64]], aspect_ratios=[[0.25, 1, 4]], strides=[4], offset=0.0
    )
    expected = [
        [-32, -8, 32, 8],  # area 32**2, height / width = 1/4
        [-16, -16, 16, 16],
        [-8, -32, 8, 32],
        [-64, -16, 64, 16],
        [-32, -32, 32, 32],
        [-16, -64, 16, 64],
    ]
    cell = generator.generate_cell_anchors((32, 64), (0.25, 1, 4))
    torch.testing.assert_close(cell, torch.tensor(expected, dtype=torch.float32))
    assert generator.num_anchors == generator.num_cell_anchors == [6]
    assert generator.box_dim == 4


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_grid_of_anchors_equals_a_loop(offset: float, device: str) -> None:
    sizes, ratios, strides = [[16, 24], [48]], [[0.5, 2.0]], [8, 16]
    generator = DefaultAnchorGenerator(sizes=sizes, aspect_ratios=ratios, strides=strides, offset=offset)
    generator.to(device)
    maps = [torch.zeros(1, 3, 3, 5, device=device), torch.zeros(1, 3, 2, 1, device=device)]
    for anchors, level_map, level_sizes, stride in zip(generator(maps), maps, sizes, strides):
        expected = []
        for row in range(level_map.shape[2]):
            for column in range(level_map.shape[3]):
                x, y = (column + offset) * stride, (row + offset) * stride
                for size in level_sizes:
                    for ratio in ratios[0]:
                        w = size / math.sqrt(ratio)
                        h = size * math.sqrt(ratio)
                        expected.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        assert anchors.tensor.device.type == device
        torch.testing.assert_close(anchors.tensor.cpu(), torch.tensor(expected))


def test_rotated_anchors_vary_by_angle_then_ratio_then_size() -> None:
    generator = RotatedAnchorGenerator(
        sizes=[[32, 64]], aspect_ratios=[[0.25, 1]], angles=[[0, 45]], strides=[4], offset=0.0
    )
    anchors = generator([torch.zeros(1, 1, 1, 2)])[0].tensor
    expected = torch.tensor(
        [
            [0, 0, 64, 16, 0],
            [0, 0, 64, 16, 45],
            [0, 0, 32, 32, 0],
            [0, 0, 32, 32, 45],
            [0, 0, 128, 32, 0],
            [0, 0, 128, 32, 45],
            [0, 0, 64, 64, 0],
            [0, 0, 64, 64, 45],
        ],
        dtype=torch.float32,
    )
    torch.testing.assert_close(anchors[:8], expected)
    torch.testing.assert_close(anchors[8:], expected + torch.tensor([4.0, 0, 0, 0, 0]))
    assert generator.num_anchors == [8] and generator.box_dim == 5


def test_an_empty_feature_map_has_no_anchors() -> None:
    generator = DefaultAnchorGenerator(sizes=[8], aspect_ratios=[1.0], strides=[4])
    assert len(generator([torch.zeros(1, 1, 0, 7)])[0]) == 0


def test_anchors_move_with_the_module_and_stay_out_of_checkpoints() -> None:
    generator = DefaultAnchorGenerator(sizes=[[8]], aspect_ratios=[[1.0]], strides=[4])
    assert not generator.state_dict()
    assert len(generator.cell_anchors) == 1
    assert [a.device.type for a in generator.to("meta").cell_anchors] == ["meta"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": [[8], [16], [32]]}, "2 feature levels; got 3"),
        ({"sizes": []}, "sizes must not be empty"),
        ({"offset": 1.0}, r"in \[0, 1\)"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DefaultAnchorGenerator(**{"sizes": [[8]], "aspect_ratios": [[1.0]], "strides": [4, 8], **arguments})


def test_config_names_the_generator() -> None:
    cfg = get_cfg()
    shapes = [ShapeSpec(stride=4), ShapeSpec(stride=8)]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16]]
    generator = build_anchor_generator(cfg, shapes)
    assert isinstance(generator, DefaultAnchorGenerator)
    assert generator.num_anchors == [3, 3] and generator.strides == [4, 8]
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "DefaultAnchorGenrator"
    with pytest.raises(KeyError, match="DefaultAnchorGenerator"):
        build_anchor_generator(cfg, shapes)
