"""Drawing one thing at a time: text, boxes, lines, masks.

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
    ColorLike,
    change_brightness,
    legible_on_dark,
    palette_color,
    parse_color,
)
from detectron2.visualization.labels import Box, keep_inside, place_label
from detectron2.visualization.masks import innermost_point, mask_extent
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
    """A picture and the primitives that draw on it."""

    def __init__(self, img_rgb: np.ndarray, scale: float = 1.0, font_size_scale: float = 1.0) -> None:
        """
        Args:
            img_rgb: (H, W, 3) RGB in [0, 255].
            scale: size of the output over the size of the picture.
            font_size_scale: makes the text larger or smaller than the picture's size suggests.
        """
        self.img = np.clip(np.asarray(img_rgb), 0, 255).astype(np.uint8)
        self.output = VisImage(self.img, scale=scale)
        side = math.sqrt(self.output.canvas_size[0] * self.output.canvas_size[1])
        self._default_font_size = min(max(side / 40, min(side / 28, 11), MIN_FONT_SIZE), 48) * font_size_scale
        self._line_width = max(1.0, side / 420)

    def get_output(self) -> VisImage:
        """The picture with everything drawn so far."""
        return self.output

    def draw_text(
        self,
        text: str,
        position: Sequence[float],
        *,
        font_size: float | None = None,
        color: ColorLike = "g",
        horizontal_alignment: str = "center",
        rotation: float = 0,
    ) -> VisImage:
        """Write a text on a dark box; it is moved where it would leave the picture.

        Args:
            position: the top of the text, at its centre or the side that `horizontal_alignment` names.
            font_size: in pixels of the output.
            horizontal_alignment: "left", "center" or "right".
            rotation: degrees, counter-clockwise.
        """
        shares = {"left": 0.0, "center": 0.5, "right": 1.0}
        if horizontal_alignment not in shares:
            raise UserValueError(
                f"horizontal_alignment should be one of {list(shares)}, got {horizontal_alignment!r}"
            )
        label = self._make_label(text, font_size, rotation)
        width, height = label.size
        x, y = self.output.to_canvas(np.asarray(position, dtype=np.float64)).tolist()
        left = x - shares[horizontal_alignment] * width
        box = keep_inside((left, y, left + width, y + height), self.output.canvas_size)
        self._write_label(label, box, color)
        return self.output

    def draw_label(
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
            self.output.to_canvas(np.asarray(target, dtype=np.float64).reshape(2, 2)).reshape(-1).tolist()
        )
        point = None
        if inner_point is not None:
            x, y = self.output.to_canvas(np.asarray(inner_point)).tolist()
            point = (x, y)
        height, width = self.output.canvas_size
        if font_size is None and corners[3] - corners[1] < _SMALL_OBJECT_HEIGHT * height:
            font_size = max(MIN_FONT_SIZE, 0.8 * self._default_font_size)
        visible = (max(corners[0], 0), max(corners[1], 0), min(corners[2], width), min(corners[3], height))
        label = self._make_label(text, font_size)
        box = place_label(label.size, visible, self.output.canvas_size, self.output.label_boxes, point)
        self._write_label(label, box, color)

    def _make_label(self, text: str, font_size: float | None, rotation: float = 0) -> _Label:
        size = font_size or self._default_font_size
        pad = max(1, round(0.2 * size))
        ink = np.pad(text_coverage(text, size), ((pad // 2, pad - pad // 2), (pad, pad)))
        plate = np.full(ink.shape, 255, dtype=np.uint8)
        return _Label(rotate_coverage(ink, rotation), rotate_coverage(plate, rotation), 2.0 * pad)

    def _write_label(self, label: _Label, box: Box, color: ColorLike) -> None:
        left, top = math.floor(box[0]), math.floor(box[1])
        box = (left, top, left + label.size[0], top + label.size[1])
        if label.plate.all():
            self.output.rounded_box(box, _LABEL_BACKGROUND, _LABEL_OPACITY, label.corner_radius)
        else:
            self.output.blend(label.plate, (left, top), _LABEL_BACKGROUND, _LABEL_OPACITY)
        self.output.blend(label.ink, (left, top), legible_on_dark(color), 1.0)
        self.output.label_boxes.append(box)

    def draw_box(
        self,
        box_coord: Sequence[float],
        alpha: float = 0.5,
        edge_color: ColorLike = "g",
        line_style: str = "-",
    ) -> VisImage:
        """Draw the outline of an XYXY box.

        Args:
            alpha: opacity of the line.
            line_style: "-", "--", ":" or "-.".
        """
        x0, y0, x1, y1 = (float(value) for value in box_coord)
        corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
        return self._outline(corners, alpha, edge_color, line_style)

    def draw_rotated_box_with_label(
        self,
        rotated_box: Sequence[float],
        alpha: float = 0.5,
        edge_color: ColorLike = "g",
        line_style: str = "-",
        label: str | None = None,
    ) -> VisImage:
        """Draw a rotated box, its upper edge dashed, and its label.

        Args:
            rotated_box: centre x, centre y, width, height, and the angle in degrees, counter-clockwise.
        """
        cx, cy, width, height, angle = (float(value) for value in rotated_box)
        theta = math.radians(angle)
        turn = np.array([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])
        half = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2
        corners = half @ turn + (cx, cy)  # y points down, hence the transposed rotation
        if not np.isfinite(corners).all():
            return self.output
        thin = self._line_width if width * height >= SMALL_OBJECT_AREA_THRESH * self.output.scale else 1.0
        color = parse_color(edge_color)
        self.output.stroke(corners[[1, 2, 3, 0]], color, width=thin, alpha=alpha, line_style=line_style)
        self.output.stroke(corners[[0, 1]], color, width=thin, alpha=alpha, line_style="--")
        if label is not None:
            size = height * self.output.scale / 8
            font_size = min(max(size, self._default_font_size), 1.5 * self._default_font_size)
            upright = angle % 180 - 180 * (angle % 180 > 90)
            self.draw_text(
                label, corners[0].tolist(), font_size=font_size, color=edge_color, rotation=upright
            )
        return self.output

    def draw_circle(self, circle_coord: Sequence[float], color: ColorLike, radius: float = 3) -> VisImage:
        """Draw a filled circle.

        Args:
            circle_coord: its centre.
            radius: in pixels of the output.
        """
        self.output.disc(circle_coord, radius, parse_color(color))
        return self.output

    def draw_line(
        self,
        x_data: Sequence[float],
        y_data: Sequence[float],
        color: ColorLike,
        linestyle: str = "-",
        linewidth: float | None = None,
    ) -> VisImage:
        """Draw a line through points.

        Args:
            x_data, y_data: the points' coordinates.
            linewidth: in pixels of the output.
        """
        points = np.stack(
            [np.asarray(x_data, dtype=np.float64), np.asarray(y_data, dtype=np.float64)], axis=1
        )
        width = linewidth if linewidth is not None else self._line_width
        self.output.stroke(points, parse_color(color), width=width, line_style=linestyle)
        return self.output

    def draw_binary_mask(
        self,
        binary_mask: np.ndarray,
        color: ColorLike | None = None,
        *,
        edge_color: ColorLike | None = None,
        text: str | None = None,
        alpha: float = 0.5,
        area_threshold: float | None = 10,
    ) -> VisImage:
        """Tint a mask, outline it, and write a text into it.

        Args:
            binary_mask: (H, W), nonzero inside.
            color: None takes one of the palette.
            edge_color: of the outline; None takes a darker shade of the colour.
            alpha: opacity of the tint.
            area_threshold: masks of fewer pixels are not drawn.
        """
        color = parse_color(color) if color is not None else self._next_color()
        mask = np.asarray(binary_mask) != 0
        if not mask.any() or mask.sum() < (area_threshold or 0):
            return self.output
        self.output.fill_mask(mask, color, alpha)
        edge = parse_color(edge_color) if edge_color is not None else change_brightness(color, -0.35)
        for contour in _contours(mask):
            self.output.stroke(contour, edge, width=max(1.0, self._line_width / 2), alpha=0.85, closed=True)
        if text:
            self.draw_text_in_mask(mask, text, color)
        return self.output

    def draw_soft_mask(
        self,
        soft_mask: np.ndarray,
        color: ColorLike | None = None,
        *,
        text: str | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Tint a picture by a mask of opacities.

        Args:
            soft_mask: (H, W) in [0, 1].
            alpha: opacity where the mask is 1.
        """
        color = parse_color(color) if color is not None else self._next_color()
        opacity = np.clip(np.asarray(soft_mask, dtype=np.float32), 0, 1)
        self.output.fill_mask(opacity, color, alpha)
        if text:
            self.draw_text_in_mask(opacity > 0.5, text, color)
        return self.output

    def draw_polygon(
        self,
        segment: np.ndarray | Sequence[Sequence[float]],
        color: ColorLike,
        edge_color: ColorLike | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Fill and outline a polygon.

        Args:
            segment: (P, 2) points.
            edge_color: None takes the colour, darkened where it is nearly opaque.
            alpha: opacity of the filling.
        """
        points = np.asarray(segment, dtype=np.float64).reshape(-1, 2)
        fill = parse_color(color)
        if edge_color is not None:
            edge = parse_color(edge_color)
        else:
            edge = change_brightness(fill, -0.6) if alpha > 0.8 else fill
        self.output.fill_polygons([points], fill, alpha)
        self.output.stroke(points, edge, width=max(1.0, self._line_width / 2), closed=True)
        return self.output

    def _outline(self, corners: np.ndarray, alpha: float, color: ColorLike, line_style: str) -> VisImage:
        if np.isfinite(corners).all():
            self.output.stroke(
                corners,
                parse_color(color),
                width=self._line_width,
                alpha=alpha,
                closed=True,
                line_style=line_style,
            )
        return self.output

    def draw_text_in_mask(self, mask: np.ndarray, text: str, color: ColorLike) -> None:
        """Label every large part of a mask, or its largest part where none is large."""
        _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        areas = stats[1:, cv2.CC_STAT_AREA]
        if not len(areas):
            return
        chosen = {int(areas.argmax()), *np.flatnonzero(areas > LARGE_MASK_AREA_THRESH).tolist()}
        for index in sorted(chosen):
            part = parts == index + 1
            self.draw_label(text, mask_extent(part).tolist(), color, inner_point=innermost_point(part))

    def _next_color(self) -> tuple[float, float, float]:
        """Successive colours of the palette: pictures come out the same on every run."""
        self._num_colors_used = getattr(self, "_num_colors_used", -1) + 1
        return palette_color(self._num_colors_used)


def _contours(mask: np.ndarray) -> list[np.ndarray]:
    """Outlines of a mask, holes among them, as (P, 2) points through the centres of its border pixels."""
    found, _ = cv2.findContours(
        np.ascontiguousarray(mask, dtype=np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    return [contour.reshape(-1, 2) + 0.5 for contour in found]
