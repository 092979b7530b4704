"""Region heads for rotated boxes.

Boxes are XYWHA (degrees, counter-clockwise) in input-image pixels; shapes as in `fast_rcnn.py` with 5 numbers
a box.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.structures.boxes import Boxes
from detectron2.structures.instances import Instances
from detectron2.structures.rotated_boxes import pairwise_iou as pairwise_iou_rotated
from detectron2.utils.user_errors import UserValueError

from ..box_kinds import ROTATED
from ..box_regression import Box2BoxTransformRotated
from .box_head import build_box_head
from .detections import detect_in_image
from .fast_rcnn import FastRCNNOutputLayers, Predictions
from .roi_heads.base import ROI_HEADS_REGISTRY
from .roi_heads.box_stage import build_pooler
from .roi_heads.standard import StandardROIHeads


def fast_rcnn_inference_rotated(
    boxes: list[Tensor],
    scores: list[Tensor],
    image_shapes: list[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[list[Instances], list[Tensor]]:
    """Choose the rotated detections of every image; as `fast_rcnn_inference` with boxes (Ri, Kb * 5)."""
    results = [
        fast_rcnn_inference_single_image_rotated(b, s, shape, score_thresh, nms_thresh, topk_per_image)
        for b, s, shape in zip(boxes, scores, image_shapes)
    ]
    return [instances for instances, _ in results], [rows for _, rows in results]


@torch.no_grad()
def fast_rcnn_inference_single_image_rotated(
    boxes: Tensor,
    scores: Tensor,
    image_shape: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[Instances, Tensor]:
    """Do what `fast_rcnn_inference_rotated` does for one image."""
    return detect_in_image(boxes, scores, image_shape, score_thresh, nms_thresh, topk_per_image, kind=ROTATED)


class RotatedFastRCNNOutputLayers(FastRCNNOutputLayers):
    """Class logits and deltas of rotated boxes."""

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        arguments = super().from_config(cfg, input_shape)
        arguments["box2box_transform"] = Box2BoxTransformRotated(
            weights=cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS
        )
        return arguments

    def inference(
        self, predictions: Predictions, proposals: list[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """Choose the rotated detections of every image; see `FastRCNNOutputLayers.inference`."""
        return fast_rcnn_inference_rotated(
            self.predict_boxes(predictions, proposals),
            self.predict_probs(predictions, proposals),
            [p.image_size for p in proposals],
            self.test_score_thresh,
            self.test_nms_thresh,
            self.test_topk_per_image,
        )


@ROI_HEADS_REGISTRY.register()
class RROIHeads(StandardROIHeads):
    """`StandardROIHeads` for rotated boxes; a box head only."""

    box_kind = ROTATED

    @configurable
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.mask_on or self.keypoint_on:
            raise UserValueError(
                "RROIHeads has no mask and no keypoint head: set MODEL.MASK_ON and KEYPOINT_ON to False"
            )
        if self.train_on_pred_boxes:
            raise UserValueError(
                "RROIHeads cannot train on predicted boxes: MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES"
            )

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        if cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE != "ROIAlignRotated":
            raise UserValueError(
                "RROIHeads needs MODEL.ROI_BOX_HEAD.POOLER_TYPE: ROIAlignRotated, "
                f"got {cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE}"
            )
        pooler, pooled_shape = build_pooler(cfg, cfg.MODEL.ROI_BOX_HEAD, input_shape)
        head = build_box_head(cfg, pooled_shape)
        return {
            "box_in_features": cfg.MODEL.ROI_HEADS.IN_FEATURES,
            "box_pooler": pooler,
            "box_head": head,
            "box_predictor": RotatedFastRCNNOutputLayers(cfg, head.output_shape),
        }

    def _match_quality(self, gt_boxes: Boxes, proposal_boxes: Boxes) -> Tensor:
        return pairwise_iou_rotated(gt_boxes, proposal_boxes)  # type: ignore[arg-type]  # both are rotated
