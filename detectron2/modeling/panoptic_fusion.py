"""Merge instances and a semantic map into one map in which a pixel belongs to at most one segment."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detectron2.structures.instances import Instances

from .inference import by_falling_score


def combine_semantic_and_instance_outputs(
    instance_results: Instances,
    semantic_results: Tensor,
    overlap_threshold: float,
    stuff_area_thresh: float,
    instances_score_thresh: float,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Paint instances by falling score, then stuff where nothing was painted (Kirillov et al., 2019).

    Args:
        instance_results: one image's `pred_masks` (R, H, W), `scores` (R,) and `pred_classes` (R,).
        semantic_results: (H, W) integer classes; 0 stands for all things.
        overlap_threshold: an instance with more than this share of its mask already taken is dropped.
        stuff_area_thresh: a stuff class with fewer free pixels is dropped.
        instances_score_thresh: instances with lower scores are dropped.

    Returns:
        (H, W) int32 segment ids, 0 where there is no segment, and a dict per segment: `id`, `isthing`,
        `category_id` (contiguous, things and stuff counted apart), and for things `score` and `instance_id`
        (index into `instance_results`), for stuff `area`.
    """
    panoptic, things = _paint_instances(
        instance_results, semantic_results.shape, overlap_threshold, instances_score_thresh
    )
    stuff = _paint_stuff(panoptic, semantic_results, stuff_area_thresh, first_id=len(things) + 1)
    return panoptic, things + stuff


def _paint_instances(
    instances: Instances, size: torch.Size, overlap_threshold: float, score_thresh: float
) -> tuple[Tensor, list[dict[str, Any]]]:
    """A new (H, W) map with the instances that fit, numbered from 1, and what they are."""
    scores = instances.scores
    panoptic = torch.zeros(size, dtype=torch.int32, device=scores.device)
    order = by_falling_score(scores)
    order = order[scores[order] >= score_thresh]
    # Whether an instance fits depends on those before it. The decisions stay on the device and are read once.
    last_id = panoptic.new_zeros(())
    ids = []
    for mask in instances.pred_masks[order].bool():
        area = mask.sum()
        taken = (mask & (panoptic > 0)).sum()
        fits = (area > 0) & (taken / area <= overlap_threshold)
        last_id = last_id + fits
        ids.append(last_id * fits)
        panoptic = torch.where(mask & fits & (panoptic == 0), last_id, panoptic)
    if not ids:
        return panoptic, []
    # float64 holds all of them exactly.
    columns = [torch.stack(ids), order, instances.pred_classes[order], scores[order]]
    rows = torch.stack([c.cpu().double() for c in columns], dim=1).tolist()
    return panoptic, [
        {
            "id": int(segment_id),
            "isthing": True,
            "score": score,
            "category_id": int(category),
            "instance_id": int(index),
        }
        for segment_id, index, category, score in rows
        if segment_id > 0
    ]


def _paint_stuff(
    panoptic: Tensor, semantic: Tensor, area_thresh: float, first_id: int
) -> list[dict[str, Any]]:
    """Add the stuff classes with enough free pixels to the map, in place; return what they are."""
    free = panoptic == 0
    categories, areas = torch.unique(semantic[free], return_counts=True)
    segments: list[dict[str, Any]] = []
    for category, area in zip(categories.tolist(), areas.tolist()):
        if category == 0 or area < area_thresh:
            continue
        segment_id = first_id + len(segments)
        panoptic.masked_fill_(free & (semantic == category), segment_id)
        segments.append({"id": segment_id, "isthing": False, "category_id": category, "area": area})
    return segments
