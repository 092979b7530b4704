"""The usual region heads: box, mask and keypoint heads that share features but nothing else.

Shapes: N images, Ri regions of image i. Boxes are XYXY in input-image pixels.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.modeling.box_kinds import UPRIGHT, BoxKind
from detectron2.modeling.inference import (
    Detections,
    choose_detections,
    own_class_mask_probabilities,
)
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures.boxes import Boxes
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.utils.user_errors import UserValueError

from ..box_head import build_box_head
from ..fast_rcnn import FastRCNNOutputLayers
from ..keypoint_head import build_keypoint_head
from ..mask_head import build_mask_head
from .base import ROI_HEADS_REGISTRY, ROIHeads
from .box_stage import build_pooler, run_box_head
from .selection import select_foreground_proposals, select_proposals_with_visible_keypoints


@ROI_HEADS_REGISTRY.register()
class StandardROIHeads(ROIHeads):
    """Detect with a box head; then predict masks and keypoints, each with its own pooling and head.

    In training all heads see the proposals; in testing, masks and keypoints are predicted in the detected
    boxes.
    """

    box_kind: BoxKind = UPRIGHT  # of the regions; a subclass for others replaces it

    @configurable
    def __init__(
        self,
        *,
        box_in_features: list[str],
        box_pooler: ROIPooler,
        box_head: nn.Module,
        box_predictor: nn.Module,
        mask_in_features: list[str] | None = None,
        mask_pooler: ROIPooler | None = None,
        mask_head: nn.Module | None = None,
        keypoint_in_features: list[str] | None = None,
        keypoint_pooler: ROIPooler | None = None,
        keypoint_head: nn.Module | None = None,
        train_on_pred_boxes: bool = False,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            box_in_features: names of the feature maps to pool from.
            box_pooler: feature maps and boxes -> features of regions.
            box_head: features of regions -> features to predict from.
            box_predictor: these -> classes and boxes, such as `FastRCNNOutputLayers`.
            mask_in_features: names of the feature maps for masks.
            mask_pooler: None to hand the mask head whole feature maps.
            mask_head: None for no masks.
            keypoint_in_features: names of the feature maps for keypoints.
            keypoint_pooler: None to hand the keypoint head whole feature maps.
            keypoint_head: None for no keypoints.
            train_on_pred_boxes: train mask and keypoint heads on refined boxes instead of proposals.
            kwargs: of `ROIHeads`.
        """
        super().__init__(**kwargs)
        self.box_pooler, self.box_head, self.box_predictor = box_pooler, box_head, box_predictor
        self.mask_pooler, self.mask_head = mask_pooler, mask_head
        self.keypoint_pooler, self.keypoint_head = keypoint_pooler, keypoint_head
        self.in_features = self.box_in_features = box_in_features
        self.mask_in_features, self.mask_on = mask_in_features, mask_in_features is not None
        self.keypoint_in_features, self.keypoint_on = keypoint_in_features, keypoint_in_features is not None
        self.train_on_pred_boxes = train_on_pred_boxes

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        arguments = super().from_config(cfg)
        arguments["train_on_pred_boxes"] = cfg.MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES
        # Each part has its own method, for subclasses to replace one and keep the rest. The order is that of
        # construction and so decides seeded initial weights. Where a subclass has a method of instances
        # instead, as in the first releases, its constructor makes the part.
        for make_part in (cls._init_box_head, cls._init_mask_head, cls._init_keypoint_head):
            if inspect.ismethod(make_part):
                arguments.update(make_part(cfg, input_shape))
        return arguments

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        pooler, pooled_shape = build_pooler(cfg, cfg.MODEL.ROI_BOX_HEAD, input_shape)
        head = build_box_head(cfg, pooled_shape)
        return {
            "box_in_features": cfg.MODEL.ROI_HEADS.IN_FEATURES,
            "box_pooler": pooler,
            "box_head": head,
            "box_predictor": FastRCNNOutputLayers(cfg, head.output_shape),
        }

    @classmethod
    def _init_mask_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        if not cfg.MODEL.MASK_ON:
            return {}
        return cls._extra_head("mask", cfg, cfg.MODEL.ROI_MASK_HEAD, input_shape, build_mask_head)

    @classmethod
    def _init_keypoint_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        if not cfg.MODEL.KEYPOINT_ON:
            return {}
        return cls._extra_head("keypoint", cfg, cfg.MODEL.ROI_KEYPOINT_HEAD, input_shape, build_keypoint_head)

    @staticmethod
    def _extra_head(
        name: str,
        cfg: CfgNode,
        node: CfgNode,
        input_shape: dict[str, ShapeSpec],
        build_head: Callable[[CfgNode, Any], nn.Module],
    ) -> dict[str, Any]:
        in_features = cfg.MODEL.ROI_HEADS.IN_FEATURES
        head_input: Any = {feature: input_shape[feature] for feature in in_features}
        pooler = None
        if node.POOLER_TYPE:  # without one the head gets whole feature maps
            pooler, head_input = build_pooler(cfg, node, input_shape)
        return {
            f"{name}_in_features": in_features,
            f"{name}_pooler": pooler,
            f"{name}_head": build_head(cfg, head_input),
        }

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """See `ROIHeads.forward`."""
        if not self.training:
            detections = self._forward_box(features, proposals)
            return self.forward_with_given_boxes(features, detections), {}
        if targets is None:
            raise UserValueError("ROI heads need targets in training; the data loader gave none")
        proposals = self.label_and_sample_proposals(proposals, targets)
        losses: dict[str, Tensor] = self._forward_box(features, proposals)
        losses.update(self._forward_mask(features, proposals))
        losses.update(self._forward_keypoint(features, proposals))
        return proposals, losses

    def forward_with_given_boxes(
        self, features: dict[str, Tensor], instances: list[Instances]
    ) -> list[Instances]:
        """Predict masks and keypoints in boxes that are already there (in testing only).

        Args:
            features: by name, (N, C, Hi, Wi).
            instances: per image, with `pred_boxes` and `pred_classes`.

        Returns:
            The same instances with `pred_masks` and `pred_keypoints`, where there are such heads.
        """
        assert not self.training, "forward_with_given_boxes is for testing"
        instances = self._forward_mask(features, instances)
        detections: list[Instances] = self._forward_keypoint(features, instances)
        return detections

    def _forward_box(self, features: dict[str, Tensor], proposals: list[Instances]) -> Any:
        """Losses of the box head in training, detections per image otherwise."""
        feature_list = [features[name] for name in self.box_in_features]
        pooled = self.box_pooler(feature_list, [p.proposal_boxes for p in proposals])
        predictions = self.box_predictor(self.box_head(pooled))
        if not self.training:
            detections, _ = self.box_predictor.inference(predictions, proposals)  # type: ignore[operator]  # a predictor's method
            return detections
        losses = self.box_predictor.losses(predictions, proposals)  # type: ignore[operator]  # a predictor's method
        if self.train_on_pred_boxes:
            with torch.no_grad():
                refined = self.box_predictor.predict_boxes_for_gt_classes(  # type: ignore[operator]  # a predictor's method
                    predictions, proposals
                )
            for p, boxes in zip(proposals, refined):
                p.proposal_boxes = Boxes(boxes)
        return losses

    def detect_in_one_image(
        self, features: dict[str, Tensor], proposals: Tensor, image_size: tuple[int, int]
    ) -> Detections:
        """Detect, with tensors alone: what the box head does in testing, in a form that can be exported.

        Args:
            features: by name, (1, C, Hi, Wi).
            proposals: (R, B).
            image_size: (height, width) without padding.
        """
        predictor: Any = self.last_box_predictor
        boxes, probs = self._score_boxes(
            [features[name] for name in self.box_in_features], proposals, image_size
        )
        return choose_detections(
            boxes,
            probs,
            image_size,
            score_thresh=predictor.test_score_thresh,
            nms_thresh=predictor.test_nms_thresh,
            topk=predictor.test_topk_per_image,
            kind=self.box_kind,
        )

    @property
    def last_box_predictor(self) -> nn.Module:
        """The predictor whose thresholds decide what is a detection."""
        return self.box_predictor

    def _score_boxes(
        self, feature_list: list[Tensor], proposals: Tensor, image_size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """(R, Kb, B) refined boxes and (R, K + 1) probabilities of the (R, B) proposals of one image."""
        return run_box_head(
            self.box_pooler,
            self.box_head,
            self.box_predictor,
            feature_list,
            self.box_kind.structure(proposals),
        )

    def masks_in_one_image(self, features: dict[str, Tensor], boxes: Tensor, classes: Tensor) -> Tensor:
        """Predict masks, with tensors alone: what the mask head does in testing.

        Args:
            features: by name, (1, C, Hi, Wi).
            boxes: (D, 4).
            classes: (D,) int64.

        Returns:
            (D, 1, M, M) probabilities.
        """
        head: Any = self.mask_head
        names, pooler = self.mask_in_features, self.mask_pooler
        if names is None or pooler is None:
            raise UserValueError("masks_in_one_image needs a mask head that works on pooled regions")
        pooled = pooler([features[name] for name in names], [Boxes(boxes)])
        return own_class_mask_probabilities(head.layers(pooled), classes)

    def _forward_mask(self, features: dict[str, Tensor], instances: list[Instances]) -> Any:
        """Losses of the mask head in training, the instances with masks otherwise."""
        if not self.mask_on:
            return {} if self.training else instances
        if self.training:
            instances, _ = select_foreground_proposals(instances, self.num_classes)
        pooled = self._pool(features, self.mask_in_features, self.mask_pooler, instances)
        return self.mask_head(pooled, instances)  # type: ignore[misc]  # a head exists where mask_on

    def _forward_keypoint(self, features: dict[str, Tensor], instances: list[Instances]) -> Any:
        """Losses of the keypoint head in training, the instances with keypoints otherwise."""
        if not self.keypoint_on:
            return {} if self.training else instances
        if self.training:
            instances, _ = select_foreground_proposals(instances, self.num_classes)
            instances = select_proposals_with_visible_keypoints(instances)
        pooled = self._pool(features, self.keypoint_in_features, self.keypoint_pooler, instances)
        return self.keypoint_head(pooled, instances)  # type: ignore[misc]  # a head exists where keypoint_on

    def _pool(
        self,
        features: dict[str, Tensor],
        names: list[str] | None,
        pooler: ROIPooler | None,
        instances: list[Instances],
    ) -> Any:
        """Features of the regions in question, or the feature maps by name where there is no pooler."""
        assert names is not None
        if pooler is None:
            return {name: features[name] for name in names}
        boxes = [x.proposal_boxes if self.training else x.pred_boxes for x in instances]
        return pooler([features[name] for name in names], boxes)
