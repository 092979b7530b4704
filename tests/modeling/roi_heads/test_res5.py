"""The stage res5 that runs on regions belongs to the backbone that the config names."""

from __future__ import annotations

import pytest
import torch

from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Res2NetBottleneckBlock, build_backbone
from detectron2.modeling.backbone.build import REGION_STAGE_REGISTRY, register_region_stage
from detectron2.modeling.backbone.residual import BottleneckBlock
from detectron2.modeling.roi_heads import Res5ROIHeads, build_roi_heads
from detectron2.structures import Boxes, ImageList, Instances, PolygonMasks


def c4_cfg(backbone: str) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = backbone
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res4"]
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 16
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.ROI_HEADS.NAME = "Res5ROIHeads"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    return cfg


def res5_of(cfg: CfgNode) -> torch.nn.Sequential:
    stage = build_roi_heads(cfg, {"res4": ShapeSpec(channels=64, stride=16)}).res5
    assert isinstance(stage, torch.nn.Sequential)
    return stage


@pytest.mark.parametrize(
    ("name", "block_class"),
    [("build_resnet_backbone", BottleneckBlock), ("build_res2net_backbone", Res2NetBottleneckBlock)],
)
def test_blocks_and_weight_names_are_those_of_the_whole_backbone(name: str, block_class: type) -> None:
    cfg = c4_cfg(name)
    res5 = res5_of(cfg)
    assert [type(block) for block in res5] == [block_class] * 3
    assert res5(torch.zeros(2, 64, 14, 14)).shape == (2, 128, 7, 7)
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    whole = build_backbone(cfg).res5
    shapes, expected = (
        {key: value.shape for key, value in stage.state_dict().items()} for stage in (res5, whole)
    )
    assert shapes == expected


def test_number_of_res2net_blocks_follows_the_config() -> None:
    cfg = c4_cfg("build_res2net_backbone")
    cfg.MODEL.RES2NET.STAGE_BLOCKS = [1, 1, 1, 2]
    assert len(res5_of(cfg)) == 2


def test_backbone_that_registers_no_stage_gets_that_of_resnet() -> None:
    assert isinstance(res5_of(c4_cfg("somebody_elses_backbone"))[0], BottleneckBlock)


def test_plug_in_brings_its_own_stage() -> None:
    cfg = c4_cfg("test_res5_backbone")

    @register_region_stage("test_res5_backbone")
    def build_stage(cfg: CfgNode) -> list:
        return [BottleneckBlock(64, 32, bottleneck_channels=4, stride=2)]

    try:
        assert len(res5_of(cfg)) == 1
        with pytest.raises(ValueError, match="already belongs"):
            register_region_stage("test_res5_backbone")(build_stage)
    finally:
        del REGION_STAGE_REGISTRY._obj_map["test_res5_backbone"]


def test_deformable_region_stage_is_refused() -> None:
    cfg = c4_cfg("build_res2net_backbone")
    cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE = [False, False, False, True]
    with pytest.raises(ValueError, match="DEFORM_ON_PER_STAGE"):
        res5_of(cfg)


def test_a_subclass_transforms_the_list_of_feature_maps() -> None:
    """In training and testing, for boxes and for masks."""
    seen = []

    class Doubled(Res5ROIHeads):
        def _shared_roi_transform(self, features: list[torch.Tensor], boxes: list[Boxes]) -> torch.Tensor:
            assert [tuple(x.shape) for x in features] == [(1, 64, 4, 4)]
            seen.append(len(boxes))
            return 2 * super()._shared_roi_transform(features, boxes)

    cfg = c4_cfg("build_resnet_backbone")
    cfg.MODEL.MASK_ON, cfg.MODEL.ROI_MASK_HEAD.NAME = True, "MaskRCNNConvUpsampleHead"
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    torch.manual_seed(0)
    heads = Doubled(cfg, {"res4": ShapeSpec(channels=64, stride=16)})
    features = {"res4": torch.rand(1, 64, 4, 4), "res3": torch.rand(1, 32, 8, 8)}
    images = ImageList(torch.zeros(1, 3, 64, 64), [(64, 64)])
    box = Boxes(torch.tensor([[5.0, 5, 40, 40]]))
    proposals = Instances((64, 64), proposal_boxes=box, objectness_logits=torch.ones(1))
    detections, _ = heads.eval()(images, features, [proposals])
    assert seen == [1, 1] and len(detections[0].pred_masks) == len(detections[0]) > 0
    masks = PolygonMasks([[[5.0, 5, 40, 5, 40, 40]]])
    truth = Instances((64, 64), gt_boxes=box, gt_classes=torch.tensor([1]), gt_masks=masks)
    _, losses = heads.train()(images, features, [proposals], [truth])
    assert seen == [1, 1, 1] and losses["loss_mask"] > 0
