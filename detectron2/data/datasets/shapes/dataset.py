"""The embedded data set: scenes of textured shapes on textured ground, drawn by a seeded generator.

Eight thing classes are told apart by outline alone and six stuff classes by texture. Scenes hold occlusion,
crowds, things from 12 pixels to half of the image, and now and then no thing at all. `render_scene` draws one
scene in memory; `datasets/prepare_shapes.py` writes a data set in the layout of COCO panoptic;
`shapes_panoptic_train` and `shapes_panoptic_val` are their names in the catalog.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from detectron2.utils.user_errors import UserValueError

from .files import is_complete, write_split
from .layout import SplitFiles, SplitRecipe
from .scene import STUFF_NAMES, THING_NAMES, Scene, SceneStyle, compose_scene
from .single import LabelledShape, compose_single

# Dataset ids are deliberately not contiguous, as in COCO.
_FIRST_THING_ID = 1
_FIRST_STUFF_ID = 101

_COLOURS = {
    "disc": (220, 20, 60),
    "ring": (119, 11, 32),
    "square": (0, 60, 230),
    "triangle": (250, 170, 30),
    "star": (255, 235, 59),
    "cross": (0, 188, 212),
    "heart": (233, 30, 160),
    "crescent": (140, 80, 220),
    "grass": (90, 160, 60),
    "water": (50, 110, 180),
    "brick": (170, 85, 70),
    "wood": (140, 100, 55),
    "sky": (135, 195, 240),
    "sand": (225, 200, 145),
}

SHAPES_CATEGORIES: list[dict[str, Any]] = [
    {
        "id": first_id + position,
        "name": name,
        "isthing": isthing,
        "color": list(_COLOURS[name]),
        "supercategory": group,
    }
    for names, first_id, isthing, group in (
        (THING_NAMES, _FIRST_THING_ID, 1, "shape"),
        (STUFF_NAMES, _FIRST_STUFF_ID, 0, "texture"),
    )
    for position, name in enumerate(names)
]

# Random streams never meet: each split, and the pre-training of the shipped backbone, has its own seed.
SPLIT_SEEDS = {"train": 1, "val": 2, "pretrain": 3}
SPLITS = ("train", "val")
GENERATOR_VERSION = 1  # raise it with every change that alters a picture
DEFAULT_IMAGE_SIZE = (160, 192)
_MIN_SIDE = 48


def render_scene(
    seed: int,
    index: int,
    image_size: tuple[int, int] = DEFAULT_IMAGE_SIZE,
    style: SceneStyle | None = None,
) -> Scene:
    """Draw one scene; equal arguments give equal scenes.

    Args:
        seed: names the random stream, see `SPLIT_SEEDS`.
        index: number of the scene in the stream.
        image_size: (height, width) in pixels.
        style: difficulty of the scenes; the default is the published data set.

    Raises:
        ValueError: for an image too small to hold a thing on its ground.
    """
    if min(image_size) < _MIN_SIDE:
        raise UserValueError(f"image_size must be at least {_MIN_SIDE} pixels a side, got {image_size}")
    rng = np.random.Generator(np.random.PCG64([seed, index]))
    return compose_scene(rng, image_size, style or SceneStyle())


def render_single(seed: int, index: int, side: int = 96) -> LabelledShape:
    """Draw one shape with image-level labels, for pre-training; equal arguments give equal examples.

    Args:
        seed: names the random stream, see `SPLIT_SEEDS`.
        index: number of the example in the stream.
        side: height and width in pixels.
    """
    if side < _MIN_SIDE:
        raise UserValueError(f"side must be at least {_MIN_SIDE} pixels, got {side}")
    return compose_single(np.random.Generator(np.random.PCG64([seed, index])), side)


def shapes_files(split: str, root: str | os.PathLike[str]) -> SplitFiles:
    """Say where a split lies below the data root.

    Args:
        split: "train" or "val".
        root: the folder of all data sets, as in `DETECTRON2_DATASETS`.
    """
    if split not in SPLITS:
        raise UserValueError(f"split must be one of {list(SPLITS)}, got {split!r}")
    return SplitFiles(Path(root) / "shapes", split)


def write_shapes(
    split: str,
    num_images: int,
    *,
    root: str | os.PathLike[str],
    image_size: tuple[int, int] = DEFAULT_IMAGE_SIZE,
    num_workers: int = 1,
) -> int:
    """Write a split in the layout of COCO panoptic, or what is missing of it.

    Args:
        split: "train" or "val".
        num_images: the first so many scenes of the split.
        root: the folder of all data sets; the files go into `shapes` in it.
        image_size: (height, width).
        num_workers: processes that draw.

    Returns:
        How many scenes were drawn: 0 when everything was there.
    """
    if num_images < 1:
        raise UserValueError(f"num_images must be at least 1, got {num_images}")
    files, recipe = shapes_files(split, root), _recipe(split, image_size)
    if is_complete(files, recipe, num_images):
        return 0
    render = partial(render_scene, recipe.seed, image_size=image_size)
    return write_split(files, recipe, num_images, render, SHAPES_CATEGORIES, num_workers)


def _recipe(split: str, image_size: tuple[int, int]) -> SplitRecipe:
    return SplitRecipe(SPLIT_SEEDS[split], image_size, GENERATOR_VERSION)
