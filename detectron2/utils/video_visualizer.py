"""Facade: the public path of `detectron2.visualization.video`, with the names that came with it."""

from detectron2.structures.instances import Instances as Instances
from detectron2.visualization.colors import random_color as random_color
from detectron2.visualization.colors import random_colors as random_colors
from detectron2.visualization.labels import make_labels as _create_text_labels
from detectron2.visualization.panoptic import PanopticPrediction as _PanopticPrediction
from detectron2.visualization.tracks import DetectedInstance as _DetectedInstance
from detectron2.visualization.video import VideoVisualizer as VideoVisualizer
from detectron2.visualization.visualizer import ColorMode as ColorMode
from detectron2.visualization.visualizer import Visualizer as Visualizer

__all__ = ["VideoVisualizer"]
