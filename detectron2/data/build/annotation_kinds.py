"""Whether training data has the annotations that a model's heads learn from, found before a run begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.utils.user_errors import UserValueError


def check_annotation_kinds(cfg: Any, dataset_dicts: list[dict[str, Any]]) -> None:
    """Look for masks where `MODEL.MASK_ON` needs them, and for keypoints where `MODEL.KEYPOINT_ON` does.

    Args:
        cfg: a config.
        dataset_dicts: with `dataset_name`.

    Raises:
        ValueError: objects, crowds aside, have none; the message names data set and key.
    """
    if cfg.MODEL.MASK_ON:
        _check(dataset_dicts, "MODEL.MASK_ON", "segmentation", _has_mask)
    if cfg.MODEL.KEYPOINT_ON:
        _check(dataset_dicts, "MODEL.KEYPOINT_ON", "keypoints", lambda annotation: "keypoints" in annotation)


def _has_mask(annotation: dict[str, Any]) -> bool:
    return "segmentation" in annotation or "segment_id" in annotation


def _check(
    dataset_dicts: list[dict[str, Any]], key: str, entry: str, has: Callable[[dict[str, Any]], bool]
) -> None:
    num_objects, lacking = 0, []
    for record in dataset_dicts:
        for annotation in record.get("annotations", ()):
            if annotation.get("iscrowd", 0):
                continue
            num_objects += 1
            if not has(annotation):
                lacking.append(record)
    if not lacking:
        return
    first = lacking[0]
    rest = "" if len(lacking) == num_objects else f", or leave these {len(lacking)} out of the data"
    raise UserValueError(
        f"{key} is on, but {len(lacking)} of {num_objects} objects have no {entry!r}, the first in image "
        f"{first.get('file_name')!r} of data set {first['dataset_name']!r}. Set {key} to False to train "
        f"without, or annotate them{rest}."
    )
