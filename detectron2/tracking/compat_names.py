"""Names that other people's code takes from modules of this package, and that nothing of ours uses."""

from __future__ import annotations

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.structures.boxes import Boxes
from detectron2.utils.offer import offer

from .base_tracker import BaseTracker

offer("detectron2.tracking.base_tracker", CfgNode_=CfgNode)
offer(
    "detectron2.tracking.bbox_iou_tracker",
    BaseTracker,
    Boxes,
    configurable,
    CfgNode_=CfgNode,
)
offer(
    "detectron2.tracking.hungarian_tracker",
    BaseTracker,
    Boxes,
    configurable,
    CfgNode_=CfgNode,
)
offer("detectron2.tracking.iou_weighted_hungarian_bbox_iou_tracker", configurable, CfgNode_=CfgNode)
offer(
    "detectron2.tracking.vanilla_hungarian_bbox_iou_tracker",
    configurable,
    CfgNode_=CfgNode,
)
