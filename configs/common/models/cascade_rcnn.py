"""Cascade Mask R-CNN: three stages of boxes, each trained on better ones."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import CascadeROIHeads

from .mask_rcnn_fpn import model
from .parts import box_predictor, matcher

_heads = model.roi_heads
_heads._target_ = CascadeROIHeads
_head = _heads.pop("box_head")
for _replaced in ("box_predictor", "proposal_matcher"):
    del _heads[_replaced]


def _predictor(center_weight):
    """Boxes of all classes are refined alike; later stages see smaller offsets, and weigh them more."""
    size_weight = center_weight // 2
    predictor = box_predictor(
        ShapeSpec(channels=1024),
        "${...num_classes}",
        (center_weight, center_weight, size_weight, size_weight),
    )
    predictor.cls_agnostic_bbox_reg = True
    return predictor


_heads.box_heads = [_head, _head, _head]
_heads.box_predictors = [_predictor(center_weight) for center_weight in (10, 20, 30)]
_heads.proposal_matchers = [matcher(threshold) for threshold in (0.5, 0.6, 0.7)]
