"""Region heads under their public path."""

from .base import ROI_HEADS_REGISTRY, ROIHeads, build_roi_heads
from .res5 import Res5ROIHeads
from .selection import select_foreground_proposals, select_proposals_with_visible_keypoints
from .standard import StandardROIHeads

__all__ = [
    "ROI_HEADS_REGISTRY",
    "ROIHeads",
    "Res5ROIHeads",
    "StandardROIHeads",
    "build_roi_heads",
    "select_foreground_proposals",
    "select_proposals_with_visible_keypoints",
]
