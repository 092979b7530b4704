"""Polygons of one object, and how they are rasterised.

Shapes: H x W pixels of the image, S x S pixels of a mask inside a box. A polygon is a float64 array
[x0, y0, x1, y1, ...] in pixels of the image, where the corner of pixel (0, 0) is (0, 0); boxes are XYXY in
the same frame. Rasterisation is that of the COCO API, bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detectron2.utils.user_errors import UserTypeError, UserValueError

from . import rle


def polygon_area(x: np.ndarray, y: np.ndarray) -> float:
    """Return the area of a polygon, given the x and the y of its corners (shoelace formula)."""
    doubled: float = np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))
    return 0.5 * abs(doubled)


def polygons_to_bitmask(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Rasterise the union of polygons.

    Args:
        polygons: float arrays [x0, y0, x1, y1, ...]; none at all make an empty mask.
        height: H.
        width: W.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: a polygon has fewer than three points.
    """
    if not polygons:
        return np.zeros((height, width), dtype=bool)
    return rle.decode(rle.from_polygons(polygons, height, width)).astype(bool)


def rasterize_polygons_within_box(polygons: list[np.ndarray], box: np.ndarray, mask_size: int) -> Tensor:
    """Rasterise polygons into a square bitmap that spans a box.

    Args:
        polygons: float arrays [x0, y0, x1, y1, ...].
        box: (4,).
        mask_size: S.

    Returns:
        (S, S) bool.
    """
    start = np.asarray(box[:2])
    size = np.maximum(np.asarray(box[2:]) - start, 0.1)  # a box without extent must not divide by 0
    # In the precision of the box: training targets are reproducible to the bit.
    scale = mask_size / size
    moved = [((polygon.reshape(-1, 2) - start) * scale).reshape(-1) for polygon in polygons]
    return torch.from_numpy(polygons_to_bitmask(moved, mask_size, mask_size))


def as_polygons(polygons: Any, instance: int) -> list[np.ndarray]:
    """Check the polygons of one instance.

    Args:
        polygons: flat arrays, tensors or lists of numbers.
        instance: its position, for the error.

    Returns:
        Float64 arrays [x0, y0, x1, y1, ...].

    Raises:
        TypeError: it is no list.
        ValueError: a polygon has fewer than 3 corners, or an odd number of numbers.
    """
    if not isinstance(polygons, (list, tuple)):
        raise UserTypeError(
            f"expected a list of polygons per instance, got {type(polygons).__name__} for instance {instance}"
        )
    arrays = []
    for index, polygon in enumerate(polygons):
        array = np.asarray(polygon.cpu() if isinstance(polygon, Tensor) else polygon, dtype=np.float64)
        if array.ndim != 1 or array.size < 6 or array.size % 2:
            raise UserValueError(
                f"polygon {index} of instance {instance} has {array.size} numbers in shape {array.shape}; "
                "expected a flat list x0, y0, x1, y1, ... with at least 3 corners"
            )
        arrays.append(array)
    return arrays
