"""Masks in any of the forms that data sets and models use.

Shapes: H x W the image. A polygon is a flat array x0, y0, x1, y1, ... in pixels of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from detectron2.structures import rle
from detectron2.utils.user_errors import UserTypeError, UserValueError

LARGE_MASK_AREA_THRESH = 120000


class GenericMask:
    """One object's mask, given as polygons, run lengths or pixels, and turned into the others when asked."""

    def __init__(
        self, mask_or_polygons: Sequence[Any] | Mapping[str, Any] | np.ndarray, height: int, width: int
    ) -> None:
        """
        Args:
            mask_or_polygons: a list of polygons, COCO run lengths (compressed or not), or an (H, W) array.
        """
        self.height = height
        self.width = width
        self._mask: np.ndarray | None = None
        self._polygons: list[np.ndarray] | None = None
        self._has_holes: bool | None = None
        if isinstance(mask_or_polygons, Mapping):
            if rle.image_size(mask_or_polygons) != (height, width):
                raise UserValueError(
                    f"the run lengths are for {rle.image_size(mask_or_polygons)}, the image is "
                    f"{(height, width)} (height, width)"
                )
            self._mask = rle.decode(mask_or_polygons)
        elif isinstance(mask_or_polygons, np.ndarray) and mask_or_polygons.ndim == 2:
            if mask_or_polygons.shape != (height, width):
                raise UserValueError(
                    f"the mask is {mask_or_polygons.shape}, the image {(height, width)} (height, width)"
                )
            self._mask = (mask_or_polygons != 0).astype(np.uint8)
        elif isinstance(mask_or_polygons, (list, tuple)):
            self._polygons = [np.asarray(polygon).reshape(-1) for polygon in mask_or_polygons]
            self._has_holes = False  # polygons of COCO's format only add up
        else:
            raise UserTypeError(
                "a mask should be a list of polygons, run lengths, or a (height, width) array; "
                f"got {type(mask_or_polygons).__name__}"
            )

    @property
    def mask(self) -> np.ndarray:
        """(H, W) uint8, 0 or 1."""
        if self._mask is None:
            self._mask = self.polygons_to_mask(self._polygons or [])
        return self._mask

    @property
    def polygons(self) -> list[np.ndarray]:
        """The outlines, holes among them."""
        if self._polygons is None:
            self._polygons, self._has_holes = self.mask_to_polygons(self.mask)
        return self._polygons

    @property
    def has_holes(self) -> bool:
        """Whether the object has holes, which polygons of COCO's format cannot express."""
        if self._has_holes is None:
            self._polygons, self._has_holes = self.mask_to_polygons(self.mask)
        return self._has_holes

    def mask_to_polygons(self, mask: np.ndarray) -> tuple[list[np.ndarray], bool]:
        """Trace the outlines of a mask through the centres of its border pixels.

        Returns:
            Outlines of at least three points, and whether any surrounds a hole.
        """
        contours, hierarchy = _find_contours(mask)
        if hierarchy is None:
            return [], False
        parents = hierarchy.reshape(-1, 4)[:, 3]
        return [c.reshape(-1) + 0.5 for c in contours if len(c) >= 3], bool((parents >= 0).any())

    def polygons_to_mask(self, polygons: Sequence[Any]) -> np.ndarray:
        """Rasterise polygons as COCO does: (H, W) uint8."""
        usable = [polygon for polygon in polygons if len(polygon) >= 6]
        return rle.decode(rle.from_polygons(usable, self.height, self.width))

    def area(self) -> int:
        """Number of pixels."""
        return int(self.mask.sum())

    def bbox(self) -> np.ndarray:
        """(4,) XYXY, all zero for an empty mask."""
        return mask_extent(self.mask)


def mask_extent(mask: np.ndarray) -> np.ndarray:
    """(4,) XYXY box around the nonzero pixels of a mask, all zero for an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros(4)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64)


def innermost_point(mask: np.ndarray) -> tuple[float, float] | None:
    """The point (x, y) of a mask that is farthest from its border; None for an empty mask."""
    if not mask.any():
        return None
    left, top, right, bottom = mask_extent(mask).astype(int).tolist()
    padded = np.pad(mask[top:bottom, left:right].astype(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    return float(column) + left - 0.5, float(row) + top - 0.5


def label_spots(mask: np.ndarray) -> list[tuple[list[float], tuple[float, float]]]:
    """Where a mask may be labelled: the XYXY box and the innermost point of every large part of an (H, W)
    mask, or of its largest part where none is large.
    """
    _, parts, stats, _ = cv2.connectedComponentsWithStats((mask != 0).astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if not len(areas):
        return []
    chosen = {int(areas.argmax()), *np.flatnonzero(areas > LARGE_MASK_AREA_THRESH).tolist()}
    spots = []
    for part in sorted(chosen):
        left, top, width, height = stats[part + 1, :4].tolist()
        crop = parts[top : top + height, left : left + width] == part + 1
        point = innermost_point(crop)
        if point is not None:
            box = [float(left), float(top), float(left + width), float(top + height)]
            spots.append((box, (point[0] + left, point[1] + top)))
    return spots


def drop_small_parts(mask: np.ndarray, min_area: float) -> np.ndarray:
    """Leave out the connected parts of an (H, W) bool mask that have fewer pixels than `min_area`."""
    if min_area <= 1 or not mask.any():
        return mask
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    is_large = stats[:, cv2.CC_STAT_AREA] >= min_area
    is_large[0] = False  # what is outside the mask
    kept: np.ndarray = mask if is_large[1:].all() else is_large[parts]
    return kept


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Outlines of a mask, holes among them, as (P, 2) points through the centres of its border pixels."""
    return [contour.reshape(-1, 2) + 0.5 for contour in _find_contours(mask)[0]]


def _find_contours(mask: np.ndarray) -> tuple[Sequence[np.ndarray], np.ndarray | None]:
    pixels = np.ascontiguousarray(mask, dtype=np.uint8)
    contours, hierarchy = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return contours, hierarchy
