"""RetinaNet on ResNet-50."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.fpn import FPN, LastLevelP6P7
from detectron2.modeling.meta_arch.retinanet import RetinaNet, RetinaNetHead

from ..data.constants import constants
from .parts import anchors, box_transform, matcher, resnet50

_levels = range(3, 8)
# Three sizes per octave.
_sizes = [[2 ** (level + 2 + third / 3) for third in range(3)] for level in _levels]

model = L(RetinaNet)(
    backbone=L(FPN)(
        bottom_up=resnet50(["res3", "res4", "res5"]),
        in_features="${.bottom_up.out_features}",
        out_channels=256,
        top_block=L(LastLevelP6P7)(in_channels=2048, out_channels="${..out_channels}"),
    ),
    head=L(RetinaNetHead)(
        input_shape=[ShapeSpec(channels=256)] * len(_levels),
        num_classes="${..num_classes}",
        num_anchors=9,
        conv_dims=[256] * 4,
        prior_prob=0.01,
    ),
    head_in_features=[f"p{level}" for level in _levels],
    anchor_generator=anchors(_sizes, [2**level for level in _levels]),
    anchor_matcher=matcher(0.4, 0.5),
    box2box_transform=box_transform(1.0, 1.0, 1.0, 1.0),
    focal_loss_gamma=2.0,
    focal_loss_alpha=0.25,
    num_classes=80,
    pixel_mean=constants.imagenet_bgr256_mean,
    pixel_std=constants.imagenet_bgr256_std,
    input_format="BGR",
)
