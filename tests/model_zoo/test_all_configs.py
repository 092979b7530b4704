"""Every shipped YAML config makes a model that trains a step and finds things in an image.

At the sizes of the config this takes seconds each, so `make test` runs them with narrow layers, and
`make test-all` as they are too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import Boxes, Instances, Keypoints, PolygonMasks
from detectron2.utils.events import EventStorage

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
HEIGHT, WIDTH = 64, 96


def names() -> list[str]:
    found = (path.relative_to(CONFIGS).as_posix() for path in sorted(CONFIGS.rglob("*.yaml")))
    return [name for name in found if not name.rpartition("/")[2].startswith("Base-")]


def load(name: str) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIGS / name))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN = cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = 60
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 20
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 16
    cfg.TEST.DETECTIONS_PER_IMAGE = 5
    return cfg


def narrow(cfg: CfgNode) -> None:
    """Make layers narrow and the backbone shallow; what the model is made of stays."""
    model = cfg.MODEL
    channels = 32  # GroupNorm has 32 groups
    resnets = model.RESNETS
    resnets.DEPTH = min(resnets.DEPTH, 50)
    resnets.STEM_OUT_CHANNELS = resnets.RES2_OUT_CHANNELS = channels
    resnets.WIDTH_PER_GROUP = channels if resnets.NORM == "GN" else 4
    if "res2net" in model.BACKBONE.NAME:
        model.RES2NET.STAGE_BLOCKS = [2, 1, 1, 1]
    model.FPN.OUT_CHANNELS = model.SEM_SEG_HEAD.CONVS_DIM = channels
    model.ROI_BOX_HEAD.CONV_DIM = model.ROI_BOX_HEAD.FC_DIM = model.ROI_MASK_HEAD.CONV_DIM = channels
    model.ROI_KEYPOINT_HEAD.CONV_DIMS = [channels]
    model.RETINANET.NUM_CONVS = 1


def make_input(cfg: CfgNode) -> dict[str, Any]:
    """One image with two objects and all that any of the models wants to know about it."""
    rng = np.random.default_rng(0)
    boxes = np.array([[5, 6, 50, 40], [30, 20, 90, 60]], "float32")
    keypoints = np.full((2, 17, 3), 2, "float32")
    keypoints[:, :, :2] = rng.uniform(boxes[:, None, :2], boxes[:, None, 2:], (2, 17, 2))
    instances = Instances(
        (HEIGHT, WIDTH),
        gt_boxes=Boxes(torch.from_numpy(boxes)),
        gt_classes=torch.tensor([0, cfg.MODEL.ROI_HEADS.NUM_CLASSES - 1]),
        gt_masks=PolygonMasks([[np.array([x0, y0, x1, y0, x1, y1, x0, y1])] for x0, y0, x1, y1 in boxes]),
        gt_keypoints=Keypoints(keypoints),
    )
    return {
        "image": torch.from_numpy(rng.integers(0, 256, (3, HEIGHT, WIDTH))).to(torch.uint8),
        "instances": instances,
        "sem_seg": torch.from_numpy(rng.integers(0, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, (HEIGHT, WIDTH))),
        "proposals": Instances(
            (HEIGHT, WIDTH),
            proposal_boxes=Boxes(torch.from_numpy(np.concatenate([boxes, boxes + 3]))),
            objectness_logits=torch.linspace(1, 0, 4),
        ),
        "height": 2 * HEIGHT,
        "width": 2 * WIDTH,
    }


def check_training_step(cfg: CfgNode, model: torch.nn.Module, image: dict[str, Any]) -> None:
    optimizer = build_optimizer(cfg, model)
    with EventStorage():
        losses = model([image])
    assert losses and all(loss.isfinite() for loss in losses.values()), losses
    sum(losses.values()).backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None] == []
    before = {name: p.detach().clone() for name, p in trained.items()}
    optimizer.step()
    assert any(not torch.equal(p, before[name]) for name, p in trained.items())


def check_inference(cfg: CfgNode, model: torch.nn.Module, image: dict[str, Any]) -> None:
    with torch.no_grad():
        (result,) = model([image])
    size = (2 * HEIGHT, 2 * WIDTH)
    kind = cfg.MODEL.META_ARCHITECTURE
    expected = {
        "ProposalNetwork": {"proposals"},
        "SemanticSegmentor": {"sem_seg"},
        "PanopticFPN": {"sem_seg", "instances", "panoptic_seg"},
    }.get(kind, {"instances"})
    assert set(result) == expected
    if "sem_seg" in result:
        assert result["sem_seg"].shape == (cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, *size)
    if "instances" in result:
        instances = result["instances"]
        assert instances.image_size == size and len(instances) <= 5
        assert instances.has("pred_masks") == cfg.MODEL.MASK_ON
        assert instances.has("pred_keypoints") == cfg.MODEL.KEYPOINT_ON


def check(cfg: CfgNode) -> None:
    torch.manual_seed(0)
    model = build_model(cfg)
    image = make_input(cfg)
    check_inference(cfg, model.eval(), image)
    check_training_step(cfg, model.train(), image)


@pytest.mark.parametrize("name", names())
def test_narrow_model_trains_and_predicts(name: str) -> None:
    cfg = load(name)
    narrow(cfg)
    check(cfg)


@pytest.mark.full
@pytest.mark.parametrize("name", names())
def test_model_trains_and_predicts(name: str) -> None:
    check(load(name))
