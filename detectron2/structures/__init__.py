"""Tensors with a meaning: boxes, masks, keypoints, and the instances of one image."""

from . import compat_names as compat_names
from .boxes import Boxes as Boxes
from .boxes import BoxMode as BoxMode
from .boxes import matched_pairwise_iou as matched_pairwise_iou
from .boxes import pairwise_intersection as pairwise_intersection
from .boxes import pairwise_ioa as pairwise_ioa
from .boxes import pairwise_iou as pairwise_iou
from .boxes import pairwise_point_box_distance as pairwise_point_box_distance
from .image_list import ImageList as ImageList
from .instances import Instances as Instances
from .keypoints import Keypoints as Keypoints
from .keypoints import heatmaps_to_keypoints as heatmaps_to_keypoints
from .masks import BitMasks as BitMasks
from .masks import PolygonMasks as PolygonMasks
from .masks import ROIMasks as ROIMasks
from .polygons import polygons_to_bitmask as polygons_to_bitmask
from .polygons import rasterize_polygons_within_box as rasterize_polygons_within_box
from .rotated_boxes import RotatedBoxes as RotatedBoxes
from .rotated_boxes import pairwise_iou as pairwise_iou_rotated  # noqa: F401
