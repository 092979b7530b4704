"""Facade: the public path of what lives in `detectron2.visualization.video`."""

from detectron2.visualization.video import VideoVisualizer as VideoVisualizer

__all__ = ["VideoVisualizer"]
