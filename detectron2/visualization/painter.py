"""How things look on a picture: sizes of letters and lines, labels on their plates, masks and outlines.

Coordinates are XY in pixels of the picture; colours are anything that `colors.parse_color` reads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from detectron2.utils.user_errors import UserValueError
from detectron2.visualization.canvas import VisImage
from detectron2.visualization.colors import (
    Color,
    ColorLike,
    change_brightness,
    legible_on_dark,
    palette_color,
    parse_color,
)
from detectron2.visualization.labels import Box, keep_inside, place_label
from detectron2.visualization.text import MIN_FONT_SIZE, rotate_coverage, text_coverage

SMALL_OBJECT_AREA_THRESH = 1000
LARGE_MASK_AREA_THRESH = 120000
OFF_WHITE = (1.0, 1.0, 240.0 / 255)
BLACK = (0.0, 0.0, 0.0)
RED = (1.0, 0.0, 0.0)

_SMALL_OBJECT_HEIGHT = 0.08
"""Objects below this share of the picture's height get smaller labels."""

_LABEL_BACKGROUND = (0.07, 0.07, 0.09)
_LABEL_OPACITY = 0.72


@dataclass(frozen=True)
class _Label:
    """A text ready to be drawn: (h, w) coverage of its letters and of the plate below them."""

    ink: np.ndarray
    plate: np.ndarray
    corner_radius: float

    @property
    def size(self) -> tuple[float, float]:
        """(width, height)."""
        return float(self.ink.shape[1]), float(self.ink.shape[0])


class Painter:
    """A picture, the style of what is drawn on it, and the palette's place.

    Attributes:
        picture: (H, W, 3) uint8 RGB, as it was given.
        canvas: what is drawn on.
        font_size: in pixels of the output.
        line_width: in pixels of the output.
    """

    def __init__(self, img_rgb: np.ndarray, scale: float = 1.0, font_size_scale: float = 1.0) -> None:
        """
        Args:
            img_rgb: (H, W, 3) RGB in [0, 255].
            scale: size of the output over the size of the picture.
            font_size_scale: makes the text larger or smaller than the picture's size suggests.
        """
        self.picture: np.ndarray = np.clip(np.asarray(img_rgb), 0, 255).astype(np.uint8)
        self.canvas = VisImage(self.picture, scale=scale)
        side = math.sqrt(self.canvas.canvas_size[0] * self.canvas.canvas_size[1])
        self.font_size = min(max(side / 40, min(side / 28, 11), MIN_FONT_SIZE), 48) * font_size_scale
        self.line_width = max(1.0, side / 420)
        self._num_colors_used = 0

    def text(
        self,
        text: str,
        position: Sequence[float],
        alignment: str,
        color: ColorLike,
        font_size: float | None,
        rotation: float,
    ) -> None:
        """Write a text on a dark plate; it is moved where it would leave the picture.

        Args:
            text: what to write.
            position: the top of the text, at its centre or the side that `alignment` names.
            alignment: "left", "center" or "right".
            color: of the letters, made light enough for the plate.
            font_size: in pixels of the output; None takes the picture's.
            rotation: degrees, counter-clockwise.
        """
        shares = {"left": 0.0, "center": 0.5, "right": 1.0}
        if alignment not in shares:
            raise UserValueError(f"horizontal_alignment should be one of {list(shares)}, got {alignment!r}")
        label = self._make_label(text, font_size, rotation)
        width, height = label.size
        x, y = self.canvas.to_canvas(np.asarray(position, dtype=np.float64)).tolist()
        left = x - shares[alignment] * width
        box = keep_inside((left, y, left + width, y + height), self.canvas.canvas_size)
        self._write_label(label, box, color)

    def label(
        self,
        text: str,
        target: Sequence[float],
        color: ColorLike,
        *,
        font_size: float | None = None,
        inner_point: tuple[float, float] | None = None,
    ) -> None:
        """Write the label of an object where it hides neither the object nor another label.

        Args:
            target: the object's XYXY box.
            inner_point: the preferred middle of the label; without it, a corner of the box.
        """
        if not text or not np.isfinite(np.asarray(target, dtype=np.float64)).all():
            return
        corners = (
            self.canvas.to_canvas(np.asarray(target, dtype=np.float64).reshape(2, 2)).reshape(-1).tolist()
        )
        point = None
        if inner_point is not None:
            x, y = self.canvas.to_canvas(np.asarray(inner_point)).tolist()
            point = (x, y)
        height, width = self.canvas.canvas_size
        if font_size is None and corners[3] - corners[1] < _SMALL_OBJECT_HEIGHT * height:
            font_size = max(MIN_FONT_SIZE, 0.8 * self.font_size)
        visible = (max(corners[0], 0), max(corners[1], 0), min(corners[2], width), min(corners[3], height))
        label = self._make_label(text, font_size)
        box = place_label(label.size, visible, self.canvas.canvas_size, self.canvas.label_boxes, point)
        self._write_label(label, box, color)

    def _make_label(self, text: str, font_size: float | None, rotation: float = 0) -> _Label:
        size = font_size or self.font_size
        pad = max(1, round(0.2 * size))
        ink = np.pad(text_coverage(text, size), ((pad // 2, pad - pad // 2), (pad, pad)))
        plate = np.full(ink.shape, 255, dtype=np.uint8)
        return _Label(rotate_coverage(ink, rotation), rotate_coverage(plate, rotation), 2.0 * pad)

    def _write_label(self, label: _Label, box: Box, color: ColorLike) -> None:
        left, top = math.floor(box[0]), math.floor(box[1])
        box = (left, top, left + label.size[0], top + label.size[1])
        if label.plate.all():
            self.canvas.rounded_box(box, _LABEL_BACKGROUND, _LABEL_OPACITY, label.corner_radius)
        else:
            self.canvas.blend(label.plate, (left, top), _LABEL_BACKGROUND, _LABEL_OPACITY)
        self.canvas.blend(label.ink, (left, top), legible_on_dark(color), 1.0)
        self.canvas.label_boxes.append(box)

    def outline(self, corners: np.ndarray, color: ColorLike, alpha: float, line_style: str) -> None:
        """Draw a closed line through (P, 2) corners, unless one of them is not finite."""
        if np.isfinite(corners).all():
            self.canvas.stroke(
                corners,
                parse_color(color),
                width=self.line_width,
                alpha=alpha,
                closed=True,
                line_style=line_style,
            )

    def rotated_box(
        self, corners: np.ndarray, area: float, color: ColorLike, alpha: float, line_style: str
    ) -> None:
        """Draw a rotated box, its upper edge dashed.

        Args:
            corners: (4, 2), upper left, upper right, lower right, lower left of the upright box.
            area: its area; the lines of small ones are thin.
            color: of the lines.
            alpha: opacity of the lines.
            line_style: of three edges.
        """
        thin = self.line_width if area >= SMALL_OBJECT_AREA_THRESH * self.canvas.scale else 1.0
        edge = parse_color(color)
        self.canvas.stroke(corners[[1, 2, 3, 0]], edge, width=thin, alpha=alpha, line_style=line_style)
        self.canvas.stroke(corners[[0, 1]], edge, width=thin, alpha=alpha, line_style="--")

    def line(self, points: np.ndarray, color: ColorLike, line_style: str, width: float | None) -> None:
        """Draw a line through (P, 2) points."""
        width = self.line_width if width is None else width
        self.canvas.stroke(points, parse_color(color), width=width, line_style=line_style)

    def mask(self, mask: np.ndarray, color: Color, edge_color: ColorLike | None, alpha: float) -> None:
        """Tint and outline an (H, W) mask; without an edge's colour a darker shade is taken."""
        self.canvas.fill_mask(mask, color, alpha)
        edge = parse_color(edge_color) if edge_color is not None else change_brightness(color, -0.35)
        for contour in _contours(mask):
            self.canvas.stroke(contour, edge, width=max(1.0, self.line_width / 2), alpha=0.85, closed=True)

    def polygon(
        self, points: np.ndarray, color: ColorLike, edge_color: ColorLike | None, alpha: float
    ) -> None:
        """Fill and outline a polygon of (P, 2) points."""
        fill = parse_color(color)
        if edge_color is not None:
            edge = parse_color(edge_color)
        else:
            edge = change_brightness(fill, -0.6) if alpha > 0.8 else fill
        self.canvas.fill_polygons([points], fill, alpha)
        self.canvas.stroke(points, edge, width=max(1.0, self.line_width / 2), closed=True)

    def next_color(self) -> Color:
        """Successive colours of the palette: pictures come out the same on every run."""
        self._num_colors_used += 1
        return palette_color(self._num_colors_used - 1)


def large_parts(mask: np.ndarray) -> list[np.ndarray]:
    """Every large part of an (H, W) mask as a mask, or its largest part where none is large."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if not len(areas):
        return []
    chosen = {int(areas.argmax()), *np.flatnonzero(areas > LARGE_MASK_AREA_THRESH).tolist()}
    return [parts == index + 1 for index in sorted(chosen)]


def _contours(mask: np.ndarray) -> list[np.ndarray]:
    """Outlines of a mask, holes among them, as (P, 2) points through the centres of its border pixels."""
    found, _ = cv2.findContours(
        np.ascontiguousarray(mask, dtype=np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    return [contour.reshape(-1, 2) + 0.5 for contour in found]
