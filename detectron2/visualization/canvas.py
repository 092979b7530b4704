"""The picture that is drawn on, and how ink gets there.

Frames: "image" is the picture's own frame, in which pixel (i, j) covers [j, j+1) x [i, i+1); callers draw in
it. "Canvas" is the output, larger or smaller by the scale factor. Points are (P, 2) arrays of x, y. Colours
are RGB in [0, 1]. Coverage is uint8, 255 where ink covers a pixel wholly.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

from detectron2.utils.file_io import atomic_write
from detectron2.utils.user_errors import UserAttributeError, UserValueError
from detectron2.visualization.colors import Color

_SUBPIXEL_BITS = 4
_DASH_PATTERNS = {"--": (5.0, 3.5), ":": (1.2, 2.5), "-.": (5.0, 2.5)}  # on and off, in line widths
_LINE_STYLES = ("-", "solid", *_DASH_PATTERNS)


class VisImage:
    """A picture with drawings on it.

    There is no figure behind it: `fig`, `ax` and `canvas`, which earlier versions took from a plotting
    library, raise an `AttributeError` that says so. Draw with the methods of `Visualizer`, or on the array
    that `get_image()` returns.

    Attributes:
        img: the picture as it was given.
        scale: size of the output over the size of the picture.
        height, width: of the picture.
        canvas_size: (height, width) of the output.
        label_boxes: XYXY boxes of the labels on the output.
    """

    def __init__(self, img: np.ndarray, scale: float = 1.0) -> None:
        """
        Args:
            img: (H, W, 3) RGB in [0, 255].
            scale: size of the output over the size of the picture.
        """
        if img.ndim != 3 or img.shape[2] != 3 or 0 in img.shape:
            raise UserValueError(
                f"a picture should be (height, width, 3) RGB with at least one pixel, got {img.shape}"
            )
        if scale <= 0:
            raise UserValueError(f"scale should be positive, got {scale}")
        self.img = img
        self.scale = scale
        self.height, self.width = img.shape[:2]
        # The small number keeps products such as 1.1 * 10 from losing a pixel to rounding.
        self.canvas_size = (max(1, int(self.height * scale + 1e-2)), max(1, int(self.width * scale + 1e-2)))
        self.reset_image(img)

    def reset_image(self, img: np.ndarray) -> None:
        """Start over from another picture of the same size; drawings are lost.

        Args:
            img: (H, W, 3) RGB in [0, 255].
        """
        if img.shape[:2] != (self.height, self.width):
            raise UserValueError(
                f"expected a picture of {self.height}x{self.width}, got {img.shape[0]}x{img.shape[1]}"
            )
        pixels = np.clip(img, 0, 255).astype(np.uint8)
        if self.canvas_size != (self.height, self.width):
            shrinks = self.canvas_size[0] < self.height
            method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            pixels = cv2.resize(pixels, self.canvas_size[::-1], interpolation=method)
        self._pixels = np.array(pixels, order="C")
        self.label_boxes: list[tuple[float, float, float, float]] = []

    @property
    def fig(self) -> Any:
        """Not there.

        Raises:
            AttributeError: always.
        """
        raise _no_figure("fig")

    @property
    def ax(self) -> Any:
        """Not there.

        Raises:
            AttributeError: always.
        """
        raise _no_figure("ax")

    @property
    def canvas(self) -> Any:
        """Not there.

        Raises:
            AttributeError: always.
        """
        raise _no_figure("canvas")

    def get_image(self) -> np.ndarray:
        """The picture with everything drawn so far: (scaled H, scaled W, 3) uint8 RGB, a copy."""
        return self._pixels.copy()

    def save(self, filepath: str | os.PathLike[str]) -> None:
        """Write the picture to a file; the suffix decides the format."""
        suffix = os.path.splitext(os.fspath(filepath))[1].lower()
        formats = Image.registered_extensions()
        if suffix not in formats:
            raise UserValueError(
                f"cannot tell the picture format of '{filepath}': end it in .png or .jpg, for example"
            )
        options = {"quality": 92} if formats[suffix] == "JPEG" else {}
        with atomic_write(filepath, "wb") as file:
            Image.fromarray(self._pixels).save(file, format=formats[suffix], **options)

    def to_canvas(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) points of the image frame -> the canvas frame."""
        height, width = self.canvas_size
        on_canvas: np.ndarray = np.asarray(points, dtype=np.float64) * (
            width / self.width,
            height / self.height,
        )
        return on_canvas

    def fill_mask(self, mask: np.ndarray, color: Color, alpha: float) -> None:
        """Tint the pixels of a mask.

        Args:
            mask: (H, W) in the image frame: bool, or opacity in [0, 1].
            alpha: opacity of the tint.
        """
        if mask.shape != (self.height, self.width):
            raise UserValueError(
                f"the mask is {mask.shape}, the picture {(self.height, self.width)} (height, width)"
            )
        coverage = mask.astype(np.uint8) * 255 if mask.dtype == bool else np.rint(mask * 255).astype(np.uint8)
        if self.canvas_size != (self.height, self.width):
            coverage = cv2.resize(coverage, self.canvas_size[::-1], interpolation=cv2.INTER_LINEAR)
        rows, columns = np.flatnonzero(coverage.any(axis=1)), np.flatnonzero(coverage.any(axis=0))
        if len(rows):
            top, left = int(rows[0]), int(columns[0])
            self.blend(coverage[top : rows[-1] + 1, left : columns[-1] + 1], (left, top), color, alpha)

    def fill_polygons(self, polygons: Sequence[np.ndarray], color: Color, alpha: float) -> None:
        """Fill polygons, each a (P, 2) array in the image frame; where an even number overlap stays empty."""
        self._ink([self.to_canvas(p) for p in polygons], color, alpha, margin=1, filled=True)

    def stroke(
        self,
        points: np.ndarray,
        color: Color,
        *,
        width: float,
        alpha: float = 1.0,
        closed: bool = False,
        line_style: str = "-",
    ) -> None:
        """Draw a line through points.

        Args:
            points: (P, 2) in the image frame.
            width: in canvas pixels.
            closed: join the last point to the first.
            line_style: "-", "--", ":" or "-.".
        """
        if line_style not in _LINE_STYLES:
            raise UserValueError(f"line_style should be one of {_LINE_STYLES}, got {line_style!r}")
        path = self.to_canvas(points)
        if closed and len(path):
            path = np.concatenate([path, path[:1]])
        pieces = [path]
        if line_style in _DASH_PATTERNS:
            pieces = _dashes(path, [length * max(width, 1) for length in _DASH_PATTERNS[line_style]])
        self._ink(pieces, color, alpha, margin=width + 2, thickness=max(1, round(width)))

    def disc(self, center: Sequence[float], radius: float, color: Color, alpha: float = 1.0) -> None:
        """Fill a circle; the centre is in the image frame, the radius in canvas pixels."""
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        rim = self.to_canvas(np.asarray(center)) + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        self._ink([rim], color, alpha, margin=1, filled=True)

    def rounded_box(self, box: Sequence[float], color: Color, alpha: float, radius: float) -> None:
        """Fill a rectangle with round corners; the box is XYXY in the canvas frame."""
        x0, y0, x1, y1 = box
        radius = max(0.0, min(radius, (x1 - x0) / 2, (y1 - y0) / 2))
        quarter = np.linspace(0, np.pi / 2, 6)
        corners = [(x1, y1, 0), (x0, y1, 1), (x0, y0, 2), (x1, y0, 3)]
        rim = []
        for x, y, turn in corners:
            angles = quarter + turn * np.pi / 2
            middle = (
                x + (radius if turn in (1, 2) else -radius),
                y + (radius if turn in (2, 3) else -radius),
            )
            rim.append(np.asarray(middle) + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1))
        self._ink([np.concatenate(rim)], color, alpha, margin=1, filled=True)

    def blend(self, coverage: np.ndarray, origin: tuple[int, int], color: Color, alpha: float) -> None:
        """Mix a colour into the canvas.

        Args:
            coverage: (h, w) uint8.
            origin: x, y of its top left pixel in the canvas; parts outside the canvas are cut off.
            alpha: opacity where the coverage is full.
        """
        x, y = origin
        height, width = self.canvas_size
        x0, y0 = max(x, 0), max(y, 0)
        x1, y1 = min(x + coverage.shape[1], width), min(y + coverage.shape[0], height)
        if x0 >= x1 or y0 >= y1:
            return
        weight = coverage[y0 - y : y1 - y, x0 - x : x1 - x, None] * np.float32(alpha / 255)
        region = self._pixels[y0:y1, x0:x1]
        target = np.asarray(color, dtype=np.float32) * 255
        region[...] = np.rint(region + (target - region) * weight)

    def _ink(
        self,
        paths: Sequence[np.ndarray],
        color: Color,
        alpha: float,
        *,
        margin: float,
        filled: bool = False,
        thickness: int = 1,
    ) -> None:
        """Rasterise paths of the canvas frame, smoothly, and blend them in as one layer."""
        paths = [path for path in paths if len(path) and np.isfinite(path).all()]
        if not paths:
            return
        height, width = self.canvas_size
        points = np.concatenate(paths)
        low = np.maximum(np.floor(points.min(axis=0) - margin), 0)
        high = np.minimum(np.ceil(points.max(axis=0) + margin), (width, height))
        if (low >= high).any():
            return
        coverage = np.zeros((int(high[1] - low[1]), int(high[0] - low[0])), dtype=np.uint8)
        # OpenCV counts from pixel centres, in fixed point; the bound keeps far-off points within its
        # integers.
        reach = 8.0 * max(height, width)
        fixed = [
            np.rint(np.clip(path - low - 0.5, -reach, reach) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
            for path in paths
        ]
        if filled:
            cv2.fillPoly(coverage, fixed, 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
        else:
            cv2.polylines(coverage, fixed, False, 255, thickness, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
        self.blend(coverage, (int(low[0]), int(low[1])), color, alpha)


def _no_figure(name: str) -> UserAttributeError:
    return UserAttributeError(
        f"VisImage has no {name!r}: pictures are drawn without matplotlib, and there is no figure. Call the "
        "methods of Visualizer (draw_text, draw_line, draw_polygon, draw_circle ...), or draw on the array "
        "of get_image() and hand it to reset_image()."
    )


def _dashes(path: np.ndarray, pattern: Sequence[float]) -> list[np.ndarray]:
    """Cut a path into the pieces that a dash pattern (on, off) leaves."""
    if len(path) < 2 or not np.isfinite(path).all():
        return []
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    on, off = pattern
    pieces = []
    for start in np.arange(0.0, along[-1], on + off):
        stop = min(start + on, along[-1])
        inner = along[(along > start) & (along < stop)]
        at = np.concatenate([[start], inner, [stop]])
        pieces.append(np.stack([np.interp(at, along, path[:, axis]) for axis in (0, 1)], axis=1))
    return pieces
