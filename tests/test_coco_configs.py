"""The COCO configs hold the published values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detectron2.config import CfgNode, get_cfg

PANOPTIC = "COCO-PanopticSegmentation/"
LEVELS = ["p2", "p3", "p4", "p5"]
R50, R101 = (f"detectron2://ImageNetPretrained/MSRA/R-{depth}.pkl" for depth in (50, 101))
SHORT, LONG = (90000, (60000, 80000)), (270000, (210000, 250000))

# What every file changes or inherits from Base-RCNN-FPN.yaml.
COMMON: dict[str, Any] = {
    "MODEL.RPN.IN_FEATURES": [*LEVELS, "p6"],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": LEVELS,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.02,
    "INPUT.MIN_SIZE_TRAIN": (640, 672, 704, 736, 768, 800),
}
PERSON = {
    "MODEL.KEYPOINT_ON": True,
    "MODEL.ROI_HEADS.NUM_CLASSES": 1,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1500,
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.5,
    "DATASETS.TRAIN": ("keypoints_coco_2017_train",),
    "DATASETS.TEST": ("keypoints_coco_2017_val",),
}
STUFF_AND_THINGS = {
    "MODEL.META_ARCHITECTURE": "PanopticFPN",
    "MODEL.MASK_ON": True,
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": 0.5,
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": False,
    "DATASETS.TRAIN": ("coco_2017_train_panoptic_separated",),
    "DATASETS.TEST": ("coco_2017_val_panoptic_separated",),
}
RES2NET = {
    **STUFF_AND_THINGS,
    "MODEL.BACKBONE.NAME": "build_res2net_fpn_backbone",
    "MODEL.RESNETS.WIDTH_PER_GROUP": 26,
    "MODEL.RES2NET.SCALE": 4,
    "MODEL.RES2NET.DEEP_STEM": True,
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "INPUT.FORMAT": "RGB",
}
PROPOSALS_ONLY = {"MODEL.META_ARCHITECTURE": "ProposalNetwork", "MODEL.RPN.POST_NMS_TOPK_TEST": 2000}
SEMANTIC = {
    "MODEL.META_ARCHITECTURE": "SemanticSegmentor",
    "DATASETS.TRAIN": ("coco_2017_train_panoptic_stuffonly",),
    "DATASETS.TEST": ("coco_2017_val_panoptic_stuffonly",),
}
IN_3X3, IN_1X1 = {"MODEL.RESNETS.STRIDE_IN_1X1": False}, {"MODEL.RESNETS.STRIDE_IN_1X1": True}
PUBLISHED_R2 = {**RES2NET, **IN_1X1, "DATALOADER.FILTER_EMPTY_ANNOTATIONS": True}
MASKS = {"MODEL.MASK_ON": True}

# File -> depth, weights, (steps in all, learning rate drops), other values.
EXPECTED: dict[str, tuple[int, str, tuple[int, tuple[int, int]], dict[str, Any]]] = {
    "COCO-Detection/rpn_R_50_FPN_1x.yaml": (50, R50, SHORT, PROPOSALS_ONLY),
    "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml": (50, R50, SHORT, {}),
    "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml": (50, R50, LONG, {}),
    "COCO-Detection/faster_rcnn_R_101_FPN_3x.yaml": (101, R101, LONG, {}),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml": (50, R50, SHORT, MASKS),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml": (50, R50, LONG, MASKS),
    "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x.yaml": (101, R101, LONG, MASKS),
    "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml": (50, R50, SHORT, PERSON),
    "COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x.yaml": (50, R50, LONG, PERSON),
    "COCO-Keypoints/keypoint_rcnn_R_101_FPN_3x.yaml": (101, R101, LONG, PERSON),
    PANOPTIC + "panoptic_fpn_R_50_1x.yaml": (50, R50, SHORT, STUFF_AND_THINGS),
    PANOPTIC + "panoptic_fpn_R_50_3x.yaml": (50, R50, LONG, STUFF_AND_THINGS),
    PANOPTIC + "panoptic_fpn_R_101_3x.yaml": (101, R101, LONG, STUFF_AND_THINGS),
    PANOPTIC + "panoptic_fpn_R2_50_1x.yaml": (50, "r2_50.pkl", SHORT, {**RES2NET, **IN_3X3}),
    PANOPTIC + "panoptic_fpn_R2_50_3x.yaml": (50, "r2_50.pkl", LONG, {**RES2NET, **IN_3X3}),
    PANOPTIC + "panoptic_fpn_R2_101_3x.yaml": (101, "r2_101.pkl", LONG, PUBLISHED_R2),
    PANOPTIC + "panoptic_fpn_R2_101_v1b_3x.yaml": (101, "r2_101.pkl", LONG, {**RES2NET, **IN_3X3}),
    "Misc/semantic_R_50_FPN_1x.yaml": (50, R50, SHORT, SEMANTIC),
}


def flat(node: CfgNode, prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, CfgNode):
            out.update(flat(value, f"{prefix}{key}."))
        else:
            out[prefix + key] = value
    return out


def load(root: Path, name: str) -> dict[str, Any]:
    cfg = get_cfg()
    cfg.merge_from_file(str(root / "configs" / name))
    return flat(cfg)


@pytest.mark.parametrize("name", EXPECTED)
def test_values(name: str, repo_root: Path) -> None:
    depth, weights, (num_steps, drops), more = EXPECTED[name]
    expected = {
        **COMMON,
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.WEIGHTS": weights,
        "SOLVER.MAX_ITER": num_steps,
        "SOLVER.STEPS": drops,
        **more,
    }
    got = load(repo_root, name)
    assert {key: got[key] for key in expected} == expected


@pytest.fixture(scope="module")
def published(shared_dir: Path) -> dict[str, Any]:
    return json.loads((shared_dir / "spec" / "zoo.json").read_text())


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def published_values(record: dict[str, Any]) -> dict[str, Any]:
    """All keys of a published config, in our spelling."""
    values = {key: as_json(value) for key, value in flat(get_cfg()).items()}
    values.update(record["non_default"])
    if "MODEL.RESNETS.SCALE" in values:
        # The fork's spelling; `build_resnet_*` stands for its twin there.
        values["MODEL.RES2NET.SCALE"] = values.pop("MODEL.RESNETS.SCALE")
        values["MODEL.BACKBONE.NAME"] = "build_res2net_fpn_backbone"
    return values


def test_every_published_config_is_here(repo_root: Path, published: dict[str, Any]) -> None:
    assert [name for name in published if not (repo_root / "configs" / name).is_file()] == []


def test_all_published_values_and_nothing_else(repo_root: Path, published: dict[str, Any]) -> None:
    wrong = {}
    for name, record in published.items():
        expected = published_values(record)
        got = {key: as_json(value) for key, value in load(repo_root, name).items()}
        differing = {key for key in expected if got.get(key) != expected[key]}
        if differing:
            wrong[name] = {key: (got.get(key), expected[key]) for key in differing}
    assert wrong == {}


def test_bases_are_the_published_ones(repo_root: Path, published: dict[str, Any]) -> None:
    for name, record in published.items():
        if record["base"] is None or "_R2_" in name:
            continue
        lines = (repo_root / "configs" / name).read_text().splitlines()
        (base,) = [line.removeprefix("_BASE_: ") for line in lines if line.startswith("_BASE_")]
        assert base == record["base"].removeprefix("./"), name
