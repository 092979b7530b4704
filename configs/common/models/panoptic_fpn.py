"""Panoptic FPN: Mask R-CNN and a semantic head on one pyramid."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch import PanopticFPN
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead

from .mask_rcnn_fpn import model

_semantic = L(SemSegFPNHead)(
    input_shape={
        f"p{level}": L(ShapeSpec)(channels="${....backbone.out_channels}", stride=2**level)
        for level in (2, 3, 4, 5)
    },
    # 53 kinds of stuff, and one for all things.
    num_classes=54,
    conv_dims=128,
    common_stride=4,
    norm="GN",
    loss_weight=0.5,
    ignore_value=255,
)

model.update(_target_=PanopticFPN, sem_seg_head=_semantic)
