"""Which objects of a video's frame are those of the frames before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from detectron2.structures import rle
from detectron2.structures.boxes import Boxes, pairwise_iou
from detectron2.visualization.colors import ColorLike

FRAMES_REMEMBERED = 8

_BOX_MATCH_IOU = 0.6
_MASK_MATCH_IOU = 0.5


@dataclass(slots=True)
class DetectedInstance:
    """An object as it was seen last.

    Attributes:
        label: its class.
        bbox: (4,) XYXY box, or None.
        mask_rle: run lengths of its mask, or None; where it has them, they are compared, not the box.
        color: how it is drawn; None until that is decided.
        ttl: how many frames without it it will be remembered.
    """

    label: int
    bbox: np.ndarray | None
    mask_rle: dict[str, Any] | None
    color: ColorLike | None
    ttl: int = FRAMES_REMEMBERED


def match_tracks(found: Sequence[DetectedInstance], known: Sequence[DetectedInstance]) -> dict[int, int]:
    """Match the objects of a frame with those of earlier frames, best overlap first.

    Args:
        found: the objects of the frame, all with masks or all with boxes.
        known: objects seen before.

    Returns:
        Index in `found` -> index in `known`, one to one, for objects of one class that overlap enough.
    """
    if not found:
        return {}
    has_masks = found[0].mask_rle is not None
    if not has_masks and found[0].bbox is None:  # there is nothing to compare
        return {}
    comparable = [
        i for i, old in enumerate(known) if (old.mask_rle is not None if has_masks else old.bbox is not None)
    ]
    if not comparable:
        return {}
    others = [known[i] for i in comparable]
    overlaps = _overlaps(found, others, has_masks)  # (found, others)
    same_class = np.asarray([f.label for f in found])[:, None] == np.asarray([o.label for o in others])[None]
    overlaps = np.where(same_class, overlaps, 0.0)
    threshold = _MASK_MATCH_IOU if has_masks else _BOX_MATCH_IOU
    matches: dict[int, int] = {}
    for _ in range(min(overlaps.shape)):
        row, column = divmod(int(overlaps.argmax()), overlaps.shape[1])
        if overlaps[row, column] <= threshold:
            break
        matches[row] = comparable[column]
        overlaps[row, :] = overlaps[:, column] = 0
    return matches


def _overlaps(
    found: Sequence[DetectedInstance], others: Sequence[DetectedInstance], has_masks: bool
) -> np.ndarray:
    if has_masks:
        first, second = (
            [o.mask_rle for o in objects if o.mask_rle is not None] for objects in (found, others)
        )
        return rle.pairwise_iou(first, second)
    boxes = (
        np.stack([o.bbox for o in objects if o.bbox is not None]).astype(np.float32)
        for objects in (found, others)
    )
    return pairwise_iou(*(Boxes(torch.from_numpy(array)) for array in boxes)).numpy()
