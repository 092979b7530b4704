"""Small, medium and large objects as COCO tells them apart, and the area that decides it.

Areas are in square pixels of the original image; an object at a border counts on both sides of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from detectron2.structures import rle
from detectron2.structures.polygons import polygon_area


@dataclass(frozen=True)
class SizeRange:
    """Objects of one size.

    Attributes:
        name: what the evaluators call it.
        suffix: what the names of metrics end with, as in "APs".
        low, high: areas that belong to it, both ends included.
        bounds: the same for people.
    """

    name: str
    suffix: str
    low: float
    high: float
    bounds: str


ALL_SIZES = SizeRange("all", "", 0.0, 1e5**2, "of any area")
SMALL = SizeRange("small", "s", 0.0, 32.0**2, "below 32x32 pixels")
MEDIUM = SizeRange("medium", "m", 32.0**2, 96.0**2, "32x32 to 96x96 pixels")
LARGE = SizeRange("large", "l", 96.0**2, 1e5**2, "above 96x96 pixels")
SIZES = (SMALL, MEDIUM, LARGE)


def annotated_area(annotation: Mapping[str, Any]) -> float:
    """The "area" of an annotation of COCO's format; where it is missing, that of its mask, else of its box.

    Args:
        annotation: with "area", "segmentation" (polygons or run lengths) or "bbox" (XYWH or XYWHA).
    """
    if "area" in annotation:
        return float(annotation["area"])
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, Mapping):
        return float(rle.areas([segmentation])[0])
    if segmentation:
        corners = [np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in segmentation]
        return float(sum(polygon_area(points[:, 0], points[:, 1]) for points in corners))
    return float(annotation["bbox"][2] * annotation["bbox"][3])
