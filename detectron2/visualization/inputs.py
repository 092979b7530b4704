"""What callers may hand to a visualizer, in the one form that it draws.

Shapes: R instances, P keypoints, H x W the picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from detectron2.data.catalog import Metadata
from detectron2.structures.boxes import Boxes
from detectron2.structures.keypoints import Keypoints
from detectron2.structures.masks import BitMasks, PolygonMasks
from detectron2.structures.rotated_boxes import RotatedBoxes
from detectron2.visualization.masks import GenericMask

_USUAL_LABEL_DIVISOR = 1000


def to_array(values: Any) -> np.ndarray:
    """A tensor of any device, or anything array-like, as an array."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def to_box_array(boxes: Any) -> np.ndarray:
    """Boxes of any kind as (R, 4) or, rotated ones, (R, 5) float64."""
    values = boxes.tensor if isinstance(boxes, (Boxes, RotatedBoxes)) else boxes
    array = np.asarray(to_array(values), dtype=np.float64)
    return array.reshape(-1, 4) if not array.size else array.reshape(len(array), -1)


def to_generic_masks(masks: Any, image_size: tuple[int, int]) -> list[GenericMask]:
    """Masks of any kind as R masks.

    Args:
        image_size: (height, width).
    """
    if isinstance(masks, PolygonMasks):
        masks = masks.polygons
    elif isinstance(masks, BitMasks):
        masks = masks.tensor
    if isinstance(masks, torch.Tensor):
        masks = to_array(masks)
    plain = [to_array(mask) if isinstance(mask, torch.Tensor) else mask for mask in masks]
    return [mask if isinstance(mask, GenericMask) else GenericMask(mask, *image_size) for mask in plain]


def to_keypoint_array(keypoints: Any) -> np.ndarray:
    """Keypoints of any kind as (R, P, 3)."""
    return to_array(keypoints.tensor if isinstance(keypoints, Keypoints) else keypoints)


def forge_segments(label_map: np.ndarray, metadata: Metadata) -> list[dict[str, Any]]:
    """The segments of a map of `category * label_divisor + instance`; negative values are void."""
    divisor = metadata.get("label_divisor") or _USUAL_LABEL_DIVISOR
    things = set((metadata.get("thing_dataset_id_to_contiguous_id") or {}).values())
    labels = [int(label) for label in np.unique(label_map) if label >= 0]
    return [{"id": i, "category_id": i // divisor, "isthing": i // divisor in things} for i in labels]


def drop_things(sem_seg: np.ndarray | torch.Tensor, metadata: Metadata) -> np.ndarray:
    """Leave out of a label map the class that stands for all things, where the data set has one.

    Args:
        sem_seg: (H, W) class ids.

    Returns:
        (H, W) int64 class ids, -1 in its place.
    """
    label_map = to_array(sem_seg).astype(np.int64)
    names = metadata.get("stuff_classes") or []
    return np.where(label_map == names.index("things"), -1, label_map) if "things" in names else label_map
