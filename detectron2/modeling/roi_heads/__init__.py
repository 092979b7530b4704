"""Region heads: the second stage of detectors."""

from .box_head import ROI_BOX_HEAD_REGISTRY as ROI_BOX_HEAD_REGISTRY
from .box_head import FastRCNNConvFCHead as FastRCNNConvFCHead
from .box_head import build_box_head as build_box_head
from .cascade_rcnn import CascadeROIHeads as CascadeROIHeads
from .fast_rcnn import FastRCNNOutputLayers as FastRCNNOutputLayers
from .keypoint_head import ROI_KEYPOINT_HEAD_REGISTRY as ROI_KEYPOINT_HEAD_REGISTRY
from .keypoint_head import BaseKeypointRCNNHead as BaseKeypointRCNNHead
from .keypoint_head import KRCNNConvDeconvUpsampleHead as KRCNNConvDeconvUpsampleHead
from .keypoint_head import build_keypoint_head as build_keypoint_head
from .mask_head import ROI_MASK_HEAD_REGISTRY as ROI_MASK_HEAD_REGISTRY
from .mask_head import BaseMaskRCNNHead as BaseMaskRCNNHead
from .mask_head import MaskRCNNConvUpsampleHead as MaskRCNNConvUpsampleHead
from .mask_head import build_mask_head as build_mask_head
from .roi_heads.base import ROI_HEADS_REGISTRY as ROI_HEADS_REGISTRY
from .roi_heads.base import ROIHeads as ROIHeads
from .roi_heads.base import build_roi_heads as build_roi_heads
from .roi_heads.res5 import Res5ROIHeads as Res5ROIHeads
from .roi_heads.selection import select_foreground_proposals as select_foreground_proposals
from .roi_heads.selection import (
    select_proposals_with_visible_keypoints as select_proposals_with_visible_keypoints,
)
from .roi_heads.standard import StandardROIHeads as StandardROIHeads
from .rotated_fast_rcnn import RROIHeads as RROIHeads
