"""Writing on a picture: letters on a dark plate, and places for the labels of objects.

Points are x, y in pixels of the picture; sizes are in pixels of the output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detectron2.utils.user_errors import UserValueError
from detectron2.visualization.canvas import VisImage
from detectron2.visualization.colors import ColorLike, legible_on_dark
from detectron2.visualization.labels import keep_inside, place_label
from detectron2.visualization.text import MIN_FONT_SIZE, rotate_coverage, text_coverage

_SMALL_OBJECT_HEIGHT = 0.08
"""Objects below this share of the picture's height get smaller labels."""

_SMALL_LABEL = 0.8
_PLATE_COLOR = (0.07, 0.07, 0.09)
_PLATE_OPACITY = 0.72
_SHARES = {"left": 0.0, "center": 0.5, "right": 1.0}


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


def usual_font_size(canvas: VisImage) -> float:
    """The size of letters that suits a picture."""
    side = math.sqrt(canvas.canvas_size[0] * canvas.canvas_size[1])
    return min(max(side / 40, min(side / 28, 11), MIN_FONT_SIZE), 48)


def write_text(
    canvas: VisImage,
    text: str,
    position: Sequence[float],
    *,
    font_size: float,
    color: ColorLike,
    alignment: str,
    rotation: float,
) -> None:
    """Write a text on a dark plate; it is moved where it would leave the picture.

    Args:
        position: the top of the text, at its centre or the side that `alignment` names.
        color: of the letters, made light enough for the plate.
        alignment: "left", "center" or "right".
        rotation: degrees, counter-clockwise.
    """
    if alignment not in _SHARES:
        raise UserValueError(f"horizontal_alignment should be one of {list(_SHARES)}, got {alignment!r}")
    label = _make_label(text, font_size, rotation)
    width, height = label.size
    x, y = canvas.to_canvas(np.asarray(position, dtype=np.float64)).tolist()
    if not (math.isfinite(x) and math.isfinite(y)):
        return
    left = x - _SHARES[alignment] * width
    place = keep_inside((left, y, left + width, y + height), canvas.canvas_size)
    # A place that went through the picture's frame and back must not lose a pixel to rounding.
    left, top = math.floor(place[0] + 1e-6), math.floor(place[1] + 1e-6)
    box = (left, top, left + width, top + height)
    if label.plate.all():
        canvas.rounded_box(box, _PLATE_COLOR, _PLATE_OPACITY, label.corner_radius)
    else:
        canvas.blend(label.plate, (left, top), _PLATE_COLOR, _PLATE_OPACITY)
    canvas.blend(label.ink, (left, top), legible_on_dark(color), 1.0)
    canvas.label_boxes.append(box)


def label_font_size(canvas: VisImage, target: Sequence[float], usual: float) -> float:
    """The size of an object's label: smaller for a small object, given by its XYXY box."""
    share = (target[3] - target[1]) / canvas.height
    return max(MIN_FONT_SIZE, _SMALL_LABEL * usual) if share < _SMALL_OBJECT_HEIGHT else usual


def find_label_place(
    canvas: VisImage,
    text: str,
    target: Sequence[float],
    font_size: float,
    inner_point: tuple[float, float] | None,
) -> tuple[float, float]:
    """Where the top left of an object's label goes, to hide neither the object nor another label.

    Args:
        target: the object's XYXY box.
        inner_point: the preferred middle of the label; without it, a corner of the box.
    """
    height, width = canvas.canvas_size
    (x0, y0), (x1, y1) = canvas.to_canvas(np.asarray(target, dtype=np.float64).reshape(2, 2)).tolist()
    point = None
    if inner_point is not None:
        x, y = canvas.to_canvas(np.asarray(inner_point)).tolist()
        point = (x, y)
    visible = (max(x0, 0), max(y0, 0), min(x1, width), min(y1, height))
    pad = _padding(font_size)
    rows, columns = text_coverage(text, font_size).shape
    size = (columns + 2.0 * pad, rows + 1.0 * pad)
    box = place_label(size, visible, canvas.canvas_size, canvas.label_boxes, point)
    return box[0] * canvas.width / width, box[1] * canvas.height / height


def _make_label(text: str, font_size: float, rotation: float) -> _Label:
    pad = _padding(font_size)
    ink = np.pad(text_coverage(text, font_size), ((pad // 2, pad - pad // 2), (pad, pad)))
    plate = np.full(ink.shape, 255, dtype=np.uint8)
    return _Label(rotate_coverage(ink, rotation), rotate_coverage(plate, rotation), 2.0 * pad)


def _padding(font_size: float) -> int:
    return max(1, round(0.2 * font_size))
