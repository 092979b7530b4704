"""Mask head of Mask R-CNN (He et al., 2017): one low-resolution mask per region and class.

Shapes: R regions over all images, Ri of image i; K classes, or 1 when masks are class-agnostic; M side of a
mask. A mask covers the box of its region; boxes are XYXY in input-image pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.layers.batch_norm import get_norm
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.weight_init import c2_msra_fill
from detectron2.layers.wrappers import Conv2d
from detectron2.structures.instances import Instances
from detectron2.utils.events.storage import get_event_storage, has_event_storage
from detectron2.utils.registry import Registry
from detectron2.utils.user_errors import UserNotImplementedError, UserValueError

from ..backbone.backbone import stated
from ..inference import own_class_mask_probabilities, own_class_masks, split_by_image
from ..metrics import put_metrics

ROI_MASK_HEAD_REGISTRY = Registry("ROI_MASK_HEAD")
ROI_MASK_HEAD_REGISTRY.__doc__ = """
Modules made by `(cfg, input_shape: ShapeSpec)`; see `BaseMaskRCNNHead.forward` for how they are called.
"""


def mask_rcnn_loss(pred_mask_logits: Tensor, instances: list[Instances], vis_period: int = 0) -> Tensor:
    """Binary cross entropy of the masks predicted for the true classes, against ground truth in the regions.

    Args:
        pred_mask_logits: (R, K, M, M).
        instances: per image, foreground with `proposal_boxes`, `gt_masks` and `gt_classes`.
        vis_period: every how many steps the masks go to the event storage as pictures; 0 for never.

    Returns:
        A float32 scalar, the mean over all pixels of all masks; 0 (with a gradient path) where there are
        none.
    """
    side = pred_mask_logits.shape[-1]
    occupied = [x for x in instances if len(x)]
    if not occupied:
        return pred_mask_logits.float().sum() * 0
    gt_masks = torch.cat(
        [
            # Cut on the masks' own device: polygons are cut on the CPU.
            x.gt_masks.crop_and_resize(x.proposal_boxes.tensor, side).to(pred_mask_logits.device)
            for x in occupied
        ]
    ).bool()  # (R, M, M)
    logits = own_class_masks(pred_mask_logits, torch.cat([x.gt_classes for x in occupied])).float()
    _log_mask_stats(logits.detach(), gt_masks)
    if vis_period > 0 and has_event_storage() and get_event_storage().iter % vis_period == 0:
        _put_pictures(logits.detach(), gt_masks)
    return F.binary_cross_entropy_with_logits(logits, gt_masks.float())


def mask_rcnn_inference(pred_mask_logits: Tensor, pred_instances: list[Instances]) -> None:
    """Give detections the mask predicted for their class.

    Args:
        pred_mask_logits: (R, K, M, M).
        pred_instances: per image, with `pred_classes`; gets `pred_masks`, (Ri, 1, M, M) probabilities.
    """
    if not pred_instances:
        return
    probs = own_class_mask_probabilities(
        pred_mask_logits, torch.cat([x.pred_classes for x in pred_instances])
    )
    for instances, masks in zip(pred_instances, split_by_image(probs, pred_instances)):
        instances.pred_masks = masks


def _log_mask_stats(logits: Tensor, gt_masks: Tensor) -> None:
    is_wrong = (logits > 0) != gt_masks
    num_positive = gt_masks.sum()
    num_negative = gt_masks.numel() - num_positive
    put_metrics(
        {
            "mask_rcnn/accuracy": 1 - is_wrong.float().mean(),
            "mask_rcnn/false_positive": (is_wrong & ~gt_masks).sum() / num_negative.clamp(min=1),
            "mask_rcnn/false_negative": (is_wrong & gt_masks).sum() / num_positive.clamp(min=1),
        }
    )


def _put_pictures(logits: Tensor, gt_masks: Tensor) -> None:
    pairs = torch.cat((logits.sigmoid(), gt_masks.to(logits.dtype)), dim=2)  # (R, M, 2M)
    for i, pair in enumerate(pairs):
        name = f"Left: mask prediction;   Right: mask GT ({i})"
        get_event_storage().put_image(name, pair.expand(3, -1, -1))


class BaseMaskRCNNHead(nn.Module):
    """Losses and inference of a mask head; a subclass says in `layers` how logits come about."""

    @configurable
    def __init__(self, *, loss_weight: float = 1.0, vis_period: int = 0) -> None:
        """
        Args:
            loss_weight: factor of the loss.
            vis_period: see `mask_rcnn_loss`.
        """
        super().__init__()
        self.vis_period = vis_period
        self.loss_weight = loss_weight

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        return {"vis_period": cfg.VIS_PERIOD}

    def forward(self, x: Tensor, instances: list[Instances]) -> Any:
        """Predict masks.

        Args:
            x: (R, C, H, W) pooled features.
            instances: per image; in training foreground with ground truth, otherwise detections.

        Returns:
            In training {"loss_mask": loss}; otherwise the detections, which got `pred_masks`.
        """
        logits = self.layers(x)
        if self.training:
            return {"loss_mask": mask_rcnn_loss(logits, instances, self.vis_period) * self.loss_weight}
        mask_rcnn_inference(logits, instances)
        return instances

    def layers(self, x: Tensor) -> Tensor:
        """(R, C, H, W) pooled features -> (R, K, M, M) logits."""
        raise UserNotImplementedError(f"{type(self).__name__} does not say how it predicts masks")


@ROI_MASK_HEAD_REGISTRY.register()
class MaskRCNNConvUpsampleHead(BaseMaskRCNNHead, nn.Sequential):  # type: ignore[misc]  # two forwards
    """Some 3x3 convolutions, a 2x2 deconvolution that doubles the side, and a 1x1 that predicts."""

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: Sequence[int],
        conv_norm: str = "",
        **kwargs: Any,
    ) -> None:
        """
        Args:
            input_shape: of the pooled features; only the channels are used.
            num_classes: K, or 1 for class-agnostic masks.
            conv_dims: output channels of the convolutions and, last, of the deconvolution.
            conv_norm: normalisation after each convolution, see `get_norm`.
            kwargs: of `BaseMaskRCNNHead`.
        """
        super().__init__(**kwargs)
        if not conv_dims:
            raise UserValueError("conv_dims needs an entry for the deconvolution")
        channels = stated(input_shape.channels, "input channels of the mask head")
        for i, dim in enumerate(conv_dims[:-1], start=1):
            norm = get_norm(conv_norm, dim)
            conv = Conv2d(channels, dim, 3, padding=1, bias=not conv_norm, norm=norm, activation=nn.ReLU())
            self.add_module(f"mask_fcn{i}", conv)
            channels = dim
        self.deconv = nn.ConvTranspose2d(channels, conv_dims[-1], 2, stride=2)
        self.deconv_relu = nn.ReLU()
        self.predictor = nn.Conv2d(conv_dims[-1], num_classes, 1)
        for layer in self:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer is not self.predictor:
                c2_msra_fill(layer)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)  # type: ignore[arg-type]  # it has one

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        node = cfg.MODEL.ROI_MASK_HEAD
        return {
            **super().from_config(cfg, input_shape),
            "input_shape": input_shape,
            "num_classes": 1 if node.CLS_AGNOSTIC_MASK else cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "conv_dims": [node.CONV_DIM] * (node.NUM_CONV + 1),
            "conv_norm": node.NORM,
        }

    def layers(self, x: Tensor) -> Tensor:
        """(R, C, H, W) -> (R, K, 2H, 2W)."""
        for layer in self:
            x = layer(x)
        return x


def build_mask_head(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:
    """Build the head `MODEL.ROI_MASK_HEAD.NAME` for pooled features of the given shape."""
    head: nn.Module = ROI_MASK_HEAD_REGISTRY.get(cfg.MODEL.ROI_MASK_HEAD.NAME)(cfg, input_shape)
    return head
