"""Which keypoints of an instance are shown, and which lines join them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detectron2.data.catalog import Metadata
from detectron2.visualization.colors import Color

_NECK_COLOR: Color = (1.0, 0.0, 0.0)
Point = tuple[float, float]


@dataclass(frozen=True)
class Limb:
    """A line between two points, in pixels of the picture."""

    start: Point
    stop: Point
    color: Color


def make_skeleton(
    keypoints: np.ndarray, metadata: Metadata, threshold: float
) -> tuple[list[Point], list[Limb]]:
    """Choose the visible keypoints of one instance and join them.

    Args:
        keypoints: (P, 3): x, y and score or visibility.
        metadata: its `keypoint_names` and `keypoint_connection_rules` decide on the lines.
        threshold: points of this score or less are hidden.

    Returns:
        The visible points, and lines between them. People also get a neck: from the nose to the middle of the
        shoulders and on to the middle of the hips.
    """
    names = metadata.get("keypoint_names") or []
    visible: dict[str | int, Point] = {}
    for index, (x, y, score) in enumerate(keypoints.tolist()):
        if score > threshold:
            visible[names[index] if index < len(names) else index] = (x, y)
    limbs = []
    for first, second, (red, green, blue) in metadata.get("keypoint_connection_rules") or []:
        if first in visible and second in visible:
            limbs.append(Limb(visible[first], visible[second], (red / 255, green / 255, blue / 255)))
    shoulders, hips = _middle(visible, "shoulder"), _middle(visible, "hip")
    nose = visible.get("nose")
    limbs += [
        Limb(a, shoulders, _NECK_COLOR) for a in (nose, hips) if a is not None and shoulders is not None
    ]
    return list(visible.values()), limbs


def _middle(visible: dict[str | int, Point], part: str) -> Point | None:
    left, right = visible.get(f"left_{part}"), visible.get(f"right_{part}")
    if left is None or right is None:
        return None
    return (left[0] + right[0]) / 2, (left[1] + right[1]) / 2
