"""Keypoint head of Mask R-CNN: for every keypoint of a region a softmax over the positions in its box.

Shapes: R regions over all images, Ri of image i; K keypoints; S side of a heatmap.
A heatmap covers the box of its region; boxes are XYXY in input-image pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.weight_init import c2_msra_fill
from detectron2.layers.wrappers import Conv2d
from detectron2.structures.instances import Instances
from detectron2.structures.keypoints import heatmaps_to_keypoints
from detectron2.utils.events.storage import get_event_storage, has_event_storage
from detectron2.utils.registry import Registry
from detectron2.utils.user_errors import UserNotImplementedError, UserValueError

from ..backbone.backbone import stated
from ..inference import split_by_image

# Training batches so far in which no keypoint was visible.
_TOTAL_SKIPPED = 0

ROI_KEYPOINT_HEAD_REGISTRY = Registry("ROI_KEYPOINT_HEAD")
ROI_KEYPOINT_HEAD_REGISTRY.__doc__ = """
Modules made by `(cfg, input_shape: ShapeSpec)`; see `BaseKeypointRCNNHead.forward` for how they are called.
"""


def build_keypoint_head(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:
    """Build the head `MODEL.ROI_KEYPOINT_HEAD.NAME` for pooled features of the given shape."""
    head: nn.Module = ROI_KEYPOINT_HEAD_REGISTRY.get(cfg.MODEL.ROI_KEYPOINT_HEAD.NAME)(cfg, input_shape)
    return head


def keypoint_rcnn_loss(
    pred_keypoint_logits: Tensor, instances: list[Instances], normalizer: float | None
) -> Tensor:
    """Cross entropy of the position of every visible keypoint.

    Args:
        pred_keypoint_logits: (R, K, S, S).
        instances: per image, foreground with `proposal_boxes` and `gt_keypoints`.
        normalizer: what the sum is divided by; None for the number of visible keypoints.

    Returns:
        A float32 scalar; 0 (with a gradient path) where no keypoint is visible.
    """
    occupied = [x for x in instances if len(x)]
    if occupied:
        side = pred_keypoint_logits.shape[-1]
        targets = [x.gt_keypoints.to_heatmap(x.proposal_boxes.tensor, side) for x in occupied]
        positions = torch.cat([position.flatten() for position, _ in targets])  # (R*K,) in [0, S*S)
        visible = torch.cat([valid.flatten() for _, valid in targets]).nonzero().flatten()
        if len(visible):
            logits = pred_keypoint_logits.flatten(2).flatten(0, 1)[visible].float()  # (visible, S*S)
            total = F.cross_entropy(logits, positions[visible], reduction="sum")
            return total / (len(visible) if normalizer is None else normalizer)
    _count_skipped_batch()
    return pred_keypoint_logits.float().sum() * 0


def _count_skipped_batch() -> None:
    global _TOTAL_SKIPPED
    _TOTAL_SKIPPED += 1
    if has_event_storage():
        get_event_storage().put_scalar("kpts_num_skipped_batches", _TOTAL_SKIPPED, smoothing_hint=False)


@torch.no_grad()
def keypoint_rcnn_inference(pred_keypoint_logits: Tensor, pred_instances: list[Instances]) -> None:
    """Give detections the most likely position of each keypoint.

    Args:
        pred_keypoint_logits: (R, K, S, S).
        pred_instances: per image, with `pred_boxes`; gets `pred_keypoints`, (Ri, K, 3) x, y in input-image
            pixels and score, and `pred_keypoint_heatmaps`, (Ri, K, S, S) logits.
    """
    if not pred_instances:
        return
    logits = pred_keypoint_logits.detach().float()
    boxes = torch.cat([x.pred_boxes.tensor for x in pred_instances]).detach()
    x_y_logit_score = heatmaps_to_keypoints(logits, boxes)  # (R, K, 4)
    keypoints = split_by_image(
        torch.cat((x_y_logit_score[..., :2], x_y_logit_score[..., 3:]), dim=2), pred_instances
    )
    heatmaps_per_image = split_by_image(logits, pred_instances)
    for instances, points, heatmaps in zip(pred_instances, keypoints, heatmaps_per_image):
        instances.pred_keypoints = points
        instances.pred_keypoint_heatmaps = heatmaps


class BaseKeypointRCNNHead(nn.Module):
    """Losses and inference of a keypoint head; a subclass says in `layers` how logits come about."""

    @configurable
    def __init__(
        self, *, num_keypoints: int, loss_weight: float = 1.0, loss_normalizer: float | str = 1.0
    ) -> None:
        """
        Args:
            num_keypoints: K.
            loss_weight: factor of the loss.
            loss_normalizer: "visible" to divide the loss by the number of visible keypoints; a number to
                divide it by that times the number of images.
        """
        super().__init__()
        if isinstance(loss_normalizer, str) and loss_normalizer != "visible":
            raise UserValueError(f"loss_normalizer must be 'visible' or a number, got {loss_normalizer!r}")
        self.num_keypoints = num_keypoints
        self.loss_weight = loss_weight
        self.loss_normalizer = loss_normalizer

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        node, heads = cfg.MODEL.ROI_KEYPOINT_HEAD, cfg.MODEL.ROI_HEADS
        # The fixed number is that of all keypoints of an image with its full share of foreground.
        most_keypoints = node.NUM_KEYPOINTS * heads.BATCH_SIZE_PER_IMAGE * heads.POSITIVE_FRACTION
        return {
            "num_keypoints": node.NUM_KEYPOINTS,
            "loss_weight": node.LOSS_WEIGHT,
            "loss_normalizer": "visible" if node.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS else most_keypoints,
        }

    def forward(self, x: Tensor, instances: list[Instances]) -> Any:
        """Predict keypoints.

        Args:
            x: (R, C, H, W) pooled features.
            instances: per image; in training foreground with ground truth, otherwise detections.

        Returns:
            In training {"loss_keypoint": loss}; otherwise the detections, which got `pred_keypoints`.
        """
        logits = self.layers(x)
        if not self.training:
            keypoint_rcnn_inference(logits, instances)
            return instances
        normalizer = self.loss_normalizer
        per_batch = None if isinstance(normalizer, str) else normalizer * len(instances)
        return {"loss_keypoint": keypoint_rcnn_loss(logits, instances, per_batch) * self.loss_weight}

    def layers(self, x: Tensor) -> Tensor:
        """(R, C, H, W) pooled features -> (R, K, S, S) logits."""
        raise UserNotImplementedError(f"{type(self).__name__} does not say how it predicts keypoints")


@ROI_KEYPOINT_HEAD_REGISTRY.register()
class KRCNNConvDeconvUpsampleHead(BaseKeypointRCNNHead, nn.Sequential):  # type: ignore[misc]  # two forwards
    """Some 3x3 convolutions with ReLU, a deconvolution to logits of twice the side, bilinear doubling."""

    @configurable
    def __init__(
        self, input_shape: ShapeSpec, *, num_keypoints: int, conv_dims: Sequence[int], **kwargs: Any
    ) -> None:
        """
        Args:
            input_shape: of the pooled features; only the channels are used.
            num_keypoints: K.
            conv_dims: output channels of the convolutions.
            kwargs: of `BaseKeypointRCNNHead`.
        """
        super().__init__(num_keypoints=num_keypoints, **kwargs)
        self.up_scale = 2.0
        channels = stated(input_shape.channels, "input channels of the keypoint head")
        for i, dim in enumerate(conv_dims, start=1):
            self.add_module(f"conv_fcn{i}", Conv2d(channels, dim, 3, padding=1))
            self.add_module(f"conv_fcn_relu{i}", nn.ReLU())
            channels = dim
        self.score_lowres = nn.ConvTranspose2d(channels, num_keypoints, 4, stride=2, padding=1)
        for layer in self:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                c2_msra_fill(layer)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        return {
            **super().from_config(cfg, input_shape),
            "input_shape": input_shape,
            "conv_dims": cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS,
        }

    def layers(self, x: Tensor) -> Tensor:
        """(R, C, H, W) -> (R, K, 4H, 4W)."""
        for layer in self:
            x = layer(x)
        return F.interpolate(x, scale_factor=self.up_scale, mode="bilinear", align_corners=False)
