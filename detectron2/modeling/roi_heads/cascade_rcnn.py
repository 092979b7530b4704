"""Cascade R-CNN (Cai & Vasconcelos, 2018): box heads in a row, each refining the boxes of the one before.

Shapes: N images, Ri regions of image i, S stages, K foreground classes. Boxes are XYXY in input-image pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.structures.boxes import Boxes, pairwise_iou
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.utils.events.storage import get_event_storage, has_event_storage
from detectron2.utils.user_errors import UserValueError

from ..box_kinds import UPRIGHT
from ..box_regression import Box2BoxTransform
from ..inference import run_cascade
from ..matcher import Matcher
from ..metrics import put_metrics
from ..poolers import ROIPooler
from .box_head import build_box_head
from .fast_rcnn import FastRCNNOutputLayers, Predictions, fast_rcnn_inference
from .roi_heads.base import ROI_HEADS_REGISTRY
from .roi_heads.box_stage import build_pooler, run_box_head
from .roi_heads.standard import StandardROIHeads


@ROI_HEADS_REGISTRY.register()
class CascadeROIHeads(StandardROIHeads):
    """Box heads trained at rising IoU thresholds; masks and keypoints as in `StandardROIHeads`."""

    @configurable
    def __init__(
        self,
        *,
        box_in_features: list[str],
        box_pooler: ROIPooler,
        box_heads: list[nn.Module],
        box_predictors: list[nn.Module],
        proposal_matchers: list[Matcher],
        **kwargs: Any,
    ) -> None:
        """
        Args:
            box_in_features: names of the feature maps to pool from.
            box_pooler: feature maps and boxes -> features of regions; shared by the stages.
            box_heads: S heads.
            box_predictors: S predictors with class-agnostic regression.
            proposal_matchers: S matchers; the first labels the proposals, the others the boxes of the stage
                before.
            kwargs: of `StandardROIHeads`.
        """
        if "proposal_matcher" in kwargs:
            raise UserValueError(
                "CascadeROIHeads has proposal_matchers, one per stage, instead of a proposal_matcher"
            )
        if not len(box_heads) == len(box_predictors) == len(proposal_matchers) > 0:
            raise UserValueError(
                "Every stage needs a head, a predictor and a matcher; got "
                f"{len(box_heads)}, {len(box_predictors)} and {len(proposal_matchers)}"
            )
        super().__init__(
            box_in_features=box_in_features,
            box_pooler=box_pooler,
            box_head=nn.ModuleList(box_heads),
            box_predictor=nn.ModuleList(box_predictors),
            proposal_matcher=proposal_matchers[0],
            **kwargs,
        )
        self.num_cascade_stages = len(box_heads)
        self.proposal_matchers = proposal_matchers

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        arguments = super().from_config(cfg, input_shape)
        del arguments["proposal_matcher"]
        return arguments

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        node = cfg.MODEL.ROI_BOX_CASCADE_HEAD
        if len(node.BBOX_REG_WEIGHTS) != len(node.IOUS):
            raise UserValueError("MODEL.ROI_BOX_CASCADE_HEAD needs as many BBOX_REG_WEIGHTS as IOUS")
        if not cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG:
            raise UserValueError("CascadeROIHeads needs MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG: True")
        if node.IOUS[0] != cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS[0]:
            raise UserValueError(
                f"The first MODEL.ROI_BOX_CASCADE_HEAD.IOUS, {node.IOUS[0]}, must be "
                f"MODEL.ROI_HEADS.IOU_THRESHOLDS[0], {cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS[0]}"
            )
        pooler, pooled_shape = build_pooler(cfg, cfg.MODEL.ROI_BOX_HEAD, input_shape)
        heads, predictors, matchers = [], [], []
        for iou, weights in zip(node.IOUS, node.BBOX_REG_WEIGHTS):
            head = build_box_head(cfg, pooled_shape)
            transform = Box2BoxTransform(weights=weights)
            heads.append(head)
            predictors.append(FastRCNNOutputLayers(cfg, head.output_shape, box2box_transform=transform))
            matchers.append(Matcher([iou], [0, 1], allow_low_quality_matches=False))
        return {
            "box_in_features": cfg.MODEL.ROI_HEADS.IN_FEATURES,
            "box_pooler": pooler,
            "box_heads": heads,
            "box_predictors": predictors,
            "proposal_matchers": matchers,
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
        losses: dict[str, Tensor] = self._forward_box(features, proposals, targets)
        losses.update(self._forward_mask(features, proposals))
        losses.update(self._forward_keypoint(features, proposals))
        return proposals, losses

    def _forward_box(
        self, features: dict[str, Tensor], proposals: list[Instances], targets: list[Instances] | None = None
    ) -> Any:
        """Losses of all stages in training, detections per image otherwise."""
        feature_list = [features[name] for name in self.box_in_features]
        image_sizes = [p.image_size for p in proposals]
        if self.training:
            return self._losses_of_stages(feature_list, proposals, targets)

        def run_stage(stage: int, sources: list[Instances]) -> tuple[list[Tensor], list[Tensor]]:
            predictor = self._predictors[stage]
            predictions = self._run_stage(feature_list, sources, stage)
            boxes = predictor.predict_boxes(predictions, sources)
            return boxes, predictor.predict_probs(predictions, sources)

        boxes, probs = run_cascade(
            self.num_cascade_stages,
            proposals,
            run_stage,
            lambda boxes: self._create_proposals_from_boxes(boxes, image_sizes),
        )
        predictor: Any = self.last_box_predictor
        detections, _ = fast_rcnn_inference(
            boxes,
            probs,
            image_sizes,
            predictor.test_score_thresh,
            predictor.test_nms_thresh,
            predictor.test_topk_per_image,
        )
        return detections

    def _losses_of_stages(
        self, feature_list: list[Tensor], proposals: list[Instances], targets: list[Instances] | None
    ) -> dict[str, Tensor]:
        """Losses of all stages, each trained on what the one before made of the proposals."""
        image_sizes = [p.image_size for p in proposals]
        losses: dict[str, Tensor] = {}
        boxes: list[Tensor] = []
        for stage, predictor in enumerate(self._predictors):
            if stage > 0:
                proposals = self._create_proposals_from_boxes(boxes, image_sizes)
                if targets is not None:
                    proposals = self._match_and_label_boxes(proposals, stage, targets)
            predictions = self._run_stage(feature_list, proposals, stage)
            boxes = predictor.predict_boxes(predictions, proposals)
            losses.update(_losses_of_stage(predictor, predictions, proposals, stage))
        return losses

    @property
    def _predictors(self) -> Any:
        """The S predictors: `box_predictor`, which is a list here."""
        return self.box_predictor

    @property
    def last_box_predictor(self) -> nn.Module:
        """The predictor whose thresholds decide what is a detection."""
        predictor: nn.Module = self._predictors[-1]
        return predictor

    def _score_boxes(
        self, feature_list: list[Tensor], proposals: Tensor, image_size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """(R, Kb, 4) boxes of the last stage and (R, K + 1) mean probabilities of all."""
        heads: Any = self.box_head

        def run_stage(stage: int, sources: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            boxes, probs = run_box_head(
                self.box_pooler, heads[stage], self._predictors[stage], feature_list, Boxes(sources)
            )
            return [boxes], [probs]

        boxes, probs = run_cascade(
            self.num_cascade_stages,
            proposals,
            run_stage,
            lambda boxes: UPRIGHT.clip(boxes[0][:, 0], image_size),
        )
        return boxes[0], probs[0]

    @torch.no_grad()
    def _match_and_label_boxes(
        self, proposals: list[Instances], stage: int, targets: list[Instances]
    ) -> list[Instances]:
        """Give boxes of an earlier stage `gt_classes` and `gt_boxes` by the matcher of this stage."""
        num_foreground = []
        for boxes, gt in zip(proposals, targets):
            matches, labels = self.proposal_matchers[stage](pairwise_iou(gt.gt_boxes, boxes.proposal_boxes))
            if len(gt):
                boxes.gt_classes = gt.gt_classes[matches].masked_fill(labels == 0, self.num_classes)
                boxes.gt_boxes = gt.gt_boxes[matches]
            else:
                boxes.gt_classes = torch.full_like(matches, self.num_classes)
                boxes.gt_boxes = Boxes(torch.zeros_like(boxes.proposal_boxes.tensor))
            num_foreground.append((labels == 1).sum())
        if proposals:
            foreground = torch.stack(num_foreground).float().mean()
            total = sum(len(p) for p in proposals) / len(proposals)
            name = f"stage{stage}/roi_head/num"
            put_metrics({f"{name}_fg_samples": foreground, f"{name}_bg_samples": total - foreground})
        return proposals

    def _run_stage(self, features: list[Tensor], proposals: list[Instances], stage: int) -> Predictions:
        """Predictions of one stage for the regions of all images."""
        pooled = self.box_pooler(features, [p.proposal_boxes for p in proposals])
        if self.training:
            # S heads feed gradients to the same features; each counts 1/S there, and fully in its own
            # weights.
            pooled = _scale_gradient(pooled, 1.0 / self.num_cascade_stages)
        hidden = self.box_head[stage](pooled)  # type: ignore[index]  # a ModuleList
        predictions: Predictions = self._predictors[stage](hidden)
        return predictions

    def _create_proposals_from_boxes(
        self, boxes: list[Tensor], image_sizes: list[tuple[int, int]]
    ) -> list[Instances]:
        """Boxes that one stage predicted, clipped and without gradient, as proposals for the next.

        In training those without area are dropped; in testing scores of all stages must stay aligned.
        """
        proposals = []
        for tensor, image_size in zip(boxes, image_sizes):
            clipped = Boxes(tensor.detach())
            clipped.clip(image_size)
            if self.training:
                clipped = clipped[clipped.nonempty()]
            proposals.append(Instances(image_size, proposal_boxes=clipped))
        return proposals


def _losses_of_stage(
    predictor: Any, predictions: Predictions, proposals: list[Instances], stage: int
) -> dict[str, Tensor]:
    if has_event_storage():
        with get_event_storage().name_scope(f"stage{stage}"):
            losses = predictor.losses(predictions, proposals)
    else:
        losses = predictor.losses(predictions, proposals)
    return {f"{name}_stage{stage}": loss for name, loss in losses.items()}


def _scale_gradient(x: Tensor, factor: float) -> Tensor:
    """The same values; their gradient times `factor`."""
    if x.requires_grad:
        x = x.view_as(x)  # a hook must not touch what others use
        x.register_hook(lambda grad: grad * factor)
    return x


class _ScaleGradient:
    """The name and form in which projects with cascades of their own import `_scale_gradient`."""

    apply = staticmethod(_scale_gradient)
