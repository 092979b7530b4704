"""Polygons cut by a window, by plain arithmetic. Points are (x, y) in pixels."""

from __future__ import annotations

import numpy as np


def clip_polygon(polygon: np.ndarray, x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """Cut a polygon by the four sides of a window, one after the other (Sutherland-Hodgman).

    Args:
        polygon: (N, 2) corners.
        x0, y0, x1, y1: the window.

    Returns:
        (M, 2) float64 corners; none where nothing is left. What the window cuts in several pieces stays one
        polygon, whose pieces are joined by edges on the window's border.
    """
    points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    for axis, sign, bound in ((0, 1, x0), (0, -1, x1), (1, 1, y0), (1, -1, y1)):
        depth = sign * (points[:, axis] - bound)  # >= 0 inside
        if len(points) == 0 or (depth >= 0).all():
            continue
        following, next_depth = np.roll(points, -1, axis=0), np.roll(depth, -1)
        crosses = (depth >= 0) != (next_depth >= 0)
        share = np.divide(depth, depth - next_depth, out=np.zeros_like(depth), where=crosses)
        crossing = points + share[:, None] * (following - points)
        crossing[:, axis] = bound
        # Every kept corner is followed by the point where its edge leaves or enters the window.
        both = np.stack([points, crossing], axis=1).reshape(-1, 2)
        points = both[np.stack([depth >= 0, crosses], axis=1).reshape(-1)]
    return points


def has_area(polygon: np.ndarray) -> bool:
    """Tell whether the (N, 2) corners of a polygon do not all lie on one line."""
    x, y = polygon.T
    return bool(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) > 0)
