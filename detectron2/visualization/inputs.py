"""What callers may hand to a visualizer, in the one form that it draws.

Shapes: R instances, P keypoints, H x W the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from detectron2.data.catalog import Metadata
from detectron2.structures.boxes import Boxes, BoxMode
from detectron2.structures.keypoints import Keypoints
from detectron2.structures.masks import BitMasks, PolygonMasks
from detectron2.structures.rotated_boxes import RotatedBoxes
from detectron2.utils.user_errors import UserValueError
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


@dataclass(frozen=True)
class AnnotationFields:
    """What R annotations of one picture have, each a list of R or None."""

    boxes: list[Any] | None
    masks: list[Any] | None
    keypoints: np.ndarray | None
    classes: list[int] | None
    is_crowd: list[bool]


def gather_annotations(annotations: Sequence[Mapping[str, Any]]) -> AnnotationFields:
    """Turn the annotations of a data set's dictionary into lists; boxes as XYXY, or five numbers if rotated.

    Among annotations with masks or keypoints, one without has an empty mask or hidden points.
    """

    def all_have(key: str) -> bool:
        return all(key in annotation for annotation in annotations)

    boxes = [_as_drawn(a["bbox"], a["bbox_mode"]) for a in annotations] if all_have("bbox") else None
    masks = None
    if any(a.get("segmentation") is not None for a in annotations):
        masks = [a["segmentation"] if a.get("segmentation") is not None else [] for a in annotations]
    keypoints = None
    given = [np.asarray(a["keypoints"]).size for a in annotations if a.get("keypoints") is not None]
    if given:
        filled = [a["keypoints"] if a.get("keypoints") is not None else [0] * given[0] for a in annotations]
        keypoints = np.asarray(filled, dtype=np.float64).reshape(len(annotations), -1, 3)
    return AnnotationFields(
        boxes=boxes,
        masks=masks,
        keypoints=keypoints,
        classes=[int(a["category_id"]) for a in annotations] if all_have("category_id") else None,
        is_crowd=[bool(a.get("iscrowd", 0)) for a in annotations],
    )


def _as_drawn(box: Sequence[float], mode: BoxMode) -> Any:
    return BoxMode.convert(list(box), mode, BoxMode.XYXY_ABS) if len(box) == 4 else box


def common_length(**of_instances: Sequence[Any] | np.ndarray | None) -> int:
    """How many instances there are, by every list that is given; 0 where none is.

    Raises:
        ValueError: two lists differ in length.
    """
    counts = {name: len(values) for name, values in of_instances.items() if values is not None}
    if len(set(counts.values())) > 1:
        raise UserValueError(f"every instance needs one of each, but there are {counts}")
    return max(counts.values(), default=0)


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
