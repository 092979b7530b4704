from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels, convert_boxes_to_pooler_format
from detectron2.structures import Boxes, RotatedBoxes


def squares(*sides: float) -> Boxes:
    return Boxes(torch.tensor([[3.0, 5.0, 3 + s, 5 + s] for s in sides]).reshape(-1, 4))


def test_levels_follow_the_size_of_boxes() -> None:
    boxes = [squares(1, 111, 112, 223), squares(), squares(224, 447, 448, 5000)]
    levels = assign_boxes_to_levels(boxes, 2, 5, canonical_box_size=224, canonical_level=4)
    # 224 belongs to level 4; a level less for every halving; clamped to [2, 5].
    assert levels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert levels.dtype == torch.int64


def test_a_box_without_area_goes_to_the_finest_level() -> None:
    assert assign_boxes_to_levels([squares(0)], 2, 5, 224, 4).tolist() == [0]


def test_pooler_format_puts_the_image_in_front() -> None:
    rois = convert_boxes_to_pooler_format([squares(1), squares(), squares(2, 3)])
    assert rois.tolist() == [[0, 3, 5, 4, 6], [2, 3, 5, 5, 7], [2, 3, 5, 6, 8]]
    rotated = convert_boxes_to_pooler_format([RotatedBoxes(torch.tensor([[1.0, 2, 3, 4, 5]]))])
    assert rotated.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert convert_boxes_to_pooler_format([squares(), squares()]).shape == (0, 5)


@pytest.mark.parametrize("pooler_type", ["ROIAlign", "ROIAlignV2", "ROIPool"])
def test_constant_features_tell_which_level_a_box_was_pooled_from(pooler_type: str) -> None:
    pooler = ROIPooler(2, [1 / 4, 1 / 8, 1 / 16], 0, pooler_type, canonical_box_size=64, canonical_level=3)
    features = [torch.full((2, 1, 256 // s, 256 // s), float(s)) for s in (4, 8, 16)]
    boxes = [squares(130, 16, 70), squares(20)]
    pooled = pooler(features, boxes)
    assert pooled.shape == (4, 1, 2, 2)
    torch.testing.assert_close(pooled.flatten(1), torch.tensor([16.0, 4, 8, 4])[:, None].expand(-1, 4))


def test_several_levels_equal_pooling_each_box_alone() -> None:
    torch.manual_seed(0)
    features = [torch.randn(2, 3, 64 // s, 64 // s) for s in (4, 8)]
    pooler = ROIPooler((3, 2), [1 / 4, 1 / 8], 2, "ROIAlignV2", canonical_box_size=32, canonical_level=3)
    boxes = [squares(40, 8, 50), squares(12, 33)]
    pooled = pooler(features, boxes)
    row = 0
    for image, of_image in enumerate(boxes):
        for box in of_image:
            alone: list[Boxes] = [squares(), squares()]
            alone[image] = Boxes(box[None])
            torch.testing.assert_close(pooler(features, alone)[0], pooled[row])
            row += 1


@pytest.mark.parametrize("levels", [1, 2])
def test_no_boxes(levels: int) -> None:
    features = [torch.randn(2, 3, 16 // 2**i, 16 // 2**i) for i in range(levels)]
    pooler = ROIPooler(7, [1 / 2 ** (i + 2) for i in range(levels)], 0, "ROIAlignV2")
    assert pooler(features, [squares(), squares()]).shape == (0, 3, 7, 7)
    assert pooler([f[:0] for f in features], []).shape == (0, 3, 7, 7)


def test_gradients_reach_the_levels_that_were_pooled() -> None:
    features = [torch.randn(1, 2, 16, 16, requires_grad=True), torch.randn(1, 2, 8, 8, requires_grad=True)]
    pooler = ROIPooler(2, [1 / 4, 1 / 8], 0, "ROIAlignV2", canonical_box_size=32, canonical_level=3)
    pooler(features, [squares(8)]).sum().backward()
    assert features[0].grad is not None and features[0].grad.any()
    assert features[1].grad is not None and not features[1].grad.any()  # there, for DDP, but zero


def slow_roi_pool(features: Tensor, box: list[float], scale: float, size: int) -> Tensor:
    """The definition of Fast R-CNN's pooling for one box, cell by cell."""
    channels, height, width = features.shape
    x1, y1, x2, y2 = (math.floor(v * scale + 0.5) for v in box)
    w, h = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    out = torch.zeros(channels, size, size)
    for i in range(size):
        for j in range(size):
            rows = range(y1 + math.floor(i * h / size), y1 + math.ceil((i + 1) * h / size))
            columns = range(x1 + math.floor(j * w / size), x1 + math.ceil((j + 1) * w / size))
            cells = [features[:, y, x] for y in rows for x in columns if 0 <= y < height and 0 <= x < width]
            if cells:
                out[:, i, j] = torch.stack(cells).amax(0)
    return out


@pytest.mark.parametrize(
    "box", [[8, 8, 40, 30], [0, 0, 64, 64], [50, 50, 64, 64], [9, 9, 9.5, 9.5], [60, 2, 90, 9]]
)
def test_roi_pool_equals_its_definition(box: list[float]) -> None:
    torch.manual_seed(1)
    features = torch.randn(1, 2, 16, 16)
    pooled = ROIPooler(3, [0.25], 0, "ROIPool")([features], [Boxes(torch.tensor([box]))])
    torch.testing.assert_close(pooled[0], slow_roi_pool(features[0], box, 0.25, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pooler_type": "RoIAlign"}, "ROIAlignV2"),
        ({"scales": [1 / 4, 1 / 16]}, "double"),
        ({"scales": [1 / 6]}, "powers of two"),
        ({"output_size": (1, 2, 3)}, "output_size"),
        ({"canonical_box_size": 0}, "canonical_box_size"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ROIPooler(
            **{
                "output_size": 7,
                "scales": [1 / 4],
                "sampling_ratio": 0,
                "pooler_type": "ROIAlign",
                **arguments,
            }
        )


def test_wrong_inputs_are_named() -> None:
    pooler = ROIPooler(7, [1 / 4], 0, "ROIAlign")
    with pytest.raises(ValueError, match="1 feature maps, got 2"):
        pooler([torch.zeros(1, 1, 4, 4)] * 2, [squares()])
    with pytest.raises(ValueError, match="boxes of 2 images"):
        pooler([torch.zeros(1, 1, 4, 4)], [squares(), squares()])
