from __future__ import annotations

from typing import Any

import pytest
import torch

from detectron2.modeling.meta_arch import panoptic_fpn
from detectron2.modeling.panoptic_fusion import combine_semantic_and_instance_outputs
from detectron2.structures import Instances


def slow_fusion(
    instances: Instances, semantic: torch.Tensor, overlap: float, stuff_area: float, score: float
) -> tuple[list[list[int]], list[dict[str, Any]]]:
    """The published procedure, pixel by pixel."""
    height, width = semantic.shape
    out = [[0] * width for _ in range(height)]
    segments: list[dict[str, Any]] = []
    pixels = [(y, x) for y in range(height) for x in range(width)]
    by_score = sorted(range(len(instances)), key=lambda i: -instances.scores[i].item())
    for i in by_score:
        if instances.scores[i].item() < score:
            break
        mine = [(y, x) for y, x in pixels if instances.pred_masks[i, y, x]]
        taken = [(y, x) for y, x in mine if out[y][x]]
        if not mine or len(taken) / len(mine) > overlap:
            continue
        segments.append(
            {
                "id": len(segments) + 1,
                "isthing": True,
                "score": instances.scores[i].item(),
                "category_id": instances.pred_classes[i].item(),
                "instance_id": i,
            }
        )
        for y, x in mine:
            out[y][x] = out[y][x] or len(segments)
    for category in sorted(set(semantic.flatten().tolist())):
        free = [(y, x) for y, x in pixels if semantic[y, x] == category and not out[y][x]]
        if category == 0 or len(free) < max(stuff_area, 1):
            continue
        segments.append(
            {"id": len(segments) + 1, "isthing": False, "category_id": category, "area": len(free)}
        )
        for y, x in free:
            out[y][x] = len(segments)
    return out, segments


def random_scene(
    seed: int, num_instances: int, size: tuple[int, int] = (12, 15)
) -> tuple[Instances, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(num_instances, *size, dtype=torch.bool)
    for mask in masks:
        y, x = (int(torch.randint(0, s, (), generator=generator)) for s in size)
        h, w = (int(torch.randint(0, 9, (), generator=generator)) for _ in range(2))  # some masks are empty
        mask[y : y + h, x : x + w] = True
    instances = Instances(
        size,
        pred_masks=masks,
        scores=torch.rand(num_instances, generator=generator),
        pred_classes=torch.randint(0, 5, (num_instances,), generator=generator),
    )
    coarse = torch.randint(0, 4, (size[0] // 3, size[1] // 3), generator=generator)
    return instances, coarse.repeat_interleave(3, 0).repeat_interleave(3, 1)


@pytest.mark.parametrize("seed", range(12))
def test_random_scenes_agree_with_the_pixel_loop(seed: int, device: str) -> None:
    instances, semantic = random_scene(seed, num_instances=seed)
    thresholds = ([0.0, 0.3, 0.5, 1.0][seed % 4], [0, 10, 20][seed % 3], [0.0, 0.4][seed % 2])
    panoptic, segments = combine_semantic_and_instance_outputs(
        instances.to(device), semantic.to(device), *thresholds
    )
    expected, expected_segments = slow_fusion(instances, semantic, *thresholds)
    assert panoptic.dtype == torch.int32 and panoptic.device.type == device
    assert panoptic.tolist() == expected
    assert segments == expected_segments


def test_nothing_at_all() -> None:
    instances, _ = random_scene(0, 0)
    panoptic, segments = combine_semantic_and_instance_outputs(
        instances, torch.zeros(12, 15, dtype=torch.int64), 0.5, 4096, 0.5
    )
    assert not panoptic.any() and segments == []


def test_one_pixel() -> None:
    instances = Instances(
        (1, 1),
        pred_masks=torch.ones(1, 1, 1, dtype=torch.bool),
        scores=torch.tensor([0.5]),
        pred_classes=torch.tensor([3]),
    )
    panoptic, segments = combine_semantic_and_instance_outputs(
        instances, torch.ones(1, 1).long(), 0.5, 1, 0.5
    )
    assert panoptic.tolist() == [[1]]
    assert segments == [{"id": 1, "isthing": True, "score": 0.5, "category_id": 3, "instance_id": 0}]


def test_public_path() -> None:
    assert panoptic_fpn.combine_semantic_and_instance_outputs is combine_semantic_and_instance_outputs
