"""Mask R-CNN on ResNet-50 with a feature pyramid."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.roi_heads import FastRCNNConvFCHead, MaskRCNNConvUpsampleHead, StandardROIHeads

from ..data.constants import constants
from .parts import box_predictor, pooled, region_pooler, resnet50, rpn, sampling

_levels = ["p2", "p3", "p4", "p5", "p6"]
_strides = [4, 8, 16, 32, 64]

model = L(GeneralizedRCNN)(
    backbone=L(FPN)(
        bottom_up=resnet50(["res2", "res3", "res4", "res5"]),
        in_features="${.bottom_up.out_features}",
        out_channels=256,
        top_block=L(LastLevelMaxPool)(),
    ),
    proposal_generator=rpn(
        _levels,
        256,
        [[32], [64], [128], [256], [512]],
        _strides,
        pre_nms_topk=(2000, 1000),
        post_nms_topk=(1000, 1000),
    ),
    # Regions are pooled from all levels but the coarsest.
    roi_heads=L(StandardROIHeads)(
        num_classes=80,
        **sampling(),
        box_in_features=_levels[:-1],
        box_pooler=region_pooler(7, _strides[:-1]),
        box_head=L(FastRCNNConvFCHead)(input_shape=pooled(256, 7), conv_dims=[], fc_dims=[1024, 1024]),
        box_predictor=box_predictor(ShapeSpec(channels=1024), "${..num_classes}"),
        mask_in_features=_levels[:-1],
        mask_pooler=region_pooler(14, _strides[:-1]),
        mask_head=L(MaskRCNNConvUpsampleHead)(
            input_shape=pooled(256, 14), num_classes="${..num_classes}", conv_dims=[256] * 5
        ),
    ),
    pixel_mean=constants.imagenet_bgr256_mean,
    pixel_std=constants.imagenet_bgr256_std,
    input_format="BGR",
)
