"""What labels say and where they go.

Boxes are XYXY in the canvas frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Box = tuple[float, float, float, float]

_ROOMY = 4.0
"""A label may lie inside an object that is at least this many times as large."""


def make_labels(
    classes: Sequence[int] | None,
    scores: Sequence[float] | None,
    class_names: Sequence[str] | None,
    is_crowd: Sequence[bool] | None = None,
) -> list[str] | None:
    """Texts such as "person 97%" or "sheep|crowd" from what is known; None when nothing is."""
    labels: list[str] | None = None
    if classes is not None:
        known = class_names if class_names is not None else []
        labels = [known[c] if 0 <= c < len(known) else str(c) for c in classes]
    if scores is not None:
        percent = [f"{100 * score:.0f}%" for score in scores]
        labels = percent if labels is None else [f"{name} {text}" for name, text in zip(labels, percent)]
    if labels is not None and is_crowd is not None:
        labels = [f"{label}|crowd" if crowd else label for label, crowd in zip(labels, is_crowd)]
    return labels


def intersection(first: Box, second: Box) -> float:
    """Area that two boxes share."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)


def keep_inside(box: Box, canvas_size: tuple[int, int]) -> Box:
    """Move a box by as little as puts it inside the canvas; one that is too large starts at the top left."""
    height, width = canvas_size
    dx = max(min(0.0, width - box[2]), -box[0])
    dy = max(min(0.0, height - box[3]), -box[1])
    return box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy


def place_label(
    size: tuple[float, float],
    target: Box,
    canvas_size: tuple[int, int],
    occupied: Iterable[Box],
    inner_point: tuple[float, float] | None = None,
) -> Box:
    """Choose where the label of an object goes.

    It lies inside the object where there is room, else beside it. Places that would hide another label, or
    much of the object, are avoided; the first of equally good ones wins.

    Args:
        size: (width, height) of the label.
        target: the object's box.
        occupied: boxes of the labels that are there.
        inner_point: put the label's middle here rather than into a corner.

    Returns:
        The label's box, inside the canvas.
    """
    width, height = size
    x0, y0, x1, y1 = target
    origins = [
        (x0, y0),
        (x0, y0 - height),
        (x0, y1),
        (x1 - width, y0),
        (x1, y0),
        (x0 - width, y0),
        (x0, y1 - height),
    ]
    if inner_point is not None:
        middle = (inner_point[0] - width / 2, inner_point[1] - height / 2)
        origins = [middle, (middle[0], middle[1] - height), (middle[0], middle[1] + height), *origins]
    boxes = [keep_inside((x, y, x + width, y + height), canvas_size) for x, y in origins]
    others = list(occupied)
    object_area = max((x1 - x0) * (y1 - y0), 1.0)
    crowded = object_area < _ROOMY * width * height

    def cost(box: Box) -> float:
        hidden = sum(intersection(box, other) for other in others) / (width * height)
        return hidden + (intersection(box, target) / object_area if crowded else 0.0)

    return min(boxes, key=cost)
