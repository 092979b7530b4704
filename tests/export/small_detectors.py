"""Narrow detectors that are exported and traced, with a pyramid on four convolutions."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.modeling.backbone import BACKBONE_REGISTRY
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7

# torch would rather have torch.export used; projects trace.
uses_traces = pytest.mark.filterwarnings(
    r"ignore:.torch\.jit\.(trace|trace_method|save|load). is deprecated:DeprecationWarning"
)


class Strides(Backbone):
    """Four convolutions of the strides of a residual network."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Conv2d(3 if i == 0 else 8, 8, 5, stride=4 if i == 0 else 2, padding=2) for i in range(4)
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        outputs = {}
        for i, stage in enumerate(self.stages, start=2):
            x = stage(x).relu()
            outputs[f"res{i}"] = x
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {f"res{i}": ShapeSpec(channels=8, stride=2**i) for i in range(2, 6)}


def make_pyramid(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Make p2-p6, or p3-p7 for the dense detector."""
    if cfg.MODEL.META_ARCHITECTURE == "RetinaNet":
        return FPN(Strides(), ["res3", "res4", "res5"], 16, top_block=LastLevelP6P7(8, 16))
    return FPN(Strides(), ["res2", "res3", "res4", "res5"], 16, top_block=LastLevelMaxPool())


if "export_test_backbone" not in BACKBONE_REGISTRY:
    BACKBONE_REGISTRY._do_register("export_test_backbone", make_pyramid)


def make_cfg(meta_architecture: str, settings: dict[str, Any]) -> CfgNode:
    """Make the config of a detector with masks; `settings` say what is different."""
    cfg = get_cfg()
    m = cfg.MODEL
    m.DEVICE, m.META_ARCHITECTURE, m.MASK_ON = "cpu", meta_architecture, True
    m.BACKBONE.NAME = "export_test_backbone"
    m.ANCHOR_GENERATOR.SIZES = [[16], [32], [64], [96], [128]]
    m.PIXEL_STD = [58.0, 58.0, 58.0]
    m.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    m.ROI_HEADS.NAME, m.ROI_HEADS.NUM_CLASSES = "StandardROIHeads", 3
    m.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    m.ROI_BOX_HEAD.NAME, m.ROI_BOX_HEAD.POOLER_RESOLUTION = "FastRCNNConvFCHead", 4
    m.ROI_BOX_HEAD.NUM_FC, m.ROI_BOX_HEAD.FC_DIM = 1, 16
    m.ROI_MASK_HEAD.NAME, m.ROI_MASK_HEAD.POOLER_RESOLUTION = "MaskRCNNConvUpsampleHead", 6
    m.ROI_MASK_HEAD.NUM_CONV, m.ROI_MASK_HEAD.CONV_DIM = 1, 8
    m.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION, m.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = 6, 4
    m.ROI_KEYPOINT_HEAD.CONV_DIMS = [8]
    m.SEM_SEG_HEAD.NUM_CLASSES, m.SEM_SEG_HEAD.CONVS_DIM = 4, 32
    m.RETINANET.NUM_CLASSES, m.RETINANET.NUM_CONVS = 3, 1
    cfg.merge_from_list([x for item in settings.items() for x in item])
    return cfg
