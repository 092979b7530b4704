"""Parts that several models have."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNOutputLayers

ASPECT_RATIOS = [0.5, 1.0, 2.0]


def resnet50(out_features):
    """ResNet-50 as Caffe's weights need it."""
    return L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=L(ResNet.make_default_stages)(depth=50, norm="FrozenBN", stride_in_1x1=True),
        out_features=list(out_features),
    )


def anchors(sizes, strides):
    """Anchors of three shapes; per level, their sizes and the stride."""
    return L(DefaultAnchorGenerator)(
        sizes=sizes, aspect_ratios=ASPECT_RATIOS, strides=list(strides), offset=0.0
    )


def matcher(*thresholds):
    """Matches above the last threshold are positive, those below the first negative, between them ignored.

    Given two thresholds, every object also gets the boxes that overlap it most.
    """
    two = len(thresholds) == 2
    return L(Matcher)(
        thresholds=list(thresholds), labels=[0, -1, 1] if two else [0, 1], allow_low_quality_matches=two
    )


def box_transform(*weights):
    """Box regression with weights of (dx, dy, dw, dh)."""
    return L(Box2BoxTransform)(weights=list(weights))


def rpn(in_features, in_channels, anchor_sizes, strides, *, pre_nms_topk, post_nms_topk):
    """Region proposals; the top-k are (in training, at test time)."""
    return L(RPN)(
        in_features=list(in_features),
        head=L(StandardRPNHead)(
            in_channels=in_channels, num_anchors=len(ASPECT_RATIOS) * len(anchor_sizes[0])
        ),
        anchor_generator=anchors(anchor_sizes, strides),
        anchor_matcher=matcher(0.3, 0.7),
        box2box_transform=box_transform(1.0, 1.0, 1.0, 1.0),
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_topk=pre_nms_topk,
        post_nms_topk=post_nms_topk,
        nms_thresh=0.7,
    )


def region_pooler(output_size, strides):
    """ROIAlign on maps of these strides."""
    return L(ROIPooler)(
        output_size=output_size,
        scales=tuple(1.0 / stride for stride in strides),
        sampling_ratio=0,
        pooler_type="ROIAlignV2",
    )


def box_predictor(input_shape, num_classes, box_weights=(10, 10, 5, 5)):
    """Classes and boxes from a vector per region."""
    return L(FastRCNNOutputLayers)(
        input_shape=input_shape,
        box2box_transform=box_transform(*box_weights),
        num_classes=num_classes,
        test_score_thresh=0.05,
    )


def sampling():
    """Which regions the heads of an R-CNN train on."""
    return {"batch_size_per_image": 512, "positive_fraction": 0.25, "proposal_matcher": matcher(0.5)}


def pooled(channels, size):
    """Shape of the features of a region."""
    return ShapeSpec(channels=channels, height=size, width=size)
