"""Give the detections of a video identities that last from frame to frame."""

from . import compat_names as compat_names
from .base_tracker import TRACKER_HEADS_REGISTRY as TRACKER_HEADS_REGISTRY
from .base_tracker import BaseTracker as BaseTracker
from .base_tracker import build_tracker_head as build_tracker_head
from .bbox_iou_tracker import BBoxIOUTracker as BBoxIOUTracker
from .hungarian_tracker import BaseHungarianTracker as BaseHungarianTracker
from .iou_weighted_hungarian_bbox_iou_tracker import (
    IOUWeightedHungarianBBoxIOUTracker as IOUWeightedHungarianBBoxIOUTracker,
)
from .utils import create_prediction_pairs as create_prediction_pairs
from .vanilla_hungarian_bbox_iou_tracker import (
    VanillaHungarianBBoxIOUTracker as VanillaHungarianBBoxIOUTracker,
)
