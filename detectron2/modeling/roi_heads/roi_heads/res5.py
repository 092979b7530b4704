"""Region heads of the C4 models: the last ResNet stage, run on each region, is the head.

Boxes are XYXY in input-image pixels.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.modeling.backbone.backbone import stated
from detectron2.modeling.backbone.build import build_region_stage
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures.boxes import Boxes
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.utils.user_errors import UserValueError

from ..fast_rcnn import FastRCNNOutputLayers
from ..mask_head import build_mask_head
from .base import ROI_HEADS_REGISTRY, ROIHeads
from .selection import select_foreground_proposals


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeads(ROIHeads):
    """Pool, run stage res5, predict boxes from its mean and masks from its map."""

    @configurable
    def __init__(
        self,
        *,
        in_features: list[str],
        pooler: ROIPooler,
        res5: nn.Module | list[nn.Module],
        box_predictor: nn.Module,
        mask_head: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            in_features: names of the feature maps to pool from.
            pooler: feature maps and boxes -> features of regions.
            res5: features of regions -> features to predict from; a list is called one after the other.
            box_predictor: classes and boxes from the mean of these, such as `FastRCNNOutputLayers`.
            mask_head: masks from the map; None for no masks.
            kwargs: of `ROIHeads`.
        """
        super().__init__(**kwargs)
        self.in_features = in_features
        self.pooler = pooler
        self.res5 = res5 if isinstance(res5, nn.Module) else nn.Sequential(*res5)
        self.box_predictor = box_predictor
        self.mask_on = mask_head is not None
        if mask_head is not None:
            self.mask_head = mask_head

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        if cfg.MODEL.KEYPOINT_ON:
            raise UserValueError(
                "Res5ROIHeads has no keypoint head: use StandardROIHeads, or MODEL.KEYPOINT_ON: False"
            )
        in_features, node = cfg.MODEL.ROI_HEADS.IN_FEATURES, cfg.MODEL.ROI_BOX_HEAD
        if len(in_features) != 1:
            raise UserValueError(
                f"Res5ROIHeads pools from one feature map, MODEL.ROI_HEADS.IN_FEATURES is {in_features}"
            )
        pooler = ROIPooler(
            output_size=node.POOLER_RESOLUTION,
            scales=[1.0 / stated(input_shape[in_features[0]].stride, "stride")],
            sampling_ratio=node.POOLER_SAMPLING_RATIO,
            pooler_type=node.POOLER_TYPE,
        )
        # Subclasses may return another stage; in the first releases by a method of instances.
        build: Any = cls._build_res5_block
        res5, channels = build(cfg) if inspect.ismethod(build) else build(cls, cfg)
        arguments = {
            **super().from_config(cfg),
            "in_features": in_features,
            "pooler": pooler,
            "res5": res5,
            "box_predictor": FastRCNNOutputLayers(cfg, ShapeSpec(channels=channels, height=1, width=1)),
        }
        if cfg.MODEL.MASK_ON:
            side = node.POOLER_RESOLUTION
            arguments["mask_head"] = build_mask_head(
                cfg, ShapeSpec(channels=channels, height=side, width=side)
            )
        return arguments

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[nn.Sequential, int]:
        """The stage and its output channels."""
        if cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE[-1]:
            raise UserValueError(
                "Res5ROIHeads has no deformable stage: set the last MODEL.RESNETS.DEFORM_ON_PER_STAGE "
                "to False"
            )
        blocks = build_region_stage(cfg)
        return nn.Sequential(*blocks), blocks[-1].out_channels

    def _shared_roi_transform(self, features: list[Tensor], boxes: list[Boxes]) -> Tensor:
        """(R, C, H, W) features of the regions of all images.

        Args:
            features: the maps of `in_features`, (N, C, Hi, Wi).
            boxes: per image.
        """
        region_features: Tensor = self.res5(self.pooler(features, boxes))
        return region_features

    def _features_to_pool(self, features: dict[str, Tensor]) -> list[Tensor]:
        return [features[name] for name in self.in_features]

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """See `ROIHeads.forward`."""
        if self.training:
            if targets is None:
                raise UserValueError("ROI heads need targets in training; the data loader gave none")
            proposals = self.label_and_sample_proposals(proposals, targets)
        region_features = self._shared_roi_transform(
            self._features_to_pool(features), [p.proposal_boxes for p in proposals]
        )
        predictions = self.box_predictor(region_features.mean(dim=(2, 3)))
        if not self.training:
            detections, _ = self.box_predictor.inference(predictions, proposals)  # type: ignore[operator]  # a predictor's method
            return self.forward_with_given_boxes(features, detections), {}
        losses = self.box_predictor.losses(predictions, proposals)  # type: ignore[operator]  # a predictor's method
        if self.mask_on:
            foreground, masks = select_foreground_proposals(proposals, self.num_classes)
            losses.update(self.mask_head(region_features[torch.cat(masks)], foreground))
        return proposals, losses

    def forward_with_given_boxes(
        self, features: dict[str, Tensor], instances: list[Instances]
    ) -> list[Instances]:
        """Predict masks in boxes that are already there (in testing only).

        Args:
            features: by name, (N, C, Hi, Wi).
            instances: per image, with `pred_boxes` and `pred_classes`.

        Returns:
            The same instances with `pred_masks`, where there is a mask head.
        """
        assert not self.training, "forward_with_given_boxes is for testing"
        if not self.mask_on:
            return instances
        region_features = self._shared_roi_transform(
            self._features_to_pool(features), [x.pred_boxes for x in instances]
        )
        with_masks: list[Instances] = self.mask_head(region_features, instances)
        return with_masks
