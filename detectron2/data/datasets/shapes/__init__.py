"""The embedded data set: scenes of textured shapes on textured ground, drawn by a seeded generator."""

from .dataset import DEFAULT_IMAGE_SIZE as DEFAULT_IMAGE_SIZE
from .dataset import GENERATOR_VERSION as GENERATOR_VERSION
from .dataset import SHAPES_CATEGORIES as SHAPES_CATEGORIES
from .dataset import SPLIT_SEEDS as SPLIT_SEEDS
from .dataset import SPLITS as SPLITS
from .dataset import render_scene as render_scene
from .dataset import render_single as render_single
from .dataset import shapes_files as shapes_files
from .dataset import write_shapes as write_shapes
from .layout import SplitFiles as SplitFiles
from .scene import STUFF_NAMES as STUFF_NAMES
from .scene import THING_NAMES as THING_NAMES
from .scene import Scene as Scene
from .scene import SceneSegment as SceneSegment
from .single import LabelledShape as LabelledShape

__all__ = [
    "DEFAULT_IMAGE_SIZE",
    "GENERATOR_VERSION",
    "SHAPES_CATEGORIES",
    "SPLITS",
    "SPLIT_SEEDS",
    "STUFF_NAMES",
    "THING_NAMES",
    "LabelledShape",
    "Scene",
    "SceneSegment",
    "SplitFiles",
    "render_scene",
    "render_single",
    "shapes_files",
    "write_shapes",
]
