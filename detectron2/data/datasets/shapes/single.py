"""Single shapes with image-level labels: what the shipped backbone is pre-trained on.

One labelled thing lies on one or two grounds; around and partly over it lie splinters that belong to no
class. There are no boxes and no masks, as in ImageNet pre-training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .outlines import OUTLINES, clutter_outline, coverage_patch
from .scene import (
    STUFF_NAMES,
    THING_NAMES,
    Canvas,
    SceneStyle,
    paint_ground,
    paint_thing,
    photograph,
    place,
    random_pose,
)

_TWO_GROUNDS_RATE = 0.4
_MAX_THING_SHARE = 0.9
_MIN_VISIBLE_SHARE = 0.55


@dataclass(frozen=True)
class LabelledShape:
    """One training example of the pre-training.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        thing: index of the thing's class in the thing names.
        ground_shares: (number of stuff classes,) float32, the image area of each ground; they sum to 1.
    """

    image: NDArray[np.uint8]
    thing: int
    ground_shares: NDArray[np.float32]


def compose_single(rng: Generator, side: int) -> LabelledShape:
    """Paint one labelled shape on `side` x `side` pixels."""
    num_grounds = 2 if rng.random() < _TWO_GROUNDS_RATE else 1
    canvas = paint_ground(rng, (side, side), num_grounds)
    shares = np.zeros(len(STUFF_NAMES), np.float32)
    for segment in canvas.segments:
        shares[STUFF_NAMES.index(segment.name)] = np.mean(canvas.labels == segment.id)
    for _ in range(int(rng.integers(0, 3))):
        _add_clutter(rng, canvas, shape_id=0)
    thing = int(rng.integers(len(THING_NAMES)))
    shape_id = _add_shape(rng, canvas, thing)
    for _ in range(int(rng.integers(0, 3))):
        _add_clutter(rng, canvas, shape_id)
    return LabelledShape(photograph(rng, canvas.pixels), thing, shares)


def _add_shape(rng: Generator, canvas: Canvas, thing: int) -> int:
    """Paint the labelled thing at any scale, mostly inside the image; returns its id."""
    style = SceneStyle()
    side = min(canvas.size)
    size = float(np.exp(rng.uniform(np.log(style.min_thing_size), np.log(_MAX_THING_SHARE * side))))
    name = THING_NAMES[thing]
    coverage = coverage_patch(OUTLINES[name](), random_pose(rng, size))
    segment = canvas.new_segment(name, is_thing=True)
    inside_share = 0.0
    while inside_share < 0.75:
        top, left = (rng.integers(0, side, 2) - np.array(coverage.shape) // 2).tolist()
        placement = place(coverage, top, left, canvas.size)
        inside_share = placement.inside_share
    paint_thing(rng, canvas, placement, segment.id)
    canvas.full_areas[segment.id] = int(placement.mask.sum())
    return segment.id


def _add_clutter(rng: Generator, canvas: Canvas, shape_id: int) -> None:
    """Paint one splinter unless it would hide too much of the labelled thing."""
    side = min(canvas.size)
    coverage = coverage_patch(clutter_outline(rng), random_pose(rng, rng.uniform(8.0, 0.5 * side)))
    top, left = (rng.integers(0, side, 2) - np.array(coverage.shape) // 2).tolist()
    placement = place(coverage, top, left, canvas.size)
    if placement.inside_share < 0.3:
        return
    below = canvas.labels[placement.rows, placement.columns][placement.mask]
    visible = int((canvas.labels == shape_id).sum()) - int((below == shape_id).sum())
    if shape_id and visible < _MIN_VISIBLE_SHARE * canvas.full_areas[shape_id]:
        return
    paint_thing(rng, canvas, placement, canvas.new_segment("clutter", is_thing=True).id)
