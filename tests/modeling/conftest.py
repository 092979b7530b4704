"""Small models and inputs for tests of the modeling package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from detectron2.config import CfgNode, get_cfg
from detectron2.structures import Boxes, Instances, Keypoints, PolygonMasks

MakeConfig = Callable[..., CfgNode]


@pytest.fixture
def small_cfg() -> MakeConfig:
    """A function that makes the config of a small R-CNN with a pyramid: 3 thing classes, 4 stuff classes."""

    def make(meta_architecture: str = "GeneralizedRCNN", *overrides: Any) -> CfgNode:
        cfg = get_cfg()
        m = cfg.MODEL
        m.DEVICE = "cpu"
        m.META_ARCHITECTURE = meta_architecture
        m.BACKBONE.NAME = "build_resnet_fpn_backbone"
        m.RESNETS.DEPTH = 18
        m.RESNETS.RES2_OUT_CHANNELS = 64
        m.RESNETS.OUT_FEATURES = m.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
        m.FPN.OUT_CHANNELS = 16
        m.ANCHOR_GENERATOR.SIZES = [[8], [16], [32], [64], [128]]
        m.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
        m.RPN.PRE_NMS_TOPK_TRAIN = m.RPN.PRE_NMS_TOPK_TEST = 50
        m.RPN.POST_NMS_TOPK_TRAIN = m.RPN.POST_NMS_TOPK_TEST = 20
        m.ROI_HEADS.NAME = "StandardROIHeads"
        m.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
        m.ROI_HEADS.NUM_CLASSES = 3
        m.ROI_HEADS.SCORE_THRESH_TEST = 0.0
        m.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
        m.ROI_BOX_HEAD.NUM_FC, m.ROI_BOX_HEAD.FC_DIM = 1, 16
        m.ROI_BOX_HEAD.POOLER_RESOLUTION = 4
        m.ROI_MASK_HEAD.NUM_CONV, m.ROI_MASK_HEAD.CONV_DIM = 1, 8
        m.ROI_MASK_HEAD.POOLER_RESOLUTION = 6
        m.ROI_KEYPOINT_HEAD.CONV_DIMS, m.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = [8], 5
        m.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION = 6
        m.SEM_SEG_HEAD.NUM_CLASSES, m.SEM_SEG_HEAD.CONVS_DIM = 4, 64
        m.PIXEL_STD = [58.0, 58.0, 58.0]
        m.MASK_ON = meta_architecture == "PanopticFPN"
        cfg.TEST.DETECTIONS_PER_IMAGE = 10
        cfg.merge_from_list(list(overrides))
        return cfg

    return make


@pytest.fixture
def make_input() -> Callable[..., dict[str, Any]]:
    """A function that makes one training input of every kind: boxes, masks, keypoints, semantic labels."""

    def make(
        num_objects: int = 2, size: tuple[int, int] = (64, 96), num_keypoints: int = 5
    ) -> dict[str, Any]:
        height, width = size
        rng = np.random.default_rng(num_objects)
        corner = rng.uniform(0, 0.5, (num_objects, 2)) * [width, height]
        boxes = np.concatenate(
            [corner, corner + rng.uniform(0.2, 0.5, (num_objects, 2)) * [width, height]], 1
        )
        keypoints = np.zeros((num_objects, num_keypoints, 3), "float32")
        keypoints[..., :2] = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None]
        keypoints[..., 2] = 2
        instances = Instances(
            size,
            gt_boxes=Boxes(torch.as_tensor(boxes, dtype=torch.float32)),
            gt_classes=torch.arange(num_objects) % 3,
            gt_masks=PolygonMasks([[np.array([x0, y0, x1, y0, x1, y1, x0, y1])] for x0, y0, x1, y1 in boxes]),
            gt_keypoints=Keypoints(keypoints),
        )
        return {
            "image": torch.as_tensor(rng.integers(0, 256, (3, height, width)), dtype=torch.uint8),
            "instances": instances,
            "sem_seg": torch.as_tensor(rng.integers(0, 4, (height, width))),
            "height": 2 * height,
            "width": 2 * width,
        }

    return make
