"""The semantic label map of an image, from its own file or derived from the panoptic PNG."""

from __future__ import annotations

from typing import Any

import numpy as np

from .image_io import read_image
from .panoptic_png import draw_labels, read_panoptic_ids


def has_sem_seg(dataset_dict: dict[str, Any]) -> bool:
    """Whether a data set dict has a label map in one of the two ways."""
    return "sem_seg_file_name" in dataset_dict or "sem_seg_labels" in dataset_dict


def read_sem_seg(dataset_dict: dict[str, Any], panoptic_ids: np.ndarray | None = None) -> np.ndarray | None:
    """Read the label map of an image.

    Args:
        dataset_dict: with `sem_seg_file_name`, or with `pan_seg_file_name` and `sem_seg_labels`
            (segment id -> label).
        panoptic_ids: what the panoptic PNG holds, where it has been read already.

    Returns:
        (H, W) uint8 labels, or None when the dict has neither.
    """
    if "sem_seg_file_name" in dataset_dict:
        return read_image(dataset_dict["sem_seg_file_name"], "L")[:, :, 0]
    if "sem_seg_labels" not in dataset_dict:
        return None
    if panoptic_ids is None:
        panoptic_ids = read_panoptic_ids(dataset_dict["pan_seg_file_name"])
    return draw_labels(panoptic_ids, dataset_dict["sem_seg_labels"], dataset_dict["pan_seg_file_name"])
