"""RetinaNet (Lin et al., 2017): dense detection by anchors, trained with the focal loss.

Shapes are those of `dense_detector`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.layers.batch_norm import CycleBatchNormList, get_norm
from detectron2.layers.losses import sigmoid_focal_loss
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.structures.boxes import Boxes, pairwise_iou
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.utils.user_errors import UserValueError

from ..anchor_generator import build_anchor_generator
from ..backbone.backbone import Backbone, stated
from ..backbone.build import build_backbone
from ..box_regression import Box2BoxTransform, BoxTransform, dense_box_regression_loss
from ..inference import Detections
from ..matcher import Matcher
from .build import META_ARCH_REGISTRY
from .dense_detector import DenseDetector, one_hot_targets, targets_of_matches

logger = logging.getLogger(__name__)

Norm = str | Callable[[int], nn.Module] | None


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
            smooth_l1_beta: see `dense_box_regression_loss`.
            box_reg_loss_type: see `dense_box_regression_loss`.
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
        logits, deltas = self._in_anchor_order(predictions, self.num_classes, 4)
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
        logits, deltas = self._in_anchor_order(predictions, self.num_classes, 4)
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
        logits, deltas = self._in_anchor_order(self.head(features), self.num_classes, 4)
        anchors = self.anchor_generator(features)
        return self.choose_detections(anchors, _scores_of(logits, 0), [x[0] for x in deltas])


class RetinaNetHead(nn.Module):
    """Two stacks of convolutions that all levels share, one for classes and one for boxes."""

    @configurable
    def __init__(
        self,
        *,
        input_shape: list[ShapeSpec],
        num_classes: int,
        num_anchors: int,
        conv_dims: list[int],
        norm: Norm = "",
        prior_prob: float = 0.01,
    ) -> None:
        """
        Args:
            input_shape: channels of the feature levels.
            num_classes: K.
            num_anchors: A.
            conv_dims: channels of the convolutions of a stack.
            norm: normalisation after them, see `get_norm`. "BN" and "SyncBN" keep statistics for each level,
                because levels differ.
            prior_prob: score of an untrained model, far below 1/2 because nearly all anchors are background.
        """
        super().__init__()
        if not 0 < prior_prob < 1:
            raise UserValueError(f"prior_prob must lie in (0, 1), got {prior_prob}")
        self._num_features = len(input_shape)
        self.cls_subnet, self.bbox_subnet = self._make_subnets(
            stated(input_shape[0].channels, "channels of the feature levels"), conv_dims, norm
        )
        self.cls_score = nn.Conv2d(conv_dims[-1], num_anchors * num_classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(conv_dims[-1], num_anchors * 4, 3, padding=1)
        for part in (self.cls_subnet, self.bbox_subnet, self.cls_score, self.bbox_pred):
            init_convolutions(part)
        nn.init.constant_(self.cls_score.bias, math.log(prior_prob / (1 - prior_prob)))  # type: ignore[arg-type]

    def _make_subnets(
        self, in_channels: int, conv_dims: list[int], norm: Norm
    ) -> tuple[nn.Sequential, nn.Sequential]:
        """Both stacks; positions of layers are checkpoint names."""
        if not conv_dims:
            raise UserValueError("the head needs at least one convolution: MODEL.RETINANET.NUM_CONVS")
        stacks: tuple[list[nn.Module], list[nn.Module]] = ([], [])
        for inputs, outputs in zip([in_channels, *conv_dims], conv_dims):
            for layers in stacks:
                layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
                norm_layer = _norm_of_levels(norm, outputs, self._num_features)
                layers.extend([norm_layer] if norm_layer is not None else [])
                layers.append(nn.ReLU())
        if isinstance(norm, str) and norm.startswith("naiveSync"):
            logger.warning(
                "RetinaNetHead shares one %s by all feature levels, whose statistics differ; BN, SyncBN and "
                "GN do not mix them.",
                norm,
            )
        return nn.Sequential(*stacks[0]), nn.Sequential(*stacks[1])

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        node = cfg.MODEL.RETINANET
        num_anchors = set(build_anchor_generator(cfg, input_shape).num_cell_anchors)  # type: ignore[arg-type]
        if len(num_anchors) != 1:
            raise UserValueError(
                f"A head shared by all levels needs as many anchors on each, got {sorted(num_anchors)}; see "
                "MODEL.ANCHOR_GENERATOR.SIZES and ASPECT_RATIOS"
            )
        return {
            "input_shape": input_shape,
            "num_classes": node.NUM_CLASSES,
            "num_anchors": num_anchors.pop(),
            "conv_dims": [input_shape[0].channels] * node.NUM_CONVS,
            "norm": node.NORM,
            "prior_prob": node.PRIOR_PROB,
        }

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], ...]:
        """L maps (N, C, Hi, Wi) -> L class logits (N, A*K, Hi, Wi) and L deltas (N, A*4, Hi, Wi)."""
        self._check_num_levels(features)
        logits = [self.cls_score(self.cls_subnet(x)) for x in features]
        deltas = [self.bbox_pred(self.bbox_subnet(x)) for x in features]
        return logits, deltas

    def _check_num_levels(self, features: list[Tensor]) -> None:
        if len(features) != self._num_features:
            raise UserValueError(f"the head is made for {self._num_features} levels, got {len(features)}")


def _scores_of(logits: list[Tensor], image: int) -> list[Tensor]:
    """L tensors (N, Ri, K) of logits -> L tensors (Ri, K) of one image's scores."""
    return [x[image].float().sigmoid() for x in logits]


def _norm_of_levels(norm: Norm, channels: int, num_levels: int) -> nn.Module | None:
    if norm == "BN":
        return CycleBatchNormList(num_levels, nn.BatchNorm2d, num_features=channels)
    if norm == "SyncBN":
        return CycleBatchNormList(num_levels, nn.SyncBatchNorm, num_features=channels)
    return get_norm(norm, channels)


def init_convolutions(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
