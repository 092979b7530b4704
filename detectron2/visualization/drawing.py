"""The public drawing of one thing at a time: text, boxes, lines, masks.

Coordinates are XY in pixels of the picture; colours are anything that `colors.parse_color` reads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from detectron2.visualization.canvas import VisImage
from detectron2.visualization.colors import Color, ColorLike, change_brightness, palette_color, parse_color
from detectron2.visualization.lettering import (
    find_label_place,
    label_font_size,
    usual_font_size,
    write_text,
)
from detectron2.visualization.masks import drop_small_parts, label_spots, outlines

SMALL_OBJECT_AREA_THRESH = 1000
OFF_WHITE = (1.0, 1.0, 240.0 / 255)
BLACK = (0.0, 0.0, 0.0)
RED = (1.0, 0.0, 0.0)

_TEXT_BRIGHTNESS = 0.7


class Drawing:
    """A picture and methods that draw on it, each of which a subclass may replace for all the others.

    Attributes:
        img: (H, W, 3) uint8 RGB, the picture as it was given.
        output: the picture with everything drawn so far.
        line_width: in pixels of the output.
    """

    def __init__(self, img_rgb: np.ndarray, scale: float = 1.0, font_size_scale: float = 1.0) -> None:
        """
        Args:
            img_rgb: (H, W, 3) RGB in [0, 255].
            scale: size of the output over the size of the picture.
            font_size_scale: makes the text larger or smaller than the picture's size suggests.
        """
        self.img: np.ndarray = np.clip(np.asarray(img_rgb), 0, 255).astype(np.uint8)
        self.output = VisImage(self.img, scale=scale)
        self.line_width = max(1.0, math.sqrt(self.output.canvas_size[0] * self.output.canvas_size[1]) / 420)
        self._default_font_size = usual_font_size(self.output) * font_size_scale  # projects set this one
        self._num_colors_used = 0

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
        write_text(
            self.output,
            text,
            position,
            font_size=font_size or self._default_font_size,
            color=color,
            alignment=horizontal_alignment,
            rotation=rotation,
        )
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
        """Write the label of an object, by `draw_text`, where it hides neither the object nor another label.

        Args:
            target: the object's XYXY box.
            inner_point: the preferred middle of the label; without it, a corner of the box.
        """
        if not text or not np.isfinite(np.asarray(target, dtype=np.float64)).all():
            return
        size = font_size or label_font_size(self.output, target, self._default_font_size)
        place = find_label_place(self.output, text, target, size, inner_point)
        self.draw_text(text, place, font_size=size, color=color, horizontal_alignment="left")

    def draw_box(
        self,
        box_coord: Sequence[float],
        alpha: float = 0.5,
        edge_color: ColorLike = "g",
        line_style: str = "-",
    ) -> VisImage:
        """Draw the outline of an XYXY box, unless a number in it is not finite.

        Args:
            alpha: opacity of the line.
            line_style: "-", "--", ":" or "-.".
        """
        x0, y0, x1, y1 = (float(value) for value in box_coord)
        corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
        if np.isfinite(corners).all():
            color = parse_color(edge_color)
            self.output.stroke(
                corners, color, width=self.line_width, alpha=alpha, closed=True, line_style=line_style
            )
        return self.output

    def draw_rotated_box_with_label(
        self,
        rotated_box: Sequence[float],
        alpha: float = 0.5,
        edge_color: ColorLike = "g",
        line_style: str = "-",
        label: str | None = None,
    ) -> VisImage:
        """Draw a rotated box, its upper edge dashed, and its label. The lines of small ones are thin.

        Args:
            rotated_box: centre x, centre y, width, height, and the angle in degrees, counter-clockwise.
            alpha: opacity of the lines.
            line_style: of three edges.
        """
        cx, cy, width, height, angle = (float(value) for value in rotated_box)
        theta = math.radians(angle)
        turn = np.array([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])
        half = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2
        corners = half @ turn + (cx, cy)  # y points down, hence the transposed rotation
        if not np.isfinite(corners).all():
            return self.output
        is_small = width * height < SMALL_OBJECT_AREA_THRESH * self.output.scale
        line = 1.0 if is_small else self.line_width
        for path, style in ((corners[[1, 2, 3, 0]], line_style), (corners[[0, 1]], "--")):
            self.draw_line(path[:, 0], path[:, 1], edge_color, style, line, alpha=alpha)
        if label is not None:
            usual = self._default_font_size
            font_size = min(max(height * self.output.scale / 8, usual), 1.5 * usual)
            upright = angle % 180 - 180 * (angle % 180 > 90)
            color = self._change_color_brightness(edge_color, _TEXT_BRIGHTNESS)
            self.draw_text(label, corners[0].tolist(), font_size=font_size, color=color, rotation=upright)
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
        x_data: Sequence[float] | np.ndarray,
        y_data: Sequence[float] | np.ndarray,
        color: ColorLike,
        linestyle: str = "-",
        linewidth: float | None = None,
        *,
        alpha: float = 1.0,
    ) -> VisImage:
        """Draw a line through points.

        Args:
            x_data, y_data: the points' coordinates.
            linewidth: in pixels of the output.
            alpha: opacity.
        """
        points = np.stack(
            [np.asarray(x_data, dtype=np.float64), np.asarray(y_data, dtype=np.float64)], axis=1
        )
        width = self.line_width if linewidth is None else linewidth
        self.output.stroke(points, parse_color(color), width=width, alpha=alpha, line_style=linestyle)
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
            area_threshold: connected parts of fewer pixels are not drawn.
        """
        color = parse_color(color) if color is not None else self._next_color()
        mask = drop_small_parts(np.asarray(binary_mask) != 0, area_threshold or 0)
        if not mask.any():
            return self.output
        self.output.fill_mask(mask, color, alpha)
        edge = parse_color(
            edge_color if edge_color is not None else self._change_color_brightness(color, -0.35)
        )
        for outline in outlines(mask):
            self.output.stroke(outline, edge, width=max(1.0, self.line_width / 2), alpha=0.85, closed=True)
        if text:
            self._draw_text_in_mask(mask, text, self._change_color_brightness(color, _TEXT_BRIGHTNESS))
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
            lighter = self._change_color_brightness(color, _TEXT_BRIGHTNESS)
            self._draw_text_in_mask(opacity > 0.5, text, lighter)
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
        if edge_color is None:
            edge_color = self._change_color_brightness(color, -0.6) if alpha > 0.8 else color
        self.output.fill_polygons([points], parse_color(color), alpha)
        self.output.stroke(points, parse_color(edge_color), width=max(1.0, self.line_width / 2), closed=True)
        return self.output

    def _draw_text_in_mask(self, binary_mask: np.ndarray, text: str, color: ColorLike) -> None:
        """Label every large part of a mask, or its largest part where none is large."""
        for box, point in label_spots(binary_mask):
            self.draw_label(text, box, color, inner_point=point)

    def _change_color_brightness(self, color: ColorLike, brightness_factor: float) -> Color:
        """The lighter or darker colour of labels and outlines: `brightness_factor` in [-1, 1], 0 changes
        nothing.
        """
        return change_brightness(color, brightness_factor)

    def _next_color(self) -> Color:
        """Successive colours of the palette: pictures come out the same on every run."""
        self._num_colors_used += 1
        return palette_color(self._num_colors_used - 1)
