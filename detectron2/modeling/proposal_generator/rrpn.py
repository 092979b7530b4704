"""Region proposal network for rotated boxes.

Boxes are XYWHA (degrees, counter-clockwise) in input-image pixels; shapes as in `rpn.py` with B = 5.
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
from detectron2.structures.rotated_boxes import pairwise_iou
from detectron2.utils.user_errors import UserNotImplementedError

from ..box_kinds import ROTATED
from ..box_regression import Box2BoxTransformRotated
from .build import PROPOSAL_GENERATOR_REGISTRY
from .proposal_utils import select_top_proposals
from .rpn import RPN


def find_top_rrpn_proposals(
    proposals: list[Tensor],
    pred_objectness_logits: list[Tensor],
    image_sizes: list[tuple[int, int]],
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
) -> list[Instances]:
    """Keep the best rotated proposals of every image: top-k per level, clip, NMS per level, top-k of all.

    Args:
        proposals: L tensors (N, Ri, 5).
        pred_objectness_logits: L tensors (N, Ri).
        image_sizes: N (height, width) without padding.
        nms_thresh: rotated IoU above which the lower-scored of two proposals of a level goes.
        pre_nms_topk: how many enter NMS, per level and image.
        post_nms_topk: how many leave NMS, per image.
        min_box_size: proposals narrower or lower than this are dropped (pixels of the input image).
        training: whether non-finite predictions are an error (they are dropped otherwise).

    Returns:
        N `Instances` with `proposal_boxes` (`RotatedBoxes`) and `objectness_logits`, best first.
    """
    return select_top_proposals(
        proposals,
        pred_objectness_logits,
        image_sizes,
        nms_thresh,
        pre_nms_topk,
        post_nms_topk,
        min_box_size,
        training,
        kind=ROTATED,
    )


@PROPOSAL_GENERATOR_REGISTRY.register()
class RRPN(RPN):
    """Propose rotated boxes; matching, decoding and NMS use the rotated IoU."""

    box_kind = ROTATED
    _pairwise_iou = staticmethod(pairwise_iou)

    @configurable
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.anchor_boundary_thresh >= 0:
            raise UserNotImplementedError(
                "RRPN cannot ignore anchors by their distance from the image border; set "
                "MODEL.RPN.BOUNDARY_THRESH to -1"
            )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        arguments = super().from_config(cfg, input_shape)
        arguments["box2box_transform"] = Box2BoxTransformRotated(weights=cfg.MODEL.RPN.BBOX_REG_WEIGHTS)
        return arguments

    @torch.no_grad()
    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Decode predictions and keep the best of every image, as `RPN.predict_proposals`, with B = 5."""
        return find_top_rrpn_proposals(
            self._decode_proposals(anchors, pred_anchor_deltas),
            pred_objectness_logits,
            image_sizes,
            self.nms_thresh,
            int(self.pre_nms_topk[self.training]),
            int(self.post_nms_topk[self.training]),
            self.min_box_size,
            self.training,
        )
