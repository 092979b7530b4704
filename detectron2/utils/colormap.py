"""Facade: the public path of what lives in `detectron2.visualization.colors`."""

from detectron2.visualization.colors import COLORS as _COLORS
from detectron2.visualization.colors import colormap as colormap
from detectron2.visualization.colors import random_color as random_color
from detectron2.visualization.colors import random_colors as random_colors

__all__ = ["colormap", "random_color", "random_colors"]
