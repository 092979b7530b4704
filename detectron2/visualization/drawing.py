"""The public drawing of one thing at a time: text, boxes, lines, masks.

Coordinates are XY in pixels of the picture; colours are anything that `colors.parse_color` reads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from detectron2.visualization.canvas import VisImage
from detectron2.visualization.colors import ColorLike, parse_color
from detectron2.visualization.masks import innermost_point, mask_extent
from detectron2.visualization.painter import Painter, large_parts


class Drawing:
    """A picture and methods that draw on it, each of which a subclass may replace for all the others.

    Attributes:
        painter: what decides how things look.
    """

    def __init__(self, img_rgb: np.ndarray, scale: float = 1.0, font_size_scale: float = 1.0) -> None:
        """
        Args:
            img_rgb: (H, W, 3) RGB in [0, 255].
            scale: size of the output over the size of the picture.
            font_size_scale: makes the text larger or smaller than the picture's size suggests.
        """
        self.painter = Painter(img_rgb, scale, font_size_scale)

    @property
    def img(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, the picture as it was given."""
        return self.painter.picture

    @img.setter
    def img(self, picture: np.ndarray) -> None:
        self.painter.picture = picture

    @property
    def output(self) -> VisImage:
        """The picture with everything drawn so far."""
        return self.painter.canvas

    @output.setter
    def output(self, canvas: VisImage) -> None:
        self.painter.canvas = canvas

    # Projects read and set this one.
    @property
    def _default_font_size(self) -> float:
        return self.painter.font_size

    @_default_font_size.setter
    def _default_font_size(self, size: float) -> None:
        self.painter.font_size = size

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
        self.painter.text(text, position, horizontal_alignment, color, font_size, rotation)
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
        self.painter.label(text, target, color, font_size=font_size, inner_point=inner_point)

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
        self.painter.outline(corners, edge_color, alpha, line_style)
        return self.output

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
        self.painter.rotated_box(corners, width * height, edge_color, alpha, line_style)
        if label is not None:
            usual = self.painter.font_size
            font_size = min(max(height * self.output.scale / 8, usual), 1.5 * usual)
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
        self.painter.line(points, color, linestyle, linewidth)
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
        color = parse_color(color) if color is not None else self.painter.next_color()
        mask = np.asarray(binary_mask) != 0
        if not mask.any() or mask.sum() < (area_threshold or 0):
            return self.output
        self.painter.mask(mask, color, edge_color, alpha)
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
        color = parse_color(color) if color is not None else self.painter.next_color()
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
        self.painter.polygon(points, color, edge_color, alpha)
        return self.output

    def draw_text_in_mask(self, mask: np.ndarray, text: str, color: ColorLike) -> None:
        """Label every large part of a mask, or its largest part where none is large."""
        for part in large_parts(mask):
            self.draw_label(text, mask_extent(part).tolist(), color, inner_point=innermost_point(part))
