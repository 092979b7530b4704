"""Keypoint R-CNN: persons with the 17 keypoints of COCO, on ResNet-50 with a feature pyramid."""

from detectron2.config import LazyCall as L
from detectron2.modeling.roi_heads import KRCNNConvDeconvUpsampleHead

from .mask_rcnn_fpn import model
from .parts import pooled

_heads = model.roi_heads
_heads.update(
    num_classes=1,
    # The same regions as for masks.
    keypoint_in_features=_heads.pop("mask_in_features"),
    keypoint_pooler=_heads.pop("mask_pooler"),
    keypoint_head=L(KRCNNConvDeconvUpsampleHead)(
        input_shape=pooled(256, 14), num_keypoints=17, conv_dims=[512] * 8, loss_normalizer="visible"
    ),
)
del _heads["mask_head"]

# One class takes more proposals, and a smooth loss for its boxes, as in the first Detectron.
model.proposal_generator.post_nms_topk = (1500, 1000)
_heads.box_predictor.smooth_l1_beta = 0.5
