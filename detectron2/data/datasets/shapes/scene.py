"""Composition of one scene of the embedded data set: ground, things, crowds, camera.

Frame: image pixels, (row, column), origin at the top left corner. H, W are the image size. Segment id 0 is
nothing; every pixel of a finished scene belongs to a segment.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .outlines import OUTLINES, Pose, coverage_patch
from .textures import FloatArray, stuff_texture, thing_surface, value_noise

THING_NAMES = tuple(OUTLINES)
STUFF_NAMES = ("grass", "water", "brick", "wood", "sky", "sand")

_REFERENCE_AREA = 160 * 192  # the image area for which thing counts are meant
_REFERENCE_SIDE = 176.0


@dataclass(frozen=True)
class SceneStyle:
    """What scenes look like; the defaults are the published data set.

    Attributes:
        min_thing_size: longer side of the smallest things, in pixels.
        max_thing_share: longer side of the largest things, as share of the shorter image side.
        num_things: fewest and most things of a scene with things, at 160x192.
        three_grounds_rate: share of scenes with three stuff regions instead of two.
        empty_rate: share of scenes without any thing.
        crowd_rate: share of scenes with a crowd.
        crowd_members: fewest and most members of a crowd.
        min_visible_share: what an occluded thing keeps visible, at least.
        min_visible_area: the same in pixels.
        min_inside_share: what a thing at the border keeps inside the image, at least.
    """

    min_thing_size: float = 12.0
    max_thing_share: float = 0.5
    num_things: tuple[int, int] = (1, 7)
    three_grounds_rate: float = 0.45
    empty_rate: float = 0.05
    crowd_rate: float = 0.08
    crowd_members: tuple[int, int] = (5, 9)
    min_visible_share: float = 0.45
    min_visible_area: int = 40
    min_inside_share: float = 0.65


@dataclass(frozen=True)
class SceneSegment:
    """One segment of a scene: its id in the label map, its class by name, and whether it is a crowd."""

    id: int
    name: str
    is_thing: bool
    is_crowd: bool = False


@dataclass(frozen=True)
class Scene:
    """A finished scene.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        segment_ids: (H, W) int32, ids of `segments`; only visible parts are marked.
        segments: every segment that has at least one pixel, stuff first.
    """

    image: NDArray[np.uint8]
    segment_ids: NDArray[np.int32]
    segments: tuple[SceneSegment, ...]


@dataclass
class Placement:
    """A coverage patch cut to the image: where it lies and what it covers there."""

    rows: slice
    columns: slice
    coverage: FloatArray  # (h, w), of the part inside the image
    inside_share: float

    @property
    def mask(self) -> NDArray[np.bool_]:
        return self.coverage >= 0.5


@dataclass
class Canvas:
    """The scene while it is painted."""

    pixels: FloatArray  # (H, W, 3), RGB in [0, 255]
    labels: NDArray[np.int32]  # (H, W)
    segments: list[SceneSegment] = field(default_factory=list)
    full_areas: dict[int, int] = field(default_factory=dict)  # of things, before occlusion

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.labels.shape
        return height, width

    def new_segment(self, name: str, is_thing: bool, is_crowd: bool = False) -> SceneSegment:
        segment = SceneSegment(len(self.segments) + 1, name, is_thing, is_crowd)
        self.segments.append(segment)
        return segment


def paint_ground(rng: Generator, image_size: tuple[int, int], num_regions: int) -> Canvas:
    """Fill a new canvas with stuff regions of different classes that meet along curved lines."""
    height, width = image_size
    zoom = max(1.0, min(image_size) / _REFERENCE_SIDE)
    names = rng.permutation(STUFF_NAMES)[:num_regions]
    canvas = Canvas(np.empty((height, width, 3), np.float32), np.zeros((height, width), np.int32))
    for position, name in enumerate(names):
        segment = canvas.new_segment(str(name), is_thing=False)
        texture = stuff_texture(str(name), rng, height, width, zoom)
        if position == 0:
            canvas.pixels[:] = texture
            canvas.labels[:] = segment.id
            continue
        distance = _curved_border(rng, height, width)
        coverage = np.clip(distance + 0.5, 0.0, 1.0)[..., None]  # (H, W, 1)
        canvas.pixels += (texture - canvas.pixels) * coverage
        canvas.labels[distance >= 0] = segment.id
    return canvas


def _curved_border(rng: Generator, height: int, width: int) -> FloatArray:
    """(H, W) rough signed distance in pixels to a winding line; 25 to 55 % of the image is inside."""
    angle = rng.uniform(0, 2 * np.pi)
    y = np.arange(height, dtype=np.float32)[:, None]
    x = np.arange(width, dtype=np.float32)[None, :]
    across = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    cell = 0.4 * min(height, width)
    field_ = across + np.float32(0.07 * min(height, width)) * value_noise(rng, height, width, (cell, cell))
    threshold = np.quantile(field_[::4, ::4], 1 - rng.uniform(0.25, 0.55))
    excess: FloatArray = field_ - np.float32(threshold)
    return excess


def place(coverage: FloatArray, top: int, left: int, image_size: tuple[int, int]) -> Placement:
    """Cut a coverage patch whose corner lies at (top, left) to the image."""
    height, width = image_size
    patch_height, patch_width = coverage.shape
    y0, y1 = max(top, 0), min(top + patch_height, height)
    x0, x1 = max(left, 0), min(left + patch_width, width)
    inside = coverage[max(y0 - top, 0) : max(y1 - top, 0), max(x0 - left, 0) : max(x1 - left, 0)]
    share = float(inside.sum() / max(coverage.sum(), 1e-6))
    return Placement(slice(y0, max(y1, y0)), slice(x0, max(x1, x0)), inside, share)


def _covers_too_much(
    canvas: Canvas, mask: NDArray[np.bool_], placement: Placement, style: SceneStyle
) -> bool:
    """Whether painting `mask` would leave too little of a thing that is already there."""
    below = canvas.labels[placement.rows, placement.columns][mask]
    for segment_id, num_hidden in zip(*np.unique(below, return_counts=True)):
        full_area = canvas.full_areas.get(int(segment_id))
        if full_area is None:
            continue
        visible = int((canvas.labels == segment_id).sum()) - int(num_hidden)
        if visible < max(style.min_visible_share * full_area, style.min_visible_area):
            return True
    return False


def paint_thing(rng: Generator, canvas: Canvas, placement: Placement, segment_id: int) -> None:
    """Paint one thing with its shadow, and mark what it covers as `segment_id`."""
    pixels = canvas.pixels[placement.rows, placement.columns]
    if rng.random() < 0.6:
        _cast_shadow(rng, canvas, placement)
    ground = pixels.mean(axis=(0, 1))
    height, width = placement.coverage.shape
    surface = thing_surface(rng, height, width, ground)
    pixels += (surface - pixels) * placement.coverage[..., None]
    canvas.labels[placement.rows, placement.columns][placement.mask] = segment_id


def _cast_shadow(rng: Generator, canvas: Canvas, placement: Placement) -> None:
    """Darken what lies below and to one side of a thing; labels do not change."""
    reach = max(1, round(0.06 * max(placement.coverage.shape)))
    shift_y, shift_x = (int(step) for step in rng.integers(-reach, reach + 1, size=2))
    box = (2 * reach + 1, 2 * reach + 1)
    padded: FloatArray = np.asarray(cv2.blur(np.pad(placement.coverage, reach), box), np.float32)
    top = placement.rows.start - reach + shift_y
    left = placement.columns.start - reach + shift_x
    shadow = place(padded, top, left, canvas.size)
    canvas.pixels[shadow.rows, shadow.columns] *= (
        1.0 - np.float32(rng.uniform(0.2, 0.45)) * shadow.coverage[..., None]
    )


def _random_size(rng: Generator, image_size: tuple[int, int], style: SceneStyle) -> float:
    largest = max(style.max_thing_share * min(image_size), style.min_thing_size)
    return float(np.exp(rng.uniform(np.log(style.min_thing_size), np.log(largest))))


def random_pose(rng: Generator, size: float) -> Pose:
    """Any rotation, and a stretch of at most a quarter."""
    return Pose(size, rng.uniform(0, 2 * np.pi), float(np.exp(rng.uniform(-0.22, 0.22))))


def _add_thing(rng: Generator, canvas: Canvas, style: SceneStyle) -> None:
    """Put one thing where it leaves the others recognisable; give up after a few places."""
    name = str(rng.choice(THING_NAMES))
    coverage = coverage_patch(OUTLINES[name](), random_pose(rng, _random_size(rng, canvas.size, style)))
    height, width = canvas.size
    for _ in range(6):
        top = int(rng.integers(0, height)) - coverage.shape[0] // 2
        left = int(rng.integers(0, width)) - coverage.shape[1] // 2
        placement = place(coverage, top, left, canvas.size)
        mask = placement.mask
        area = int(mask.sum())
        if placement.inside_share < style.min_inside_share or area < style.min_visible_area:
            continue
        if _covers_too_much(canvas, mask, placement, style):
            continue
        segment = canvas.new_segment(name, is_thing=True)
        canvas.full_areas[segment.id] = area
        paint_thing(rng, canvas, placement, segment.id)
        return


def _add_crowd(rng: Generator, canvas: Canvas, style: SceneStyle) -> None:
    """Paint a tight group of one class as a single crowd segment."""
    name = str(rng.choice(THING_NAMES))
    height, width = canvas.size
    zoom = max(1.0, min(canvas.size) / _REFERENCE_SIDE)
    size = rng.uniform(style.min_thing_size, 1.7 * style.min_thing_size) * zoom
    low, high = style.crowd_members
    num_members = int(rng.integers(low, high + 1))
    centre = rng.uniform(0.2, 0.8, 2) * [height, width]
    segment = canvas.new_segment(name, is_thing=True, is_crowd=True)
    # Sunflower arrangement: members lie close together whatever their number.
    order = np.arange(num_members)
    radius = 0.62 * size * np.sqrt(order)
    angle = 2.4 * order + rng.uniform(0, 2 * np.pi)
    offsets = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    for offset in offsets + rng.normal(0.0, 0.06 * size, offsets.shape):
        coverage = coverage_patch(OUTLINES[name](), random_pose(rng, size * rng.uniform(0.85, 1.15)))
        top, left = np.rint(centre + offset - np.array(coverage.shape) / 2).astype(int).tolist()
        placement = place(coverage, top, left, canvas.size)
        if placement.inside_share >= style.min_inside_share:
            paint_thing(rng, canvas, placement, segment.id)
    area = int((canvas.labels == segment.id).sum())
    if area:
        canvas.full_areas[segment.id] = area


def photograph(rng: Generator, pixels: FloatArray) -> NDArray[np.uint8]:
    """Turn painted (H, W, 3) colours into a picture: uneven light, exposure, slight blur, sensor noise."""
    height, width, _ = pixels.shape
    light = value_noise(rng, height, width, (0.7 * height, 0.7 * width))[..., None]  # (H, W, 1)
    exposed = pixels * (1.0 + np.float32(rng.uniform(0.0, 0.1)) * light) * np.float32(rng.uniform(0.8, 1.15))
    exposed += np.float32(rng.uniform(-12.0, 12.0))
    sigma = rng.uniform(0.0, 0.8)
    if sigma > 0.3:
        exposed = np.asarray(cv2.GaussianBlur(exposed, (5, 5), sigma), np.float32)
    noise = rng.standard_normal((height, width, 1), dtype=np.float32)
    exposed = exposed + np.float32(rng.uniform(0.0, 7.0)) * noise
    return np.clip(np.rint(exposed), 0, 255).astype(np.uint8)


def compose_scene(rng: Generator, image_size: tuple[int, int], style: SceneStyle) -> Scene:
    """Paint one scene of (height, width) pixels with the random numbers of `rng`."""
    canvas = paint_ground(rng, image_size, 3 if rng.random() < style.three_grounds_rate else 2)
    if rng.random() >= style.empty_rate:
        low, high = style.num_things
        growth = np.sqrt(image_size[0] * image_size[1] / _REFERENCE_AREA)
        num_things = max(1, round(int(rng.integers(low, high + 1)) * float(np.clip(growth, 0.5, 3.0))))
        if rng.random() < style.crowd_rate:
            _add_crowd(rng, canvas, style)
        for _ in range(num_things):
            _add_thing(rng, canvas, style)
    image = photograph(rng, canvas.pixels)
    present = set(np.unique(canvas.labels).tolist())
    segments = tuple(segment for segment in canvas.segments if segment.id in present)
    return Scene(image, canvas.labels, segments)
