"""Facade: the public path of what lives in `detectron2.visualization`, with the names that came with it."""

from detectron2.data.catalog import MetadataCatalog as MetadataCatalog
from detectron2.structures.boxes import Boxes as Boxes
from detectron2.structures.boxes import BoxMode as BoxMode
from detectron2.structures.keypoints import Keypoints as Keypoints
from detectron2.structures.masks import BitMasks as BitMasks
from detectron2.structures.masks import PolygonMasks as PolygonMasks
from detectron2.structures.rotated_boxes import RotatedBoxes as RotatedBoxes
from detectron2.visualization.canvas import VisImage as VisImage
from detectron2.visualization.colors import random_color as random_color
from detectron2.visualization.drawing import BLACK as _BLACK
from detectron2.visualization.drawing import OFF_WHITE as _OFF_WHITE
from detectron2.visualization.drawing import RED as _RED
from detectron2.visualization.drawing import SMALL_OBJECT_AREA_THRESH as _SMALL_OBJECT_AREA_THRESH
from detectron2.visualization.labels import make_labels as _create_text_labels
from detectron2.visualization.masks import LARGE_MASK_AREA_THRESH as _LARGE_MASK_AREA_THRESH
from detectron2.visualization.masks import GenericMask as GenericMask
from detectron2.visualization.overlay import KEYPOINT_THRESHOLD as _KEYPOINT_THRESHOLD
from detectron2.visualization.panoptic import PanopticPrediction as _PanopticPrediction
from detectron2.visualization.visualizer import ColorMode as ColorMode
from detectron2.visualization.visualizer import Visualizer as Visualizer

__all__ = ["ColorMode", "GenericMask", "VisImage", "Visualizer"]
