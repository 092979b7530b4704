"""What the packages of others are given to work with: a small detector in files, and a scene.

The tests here need the environment of `make test-clients`, which sets the variable; without it none is
collected.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detectron2 import model_zoo
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data.datasets.shapes import write_shapes
from detectron2.data.detection_utils import read_image
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model

collect_ignore_glob = [] if os.environ.get("DETECTRON2_TEST_CLIENTS") == "1" else ["test_*.py"]

CLASSES = ("text", "title", "list", "table", "figure")


@dataclass(frozen=True)
class Detector:
    """A detector as users have it: a YAML, weights, and what our own predictor says of an image."""

    cfg: CfgNode
    config_file: str
    weights: str

    def __call__(self, image: np.ndarray) -> Any:
        return DefaultPredictor(self.cfg)(image)["instances"]


@pytest.fixture(scope="session")
def small_cfg() -> CfgNode:
    """Mask R-CNN of the zoo, made narrow. Its weights are random, so it takes every score for a detection."""
    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 16
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 32
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 8
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 64
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = 1
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 32
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(CLASSES)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 32
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 50
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 50
    cfg.TEST.DETECTIONS_PER_IMAGE = 10
    cfg.INPUT.MIN_SIZE_TEST = 128
    cfg.INPUT.MAX_SIZE_TEST = 256
    cfg.INPUT.MIN_SIZE_TRAIN = (128,)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SEED = 3
    return cfg


@pytest.fixture(scope="session")
def detector(small_cfg: CfgNode, tmp_path_factory: pytest.TempPathFactory) -> Detector:
    folder = tmp_path_factory.mktemp("detector")
    torch.manual_seed(3)
    model = build_model(small_cfg)
    _temper(model)
    DetectionCheckpointer(model, str(folder), save_to_disk=True).save("model_final")
    cfg = small_cfg.clone()
    cfg.MODEL.WEIGHTS = str(folder / "model_final.pth")
    (folder / "config.yaml").write_text(cfg.dump())
    return Detector(cfg, str(folder / "config.yaml"), cfg.MODEL.WEIGHTS)


def _temper(model: torch.nn.Module) -> None:
    """Keep random weights from being certain of one thing: boxes stay near their anchors, masks are full."""
    heads, rpn = model.roi_heads, model.proposal_generator.rpn_head
    boxes = heads.box_predictor
    last = (rpn.objectness_logits, rpn.anchor_deltas, boxes.cls_score, boxes.bbox_pred)
    with torch.no_grad():
        for layer in last:
            layer.weight *= 1e-3
        heads.mask_head.predictor.weight *= 1e-3
        heads.mask_head.predictor.bias += 2.0


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a few scenes of 128 x 192 pixels."""
    root = tmp_path_factory.mktemp("datasets")
    write_shapes("train", 4, root=root, image_size=(128, 192))
    write_shapes("val", 2, root=root, image_size=(128, 192))
    return root


@pytest.fixture(scope="session")
def image(scenes: Path) -> np.ndarray:
    """(128, 192, 3) uint8, BGR."""
    path = next(iter(sorted((scenes / "shapes" / "train").glob("*.jpg"))))
    return read_image(str(path), format="BGR")
