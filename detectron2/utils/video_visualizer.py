"""Facade: the public path of what lives in `detectron2.visualization.video`."""

from detectron2.visualization.colors import random_color as random_color
from detectron2.visualization.labels import make_labels as _create_text_labels
from detectron2.visualization.panoptic import PanopticPrediction as _PanopticPrediction
from detectron2.visualization.tracks import DetectedInstance as _DetectedInstance
from detectron2.visualization.video import VideoVisualizer as VideoVisualizer

__all__ = ["VideoVisualizer", "random_color"]
