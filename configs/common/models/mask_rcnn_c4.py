"""Mask R-CNN on the fourth stage of ResNet-50; the fifth runs on regions."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import BottleneckBlock, ResNet
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead, Res5ROIHeads

from ..data.constants import constants
from .parts import box_predictor, region_pooler, resnet50, rpn, sampling

_res5 = L(ResNet.make_stage)(
    block_class=BottleneckBlock,
    num_blocks=3,
    in_channels=1024,
    out_channels=2048,
    bottleneck_channels=512,
    stride_in_1x1=True,
    stride_per_block=[2, 1, 1],
    norm="FrozenBN",
)
# What the heads get: after its stride, half of the pooled size.
_features = L(ShapeSpec)(channels="${...res5.out_channels}", height=7, width=7)

model = L(GeneralizedRCNN)(
    backbone=resnet50(["res4"]),
    proposal_generator=rpn(
        ["res4"],
        1024,
        [[32, 64, 128, 256, 512]],
        [16],
        pre_nms_topk=(12000, 6000),
        post_nms_topk=(2000, 1000),
    ),
    roi_heads=L(Res5ROIHeads)(
        num_classes=80,
        **sampling(),
        in_features=["res4"],
        pooler=region_pooler(14, [16]),
        res5=_res5,
        mask_head=L(MaskRCNNConvUpsampleHead)(
            input_shape=_features, conv_dims=[256], num_classes="${..num_classes}"
        ),
        # From the mean over a region.
        box_predictor=box_predictor(
            L(ShapeSpec)(channels="${...res5.out_channels}", height=1, width=1), "${..num_classes}"
        ),
    ),
    pixel_mean=constants.imagenet_bgr256_mean,
    pixel_std=constants.imagenet_bgr256_std,
    input_format="BGR",
)
