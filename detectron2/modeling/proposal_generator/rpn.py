"""Region proposal network: class-agnostic objectness and box regression at every anchor (Ren et al., 2015).

Shapes: N images; L feature levels; C channels; Hi, Wi size of level i; A anchors per location; Ri = Hi * Wi *
A; R anchors over all levels; B numbers per box (4 XYXY, 5 XYWHA), in input-image pixels.
Labels of anchors: 1 foreground, 0 background, -1 ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.structures.boxes import Boxes, pairwise_iou
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.utils.memory import retry_if_cuda_oom
from detectron2.utils.user_errors import UserValueError

from ..anchor_generator import build_anchor_generator
from ..box_kinds import UPRIGHT, BoxKind
from ..box_regression import Box2BoxTransform, BoxTransform, dense_box_regression_loss
from ..inference import choose_proposals, in_anchor_order, top_per_level
from ..matcher import Matcher
from ..metrics import put_metrics
from ..sampling import subsample_labels
from .build import PROPOSAL_GENERATOR_REGISTRY
from .proposal_utils import find_top_rpn_proposals
from .rpn_head import RPN_HEAD_REGISTRY as RPN_HEAD_REGISTRY
from .rpn_head import StandardRPNHead as StandardRPNHead
from .rpn_head import build_rpn_head as build_rpn_head


@PROPOSAL_GENERATOR_REGISTRY.register()
class RPN(nn.Module):
    """Propose boxes that may hold an object of any class, and learn to."""

    # What the boxes are and how they are compared; a subclass for other boxes replaces both.
    box_kind: BoxKind = UPRIGHT
    _pairwise_iou: Callable[[Any, Any], Tensor] = staticmethod(pairwise_iou)

    @configurable
    def __init__(
        self,
        *,
        in_features: list[str],
        head: nn.Module,
        anchor_generator: nn.Module,
        anchor_matcher: Matcher,
        box2box_transform: BoxTransform,
        batch_size_per_image: int,
        positive_fraction: float,
        pre_nms_topk: tuple[float, float],
        post_nms_topk: tuple[float, float],
        nms_thresh: float = 0.7,
        min_box_size: float = 0.0,
        anchor_boundary_thresh: float = -1.0,
        loss_weight: float | dict[str, float] = 1.0,
        box_reg_loss_type: str = "smooth_l1",
        smooth_l1_beta: float = 0.0,
    ) -> None:
        """
        Args:
            in_features: names of the L feature maps to use.
            head: see `RPN_HEAD_REGISTRY`.
            anchor_generator: L feature maps -> L `Boxes`.
            anchor_matcher: labels anchors by their IoU with ground truth.
            box2box_transform: how deltas stand for boxes.
            batch_size_per_image: anchors per image that the losses look at.
            positive_fraction: largest share of foreground among them.
            pre_nms_topk: proposals per level that enter NMS, in training and in testing.
            post_nms_topk: proposals per image that leave NMS, in training and in testing.
            nms_thresh: IoU above which the lower-scored of two proposals of a level goes.
            min_box_size: proposals narrower or lower than this are dropped (pixels of the input image).
            anchor_boundary_thresh: anchors that reach further than this out of the image are ignored in
                training; negative to ignore none.
            loss_weight: one factor, or one for each of "loss_rpn_cls" and "loss_rpn_loc".
            box_reg_loss_type: "smooth_l1" on deltas, or "giou", "diou" or "ciou" on decoded boxes.
            smooth_l1_beta: where the smooth L1 loss turns from quadratic to linear.
        """
        super().__init__()
        self.rpn_head, self.anchor_generator = head, anchor_generator
        self.in_features = in_features
        # Labels and losses.
        self.anchor_matcher, self.box2box_transform = anchor_matcher, box2box_transform
        self.batch_size_per_image, self.positive_fraction = batch_size_per_image, positive_fraction
        self.anchor_boundary_thresh = anchor_boundary_thresh
        # Proposals; limits by self.training.
        self.pre_nms_topk = dict(zip((True, False), pre_nms_topk))
        self.post_nms_topk = dict(zip((True, False), post_nms_topk))
        self.nms_thresh, self.min_box_size = nms_thresh, float(min_box_size)
        names = ("loss_rpn_cls", "loss_rpn_loc")
        self.loss_weight = loss_weight if isinstance(loss_weight, dict) else dict.fromkeys(names, loss_weight)
        self.box_reg_loss_type = box_reg_loss_type
        self.smooth_l1_beta = smooth_l1_beta

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        node = cfg.MODEL.RPN
        shapes = [input_shape[name] for name in node.IN_FEATURES]
        return {
            "in_features": node.IN_FEATURES,
            "head": build_rpn_head(cfg, shapes),
            "anchor_generator": build_anchor_generator(cfg, shapes),
            "anchor_matcher": Matcher(node.IOU_THRESHOLDS, node.IOU_LABELS, allow_low_quality_matches=True),
            "box2box_transform": Box2BoxTransform(weights=node.BBOX_REG_WEIGHTS),
            "batch_size_per_image": node.BATCH_SIZE_PER_IMAGE,
            "positive_fraction": node.POSITIVE_FRACTION,
            "pre_nms_topk": (node.PRE_NMS_TOPK_TRAIN, node.PRE_NMS_TOPK_TEST),
            "post_nms_topk": (node.POST_NMS_TOPK_TRAIN, node.POST_NMS_TOPK_TEST),
            "nms_thresh": node.NMS_THRESH,
            "min_box_size": cfg.MODEL.PROPOSAL_GENERATOR.MIN_SIZE,
            "anchor_boundary_thresh": node.BOUNDARY_THRESH,
            "loss_weight": {
                "loss_rpn_cls": node.LOSS_WEIGHT,
                "loss_rpn_loc": node.LOSS_WEIGHT * node.BBOX_REG_LOSS_WEIGHT,
            },
            "box_reg_loss_type": node.BBOX_REG_LOSS_TYPE,
            "smooth_l1_beta": node.SMOOTH_L1_BETA,
        }

    def forward(
        self, images: ImageList, features: dict[str, Tensor], gt_instances: list[Instances] | None = None
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Propose boxes.

        Args:
            images: N images; only their sizes are used.
            features: by name, (N, C, Hi, Wi).
            gt_instances: per image, with `gt_boxes`; needed in training.

        Returns:
            Per image, `Instances` with `proposal_boxes` and `objectness_logits`, best first; and the losses,
            empty when not training.
        """
        anchors, logits, deltas = self.predict(features)
        losses: dict[str, Tensor] = {}
        if self.training:
            if gt_instances is None:
                raise UserValueError("The RPN needs gt_instances in training; the data loader gave none")
            gt_labels, gt_boxes = self.label_and_sample_anchors(anchors, gt_instances)
            losses = self.losses(anchors, logits, gt_labels, deltas, gt_boxes)
        return self.predict_proposals(anchors, logits, deltas, images.image_sizes), losses

    def predict(self, features: dict[str, Tensor]) -> tuple[list[Boxes], list[Tensor], list[Tensor]]:
        """Run the head.

        Args:
            features: by name, (N, C, Hi, Wi).

        Returns:
            Per level, Ri anchors, (N, Ri) logits and (N, Ri, B) deltas.
        """
        feature_list = [features[name] for name in self.in_features]
        anchors = self.anchor_generator(feature_list)
        logits, deltas = self.rpn_head(feature_list)
        box_dim = anchors[0].tensor.shape[1]
        # From here on in float32: mixed precision ends at the head.
        logits = [x.permute(0, 2, 3, 1).flatten(1).float() for x in logits]  # (N, Ri)
        return anchors, logits, [in_anchor_order(x, box_dim).float() for x in deltas]

    def propose_in_one_image(self, features: dict[str, Tensor], image_size: tuple[int, int]) -> Tensor:
        """Propose, with tensors alone: what `forward` does in testing, in a form that can be exported.

        Args:
            features: by name, (1, C, Hi, Wi).
            image_size: (height, width) without padding.

        Returns:
            (R, B) boxes, best first.
        """
        anchors, logits, deltas = self.predict(features)
        boxes, scores, levels = top_per_level(
            self._decode_proposals(anchors, deltas), logits, int(self.pre_nms_topk[False])
        )
        chosen, _ = choose_proposals(
            boxes[0],
            scores[0],
            levels,
            image_size,
            nms_thresh=self.nms_thresh,
            topk=int(self.post_nms_topk[False]),
            min_size=self.min_box_size,
            kind=self.box_kind,
        )
        return chosen

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Say what the head should predict at a random subset of the anchors of every image.

        Args:
            anchors: per level.
            gt_instances: per image, with `gt_boxes`.

        Returns:
            Per image, (R,) int8 labels, -1 for anchors that were not drawn; and (R, B) the ground truth box
            of each anchor, which means something only where the label is 1.
        """
        all_anchors = self.box_kind.structure.cat(anchors)
        labels_per_image, boxes_per_image = [], []
        for gt in gt_instances:
            boxes = gt.gt_boxes
            quality = retry_if_cuda_oom(self._pairwise_iou)(boxes, all_anchors)  # (M, R)
            matches, labels = retry_if_cuda_oom(self.anchor_matcher)(quality)
            labels = labels.to(boxes.device)
            if self.anchor_boundary_thresh >= 0:
                inside = all_anchors.inside_box(
                    gt.image_size,
                    self.anchor_boundary_thresh,  # type: ignore[arg-type]  # a fraction of a pixel will do
                )
                labels = labels.masked_fill(~inside, -1)
            labels_per_image.append(self._subsample_labels(labels))
            # An image without ground truth has no foreground: any box will do.
            boxes_per_image.append(
                boxes.tensor[matches] if len(boxes) else torch.zeros_like(all_anchors.tensor)
            )
        return labels_per_image, boxes_per_image

    def _subsample_labels(self, label: Tensor) -> Tensor:
        """(R,) labels of all anchors -> (R,) labels with -1 for those not drawn."""
        positive, negative = subsample_labels(label, self.batch_size_per_image, self.positive_fraction, 0)
        drawn = torch.full_like(label, -1)
        drawn[positive] = 1
        drawn[negative] = 0
        return drawn

    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """Compare predictions with the labelled anchors.

        Args:
            anchors: per level.
            pred_objectness_logits: per level, (N, Ri).
            gt_labels: per image, (R,).
            pred_anchor_deltas: per level, (N, Ri, B).
            gt_boxes: per image, (R, B).

        Returns:
            "loss_rpn_cls" and "loss_rpn_loc", both averaged over the anchors drawn (by their nominal number).
        """
        labels = torch.stack(gt_labels)  # (N, R)
        num_images = len(labels)
        is_foreground, is_drawn = labels == 1, labels >= 0
        put_metrics(
            {
                "rpn/num_pos_anchors": is_foreground.sum() / num_images,
                "rpn/num_neg_anchors": (labels == 0).sum() / num_images,
            }
        )
        localization = dense_box_regression_loss(
            list(anchors),
            self.box2box_transform,
            pred_anchor_deltas,
            gt_boxes,
            is_foreground,
            box_reg_loss_type=self.box_reg_loss_type,
            smooth_l1_beta=self.smooth_l1_beta,
        )
        objectness = F.binary_cross_entropy_with_logits(
            torch.cat(pred_objectness_logits, dim=1)[is_drawn].float(),
            labels[is_drawn].float(),
            reduction="sum",
        )
        normalizer = self.batch_size_per_image * num_images
        losses = {"loss_rpn_cls": objectness / normalizer, "loss_rpn_loc": localization / normalizer}
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}

    @torch.no_grad()
    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Decode predictions and keep the best of every image (proposals carry no gradient).

        Args:
            anchors: per level.
            pred_objectness_logits: per level, (N, Ri).
            pred_anchor_deltas: per level, (N, Ri, B).
            image_sizes: per image, (height, width).

        Returns:
            Per image, `Instances` with `proposal_boxes` and `objectness_logits`.
        """
        return find_top_rpn_proposals(
            self._decode_proposals(anchors, pred_anchor_deltas),
            pred_objectness_logits,
            image_sizes,
            self.nms_thresh,
            int(self.pre_nms_topk[self.training]),
            int(self.post_nms_topk[self.training]),
            self.min_box_size,
            self.training,
        )

    def _decode_proposals(self, anchors: list[Boxes], pred_anchor_deltas: list[Tensor]) -> list[Tensor]:
        """Per level, (N, Ri, B) boxes."""
        return [
            self.box2box_transform.apply_deltas(deltas, level.tensor.expand(deltas.shape[0], -1, -1))
            for level, deltas in zip(anchors, pred_anchor_deltas)
        ]
