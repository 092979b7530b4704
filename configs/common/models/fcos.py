"""FCOS on ResNet-50: a dense detector without anchors."""

from detectron2.config import LazyCall as L
from detectron2.modeling.box_regression import Box2BoxTransformLinear
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead

from .retinanet import model

model._target_ = FCOS
for _unused in ("anchor_generator", "anchor_matcher", "input_format"):
    del model[_unused]
model.box2box_transform = L(Box2BoxTransformLinear)(normalize_by_size=True)

model.head._target_ = FCOSHead
model.head.norm = "GN"
del model.head["num_anchors"]

# p6 is made from p5, and not from res5.
model.backbone.top_block.update(in_feature="p5", in_channels="${..out_channels}")
