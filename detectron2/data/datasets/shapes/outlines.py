"""Outlines of the thing classes of the embedded data set, and their antialiased masks.

Outlines are polygons in unit coordinates: x right, y down, roughly inside the circle of radius 1. Masks are
float32 coverage in [0, 1] on a small pixel patch that just holds the thing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]

_SUPERSAMPLING = 4  # patch pixels are averages of 4x4 samples
_SUBPIXEL_BITS = 6  # fixed-point digits handed to the polygon filler
_PATCH_MARGIN = 2


@dataclass(frozen=True)
class Pose:
    """How a thing is put on the image.

    Attributes:
        size: longer side of its upright bounding box, in pixels.
        angle: rotation in radians.
        stretch: width over height before the rotation.
    """

    size: float
    angle: float
    stretch: float = 1.0


def _arc(radius: float, start: float, stop: float, num_points: int = 48) -> NDArray[np.float64]:
    angles = np.linspace(start, stop, num_points)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _regular(num_corners: int, radii: tuple[float, ...]) -> NDArray[np.float64]:
    """Corners at equal angles from the top, with radii that repeat."""
    angles = 2 * np.pi * np.arange(num_corners) / num_corners - np.pi / 2
    radius = np.resize(radii, num_corners)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _disc() -> list[NDArray[np.float64]]:
    return [_arc(1.0, 0.0, 2 * np.pi)]


def _ring() -> list[NDArray[np.float64]]:
    return [_arc(1.0, 0.0, 2 * np.pi), _arc(0.52, 0.0, 2 * np.pi)]


def _square() -> list[NDArray[np.float64]]:
    return [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float64)]


def _triangle() -> list[NDArray[np.float64]]:
    return [_regular(3, (1.0,))]


def _star() -> list[NDArray[np.float64]]:
    return [_regular(10, (1.0, 0.42))]


def _cross() -> list[NDArray[np.float64]]:
    arm = 0.32
    quarter = np.array([[arm, -1], [arm, -arm], [1, -arm]])
    turn = np.array([[0, 1], [-1, 0]])  # (x, y) @ turn is a quarter turn
    corners = [quarter]
    for _ in range(3):
        corners.append(corners[-1] @ turn)
    return [np.concatenate(corners)]


def _heart() -> list[NDArray[np.float64]]:
    t = np.linspace(0, 2 * np.pi, 64)
    x = np.sin(t) ** 3
    y = -(0.82 * np.cos(t) - 0.32 * np.cos(2 * t) - 0.13 * np.cos(3 * t) - 0.06 * np.cos(4 * t))
    return [np.stack([x, y], axis=1)]


def _crescent() -> list[NDArray[np.float64]]:
    tip = np.deg2rad(58.0)  # where the two arcs meet, measured from the open side
    outer = _arc(1.0, tip, 2 * np.pi - tip)
    # The inner arc passes through both tips and is centred towards the open side.
    centre = 0.5
    inner_radius = float(np.hypot(np.cos(tip) - centre, np.sin(tip)))
    inner_start = float(np.arctan2(np.sin(tip), np.cos(tip) - centre))
    inner = _arc(inner_radius, 2 * np.pi - inner_start, inner_start) + [centre, 0.0]
    return [np.concatenate([outer, inner])]


OUTLINES: dict[str, Callable[[], list[NDArray[np.float64]]]] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "heart": _heart,
    "crescent": _crescent,
}


def clutter_outline(rng: Generator) -> list[NDArray[np.float64]]:
    """A shape that belongs to no class: a stick or an irregular splinter."""
    if rng.random() < 0.5:
        half_width = rng.uniform(0.08, 0.2)
        return [np.array([[-1, -half_width], [1, -half_width], [1, half_width], [-1, half_width]])]
    num_corners = int(rng.integers(5, 9))
    angles = np.sort(rng.uniform(0, 2 * np.pi, num_corners))
    radius = rng.uniform(0.25, 1.0, num_corners)
    return [np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)]


def coverage_patch(outline: list[NDArray[np.float64]], pose: Pose) -> FloatArray:
    """Rasterise one thing, antialiased.

    Args:
        outline: closed polygons, each (points, 2) as x, y in unit coordinates; a second one inside the first
        is a hole. pose: size, rotation and stretch.

    Returns:
        (h, w) share of each pixel that the thing covers, with an empty margin around it.
    """
    cos, sin = np.cos(pose.angle), np.sin(pose.angle)
    rotation = np.array([[cos, sin], [-sin, cos]])
    stretch = np.array([np.sqrt(pose.stretch), 1 / np.sqrt(pose.stretch)])
    polygons = [(polygon * stretch) @ rotation for polygon in outline]
    corners = np.concatenate(polygons)
    low, high = corners.min(axis=0), corners.max(axis=0)
    scale = pose.size / float((high - low).max())
    width, height = (np.ceil((high - low) * scale).astype(int) + 2 * _PATCH_MARGIN).tolist()
    middle = np.array([width, height]) / 2
    fixed_point = _SUPERSAMPLING << _SUBPIXEL_BITS
    contours = [
        np.rint(((polygon - (low + high) / 2) * scale + middle) * fixed_point).astype(np.int32)
        for polygon in polygons
    ]
    samples = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING), dtype=np.uint8)
    # Several contours are filled by the even-odd rule: that makes the hole of the ring.
    cv2.fillPoly(samples, contours, 255, shift=_SUBPIXEL_BITS)
    blocks = samples.reshape(height, _SUPERSAMPLING, width, _SUPERSAMPLING)
    coverage: FloatArray = blocks.mean(axis=(1, 3), dtype=np.float32) / np.float32(255)
    return coverage
