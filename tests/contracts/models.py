"""The smallest models that have, between them, every registered part in them, and what to feed them.

Who registers a part adds a row to `COVERED_BY`, and a model to `MODELS` where none has the part yet; the
contracts of `test_models.py` then run on it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import FCOS, build_backbone, build_model
from detectron2.modeling.meta_arch.fcos import FCOSHead
from detectron2.structures import Boxes, Instances, Keypoints, PolygonMasks, RotatedBoxes

NUM_CLASSES, NUM_STUFF, NUM_KEYPOINTS = 3, 4, 5

TIMM = importlib.util.find_spec("timm") is not None
PYRAMID = ["p2", "p3", "p4", "p5"]


@dataclass(frozen=True)
class Model:
    """A row: how to make a model, and what is special about it."""

    settings: dict[str, Any] = field(default_factory=dict)
    make: Callable[[CfgNode], nn.Module] = build_model
    without_gradient: dict[str, str] = field(default_factory=dict)
    """Prefix of a parameter's name: why no gradient reaches it in an ordinary step."""
    export_refusal: str | None = None
    """What `export_program` answers; None where it exports."""
    skip: str | None = None


def _fcos(cfg: CfgNode) -> FCOS:
    """FCOS has no key in the tree of defaults: Python configs make it from arguments."""
    backbone = build_backbone(cfg)
    shapes = list(backbone.output_shape().values())
    head = FCOSHead(input_shape=shapes, num_classes=NUM_CLASSES, conv_dims=[16], norm="")
    return FCOS(
        backbone=backbone, head=head, num_classes=NUM_CLASSES, test_score_thresh=0.0,
        test_topk_candidates=20, pixel_mean=cfg.MODEL.PIXEL_MEAN, pixel_std=cfg.MODEL.PIXEL_STD,
    )  # fmt: skip


_DENSE = {
    "META_ARCHITECTURE": "RetinaNet",
    "BACKBONE.NAME": "build_retinanet_resnet_fpn_backbone",
    "RESNETS.OUT_FEATURES": ["res3", "res4", "res5"],
    "FPN.IN_FEATURES": ["res3", "res4", "res5"],
    "MASK_ON": False,
}
_C4 = {
    "BACKBONE.NAME": "build_resnet_backbone",
    "RESNETS.OUT_FEATURES": ["res4"],
    "RPN.IN_FEATURES": ["res4"],
    "ANCHOR_GENERATOR.SIZES": [[16, 32]],
    "ROI_HEADS.NAME": "Res5ROIHeads",
    "ROI_HEADS.IN_FEATURES": ["res4"],
}
_ROTATED = {
    "MASK_ON": False,
    "PROPOSAL_GENERATOR.NAME": "RRPN",
    "RPN.HEAD_NAME": "StandardRPNHead",
    "RPN.BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0, 1.0),
    "ANCHOR_GENERATOR.NAME": "RotatedAnchorGenerator",
    "ANCHOR_GENERATOR.ANGLES": [[-45, 0, 45]],
    "ROI_HEADS.NAME": "RROIHeads",
    "ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignRotated",
    "ROI_BOX_HEAD.BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0, 1.0),
}
_CASCADE = {"ROI_HEADS.NAME": "CascadeROIHeads", "ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True}
_RES2NET = {"BACKBONE.NAME": "build_res2net_fpn_backbone", "RES2NET.STAGE_BLOCKS": [2, 1, 1, 1]}
_TIMM = {"BACKBONE.NAME": "build_timm_fpn_backbone", "TIMM.NAME": "resnet10t", "TIMM.FREEZE_BN": False}
_NO_TIMM = None if TIMM else "timm is optional and not installed"
_NO_CLASS = "Export expects one of"

MODELS: dict[str, Model] = {
    "mask_rcnn": Model(),
    "keypoint_rcnn": Model(
        {"KEYPOINT_ON": True, "MASK_ON": False}, export_refusal="Keypoints are not exported"
    ),
    "cascade_rcnn": Model(_CASCADE),
    "mask_rcnn_c4": Model(_C4, export_refusal="Export"),
    "rotated_rcnn": Model(_ROTATED, export_refusal="Export"),
    "panoptic_fpn": Model({"META_ARCHITECTURE": "PanopticFPN"}),
    "semantic_segmentor": Model({"META_ARCHITECTURE": "SemanticSegmentor"}, export_refusal=_NO_CLASS),
    "proposal_network": Model({"META_ARCHITECTURE": "ProposalNetwork"}, export_refusal=_NO_CLASS),
    "retinanet": Model(_DENSE),
    "fcos": Model(_DENSE, make=_fcos, export_refusal=_NO_CLASS),
    "res2net": Model(_RES2NET),
    "res2net_c4": Model(
        {**_C4, **_RES2NET, "BACKBONE.NAME": "build_res2net_backbone"}, export_refusal="Export"
    ),
    "res2net_retinanet": Model(
        {**_RES2NET, **_DENSE, "BACKBONE.NAME": "build_retinanet_res2net_fpn_backbone"}
    ),
    "timm": Model(_TIMM, skip=_NO_TIMM),
    "timm_plain": Model({**_C4, **_TIMM, "BACKBONE.NAME": "build_timm_backbone"}, skip=_NO_TIMM),
    "timm_retinanet": Model(
        {**_DENSE, **_TIMM, "BACKBONE.NAME": "build_retinanet_timm_fpn_backbone"}, skip=_NO_TIMM
    ),
}

# Registry -> registered name -> the model above that has this part.
COVERED_BY: dict[str, dict[str, str]] = {
    "META_ARCH": {
        "GeneralizedRCNN": "mask_rcnn",
        "PanopticFPN": "panoptic_fpn",
        "ProposalNetwork": "proposal_network",
        "RetinaNet": "retinanet",
        "SemanticSegmentor": "semantic_segmentor",
    },
    "BACKBONE": {
        "build_resnet_backbone": "mask_rcnn_c4",
        "build_resnet_fpn_backbone": "mask_rcnn",
        "build_retinanet_resnet_fpn_backbone": "retinanet",
        "build_res2net_backbone": "res2net_c4",
        "build_res2net_fpn_backbone": "res2net",
        "build_retinanet_res2net_fpn_backbone": "res2net_retinanet",
        "build_timm_backbone": "timm_plain",
        "build_timm_fpn_backbone": "timm",
        "build_retinanet_timm_fpn_backbone": "timm_retinanet",
    },
    "PROPOSAL_GENERATOR": {"RPN": "mask_rcnn", "RRPN": "rotated_rcnn"},
    "RPN_HEAD": {"StandardRPNHead": "mask_rcnn"},
    "ANCHOR_GENERATOR": {"DefaultAnchorGenerator": "mask_rcnn", "RotatedAnchorGenerator": "rotated_rcnn"},
    "ROI_HEADS": {
        "StandardROIHeads": "mask_rcnn",
        "CascadeROIHeads": "cascade_rcnn",
        "Res5ROIHeads": "mask_rcnn_c4",
        "RROIHeads": "rotated_rcnn",
    },
    "ROI_BOX_HEAD": {"FastRCNNConvFCHead": "mask_rcnn"},
    "ROI_MASK_HEAD": {"MaskRCNNConvUpsampleHead": "mask_rcnn"},
    "ROI_KEYPOINT_HEAD": {"KRCNNConvDeconvUpsampleHead": "keypoint_rcnn"},
    "SEM_SEG_HEADS": {"SemSegFPNHead": "panoptic_fpn"},
    "REGION_STAGE": {"build_resnet_backbone": "mask_rcnn_c4", "build_res2net_backbone": "res2net_c4"},
}


def make_cfg(name: str) -> CfgNode:
    """The config of a model: three classes of things, four of stuff, and few channels."""
    cfg = get_cfg()
    settings = {
        "DEVICE": "cpu",
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "MASK_ON": True,
        "PIXEL_STD": [58.0, 58.0, 58.0],
        "BACKBONE.NAME": "build_resnet_fpn_backbone",
        "RESNETS.DEPTH": 50,
        "RESNETS.STEM_OUT_CHANNELS": 8,
        "RESNETS.RES2_OUT_CHANNELS": 8,
        "RESNETS.WIDTH_PER_GROUP": 8,
        "RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
        "FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
        "FPN.OUT_CHANNELS": 16,
        "ANCHOR_GENERATOR.SIZES": [[8], [16], [32], [64], [128]],
        "RPN.IN_FEATURES": [*PYRAMID, "p6"],
        "RPN.PRE_NMS_TOPK_TRAIN": 50,
        "RPN.PRE_NMS_TOPK_TEST": 50,
        "RPN.POST_NMS_TOPK_TRAIN": 20,
        "RPN.POST_NMS_TOPK_TEST": 20,
        "ROI_HEADS.NAME": "StandardROIHeads",
        "ROI_HEADS.IN_FEATURES": PYRAMID,
        "ROI_HEADS.NUM_CLASSES": NUM_CLASSES,
        "ROI_HEADS.SCORE_THRESH_TEST": 0.0,
        "ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,
        "ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
        "ROI_BOX_HEAD.NUM_FC": 1,
        "ROI_BOX_HEAD.FC_DIM": 16,
        "ROI_BOX_HEAD.POOLER_RESOLUTION": 4,
        "ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
        "ROI_MASK_HEAD.NUM_CONV": 1,
        "ROI_MASK_HEAD.CONV_DIM": 8,
        "ROI_MASK_HEAD.POOLER_RESOLUTION": 6,
        "ROI_KEYPOINT_HEAD.CONV_DIMS": [8],
        "ROI_KEYPOINT_HEAD.NUM_KEYPOINTS": NUM_KEYPOINTS,
        "ROI_KEYPOINT_HEAD.POOLER_RESOLUTION": 6,
        "SEM_SEG_HEAD.NUM_CLASSES": NUM_STUFF,
        "SEM_SEG_HEAD.CONVS_DIM": 32,
        "RETINANET.NUM_CLASSES": NUM_CLASSES,
        "RETINANET.NUM_CONVS": 1,
        "RETINANET.SCORE_THRESH_TEST": 0.0,
        "RETINANET.TOPK_CANDIDATES_TEST": 20,
        **MODELS[name].settings,
    }
    cfg.merge_from_list([x for key, value in settings.items() for x in (f"MODEL.{key}", value)])
    cfg.TEST.DETECTIONS_PER_IMAGE = 10
    return cfg


def make_model(name: str, seed: int = 0) -> nn.Module:
    """Build a model anew, in training mode."""
    if MODELS[name].skip:
        pytest.skip(MODELS[name].skip)
    torch.manual_seed(seed)
    model: nn.Module = MODELS[name].make(make_cfg(name))
    return model


@cache
def make_input(name: str, num_objects: int = 2, size: tuple[int, int] = (64, 96)) -> dict[str, Any]:
    """One image with all labels that any of the models wants; without objects its stuff is unknown too."""
    height, width = size
    rng = np.random.default_rng(num_objects)
    corner = rng.uniform(0, 0.5, (num_objects, 2)) * [width, height]
    boxes = np.concatenate([corner, corner + rng.uniform(0.2, 0.5, (num_objects, 2)) * [width, height]], 1)
    keypoints = np.full((num_objects, NUM_KEYPOINTS, 3), 2, "float32")
    keypoints[..., :2] = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None]
    instances = Instances(
        size,
        gt_boxes=_as_boxes(boxes, is_rotated=name == "rotated_rcnn"),
        gt_classes=torch.arange(num_objects) % NUM_CLASSES,
        gt_masks=PolygonMasks([[np.array([x0, y0, x1, y0, x1, y1, x0, y1])] for x0, y0, x1, y1 in boxes]),
        gt_keypoints=Keypoints(keypoints),
    )
    stuff = rng.integers(0, NUM_STUFF, size) if num_objects else np.full(size, 255)
    return {
        "image": torch.as_tensor(rng.integers(0, 256, (3, *size)), dtype=torch.uint8),
        "instances": instances,
        "sem_seg": torch.as_tensor(stuff),
        "height": 2 * height,
        "width": 2 * width,
    }


def _as_boxes(xyxy: np.ndarray, is_rotated: bool) -> Boxes | RotatedBoxes:
    boxes = torch.as_tensor(xyxy, dtype=torch.float32)
    if not is_rotated:
        return Boxes(boxes)
    centers, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    return RotatedBoxes(torch.cat([centers, sizes, torch.full((len(boxes), 1), 30.0)], dim=1))
