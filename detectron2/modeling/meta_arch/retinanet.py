"""RetinaNet (Lin et al., 2017): dense detection by anchors, trained with the focal loss.

Shapes are those of `dense_detector`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.layers.losses import sigmoid_focal_loss
from detectron2.structures.boxes import Boxes, pairwise_iou
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances

from ..anchor_generator import build_anchor_generator
from ..backbone.backbone import Backbone
from ..backbone.build import build_backbone
from ..box_regression import Box2BoxTransform, BoxTransform, dense_box_regression_loss
from ..inference import Detections
from ..matcher import Matcher
from .build import META_ARCH_REGISTRY
from .dense_detector import DenseDetector, one_hot_targets, targets_of_matches
from .retinanet_head import RetinaNetHead as RetinaNetHead


@META_ARCH_REGISTRY.register()
class RetinaNet(DenseDetector):
    """Classify and refine anchors on all feature levels."""

    num_classes: int
    class_count_keys = {"thing": "MODEL.RETINANET.NUM_CLASSES"}

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: list[str],
        anchor_generator: nn.Module,
        box2box_transform: BoxTransform,
        anchor_matcher: Matcher,
        num_classes: int,
        focal_loss_alpha: float = 0.25,
        focal_loss_gamma: float = 2.0,
        smooth_l1_beta: float = 0.0,
        box_reg_loss_type: str = "smooth_l1",
        test_score_thresh: float = 0.05,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.5,
        max_detections_per_image: int = 100,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        vis_period: int = 0,
        input_format: str = "BGR",
    ) -> None:
        """
        Args:
            backbone: images -> feature maps by name.
            head: L feature maps -> L class logits (N, A*K, Hi, Wi) and L deltas (N, A*4, Hi, Wi).
            head_in_features: names of the feature maps for the head.
            anchor_generator: L feature maps -> L sets of anchors.
            box2box_transform: how deltas stand for boxes.
            anchor_matcher: IoU of ground truth and anchors -> which anchors are foreground.
            num_classes: K.
            focal_loss_alpha: weight of the positive class.
            focal_loss_gamma: how much less well-classified anchors count.
            smooth_l1_beta: where the smooth L1 loss turns from quadratic to linear.
            box_reg_loss_type: "smooth_l1" on deltas, or "giou", "diou" or "ciou" on decoded boxes.
            test_score_thresh: only higher scores count.
            test_topk_candidates: most candidates per level before NMS.
            test_nms_thresh: IoU above which the lower-scored of two detections of a class goes.
            max_detections_per_image: after NMS.
            pixel_mean: per channel, subtracted from images.
            pixel_std: per channel, divides images then.
            vis_period: every how many steps detections go to the event storage as a picture; 0 for never.
            input_format: channel order of images; needed for pictures only.
        """
        super().__init__(backbone, head, head_in_features, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.num_classes = num_classes
        self.anchor_generator = anchor_generator
        self.box2box_transform = box2box_transform
        self.anchor_matcher = anchor_matcher
        self.focal_loss_alpha, self.focal_loss_gamma = focal_loss_alpha, focal_loss_gamma
        self.smooth_l1_beta, self.box_reg_loss_type = smooth_l1_beta, box_reg_loss_type
        self.test_score_thresh, self.test_topk_candidates = test_score_thresh, test_topk_candidates
        self.test_nms_thresh, self.max_detections_per_image = test_nms_thresh, max_detections_per_image
        self.vis_period, self.input_format = vis_period, input_format
        self._setup_normalizer(initial=100)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.RETINANET
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        head_shapes = [shapes[name] for name in node.IN_FEATURES]
        return {
            "backbone": backbone,
            "head": RetinaNetHead(cfg, head_shapes),
            "head_in_features": node.IN_FEATURES,
            "anchor_generator": build_anchor_generator(cfg, head_shapes),
            "box2box_transform": Box2BoxTransform(weights=node.BBOX_REG_WEIGHTS),
            "anchor_matcher": Matcher(node.IOU_THRESHOLDS, node.IOU_LABELS, allow_low_quality_matches=True),
            "num_classes": node.NUM_CLASSES,
            "focal_loss_alpha": node.FOCAL_LOSS_ALPHA,
            "focal_loss_gamma": node.FOCAL_LOSS_GAMMA,
            "smooth_l1_beta": node.SMOOTH_L1_LOSS_BETA,
            "box_reg_loss_type": node.BBOX_REG_LOSS_TYPE,
            "test_score_thresh": node.SCORE_THRESH_TEST,
            "test_topk_candidates": node.TOPK_CANDIDATES_TEST,
            "test_nms_thresh": node.NMS_THRESH_TEST,
            "max_detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            **cls.image_arguments(cfg),
            "vis_period": cfg.VIS_PERIOD,
            "input_format": cfg.INPUT.FORMAT,
        }

    def forward_training(
        self, images: ImageList, features: list[Tensor], predictions: Any, gt_instances: list[Instances]
    ) -> dict[str, Tensor]:
        """See `DenseDetector.forward_training`."""
        logits, deltas = self._transpose_dense_predictions(predictions, (self.num_classes, 4))
        anchors = self.anchor_generator(features)
        gt_labels, gt_boxes = self.label_anchors(anchors, gt_instances)
        return self.losses(anchors, logits, gt_labels, deltas, gt_boxes)

    def losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """Compare predictions with the targets of the anchors.

        Args:
            anchors: per level, Ri boxes.
            pred_logits: per level, (N, Ri, K).
            gt_labels: per image, (R,).
            pred_anchor_deltas: per level, (N, Ri, 4).
            gt_boxes: per image, (R, 4).

        Returns:
            "loss_cls" over all anchors that are not ignored and "loss_box_reg" over foreground, both divided
            by a running mean of the number of foreground anchors.
        """
        labels = torch.stack(gt_labels)  # (N, R)
        is_counted = labels >= 0
        is_foreground = is_counted & (labels != self.num_classes)
        normalizer = self._update_normalizer(is_foreground)
        loss_cls = sigmoid_focal_loss(
            torch.cat(pred_logits, dim=1)[is_counted],
            one_hot_targets(labels[is_counted], self.num_classes),
            self.focal_loss_alpha,
            self.focal_loss_gamma,
            reduction="sum",
        )
        loss_box_reg = dense_box_regression_loss(
            list(anchors),
            self.box2box_transform,
            pred_anchor_deltas,
            gt_boxes,
            is_foreground,
            self.box_reg_loss_type,
            self.smooth_l1_beta,
        )
        return {"loss_cls": loss_cls / normalizer, "loss_box_reg": loss_box_reg / normalizer}

    @torch.no_grad()
    def label_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Say for every anchor what it should predict.

        Args:
            anchors: per level, Ri boxes.
            gt_instances: per image, with `gt_boxes` and `gt_classes`.

        Returns:
            Per image, (R,) int64 labels and (R, 4) boxes; see `targets_of_matches`.
        """
        all_anchors = Boxes.cat(anchors)
        targets = [
            targets_of_matches(
                gt, *self.anchor_matcher(pairwise_iou(gt.gt_boxes, all_anchors)), self.num_classes
            )
            for gt in gt_instances
        ]
        return [labels for labels, _ in targets], [boxes for _, boxes in targets]

    def forward_inference(
        self, images: ImageList, features: list[Tensor], predictions: Any
    ) -> list[Instances]:
        """See `DenseDetector.forward_inference`."""
        logits, deltas = self._transpose_dense_predictions(predictions, (self.num_classes, 4))
        anchors = self.anchor_generator(features)
        return [
            self.inference_single_image(anchors, _scores_of(logits, i), [x[i] for x in deltas], image_size)
            for i, image_size in enumerate(images.image_sizes)
        ]

    def detect_in_one_image(self, features_by_name: dict[str, Tensor]) -> Detections:
        """Detect, with tensors alone: what `forward` does in testing, in a form that can be exported.

        Args:
            features_by_name: (1, C, Hi, Wi) each.
        """
        features = [features_by_name[name] for name in self.head_in_features]
        logits, deltas = self._transpose_dense_predictions(self.head(features), (self.num_classes, 4))
        anchors = self.anchor_generator(features)
        return self.choose_detections(anchors, _scores_of(logits, 0), [x[0] for x in deltas])


def _scores_of(logits: list[Tensor], image: int) -> list[Tensor]:
    """L tensors (N, Ri, K) of logits -> L tensors (Ri, K) of one image's scores."""
    return [x[image].float().sigmoid() for x in logits]
