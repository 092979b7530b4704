"""What an evaluation is asked for, checked: tasks, limits, and whether both sides have what a task needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detectron2.evaluation.coco_evaluation.report import METRICS
from detectron2.utils.user_errors import UserValueError


def why_not_scorable(
    task: str, entries: Sequence[Mapping[str, Any]], ground_truth: Mapping[str, Any]
) -> str | None:
    """Say which side lacks what a task compares; None when both have it."""
    key = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}[task]
    if any(key not in entry for entry in entries):
        return f"the predictions have no '{key}'; does the model have the head for it?"
    annotations = ground_truth["annotations"]
    if any(key not in annotation for annotation in annotations):
        return f"annotations of the ground truth have no '{key}'"
    if annotations and not any(_is_given(annotation[key]) for annotation in annotations):
        return f"'{key}' is empty in all annotations of the ground truth"
    return None


def _is_given(value: Any) -> bool:
    """Whether there is a box, mask or pose, and not an empty list."""
    return value is not None and len(value) > 0


def checked_tasks(tasks: Iterable[str] | None) -> tuple[str, ...] | None:
    if tasks is None:
        return None
    chosen = (tasks,) if isinstance(tasks, str) else tuple(tasks)
    unknown = [task for task in chosen if task not in METRICS]
    if unknown:
        raise UserValueError(f"tasks should be among {sorted(METRICS)}, got {unknown}")
    return chosen


def detection_limits(max_dets_per_image: int | Sequence[int] | None) -> list[int]:
    """Ascending limits: AP is taken at the largest."""
    if max_dets_per_image is None:
        return [1, 10, 100]
    if isinstance(max_dets_per_image, int):
        limits = [1, min(10, max_dets_per_image), max_dets_per_image]
    else:
        limits = list(max_dets_per_image)
    if not limits or min(limits) < 1:
        raise UserValueError(f"max_dets_per_image should be at least 1, got {max_dets_per_image}")
    return sorted(set(limits))
