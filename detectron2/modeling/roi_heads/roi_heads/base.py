"""Region heads: what the second stage of every R-CNN does with proposals.

Shapes: N images, Ri proposals of image i, M ground truths of an image, K foreground classes; class K is
background. Boxes are XYXY in input-image pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.metrics import put_metrics
from detectron2.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals
from detectron2.modeling.sampling import subsample_labels
from detectron2.structures.boxes import Boxes, pairwise_iou
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.utils.registry import Registry
from detectron2.utils.user_errors import UserNotImplementedError

ROI_HEADS_REGISTRY = Registry("ROI_HEADS")
ROI_HEADS_REGISTRY.__doc__ = """
Subclasses of `ROIHeads`, made by `(cfg, input_shape: dict[str, ShapeSpec])`.
"""


def build_roi_heads(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """Build the heads `MODEL.ROI_HEADS.NAME` for features of the given shapes."""
    heads: nn.Module = ROI_HEADS_REGISTRY.get(cfg.MODEL.ROI_HEADS.NAME)(cfg, input_shape)
    return heads


class ROIHeads(nn.Module):
    """Base of all region heads: matches proposals with ground truth and draws the ones to train on."""

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        batch_size_per_image: int,
        positive_fraction: float,
        proposal_matcher: Matcher,
        proposal_append_gt: bool = True,
    ) -> None:
        """
        Args:
            num_classes: K.
            batch_size_per_image: proposals per image to train on.
            positive_fraction: largest share of foreground among them.
            proposal_matcher: labels proposals by their IoU with ground truth.
            proposal_append_gt: whether the ground truth boxes join the proposals.
        """
        super().__init__()
        self.num_classes = num_classes
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.proposal_matcher = proposal_matcher
        self.proposal_append_gt = proposal_append_gt

    @classmethod
    def from_config(cls, cfg: CfgNode, *args: Any) -> dict[str, Any]:
        node = cfg.MODEL.ROI_HEADS
        return {
            "num_classes": node.NUM_CLASSES,
            "batch_size_per_image": node.BATCH_SIZE_PER_IMAGE,
            "positive_fraction": node.POSITIVE_FRACTION,
            "proposal_matcher": Matcher(
                node.IOU_THRESHOLDS, node.IOU_LABELS, allow_low_quality_matches=False
            ),
            "proposal_append_gt": node.PROPOSAL_APPEND_GT,
        }

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """Draw the proposals to train on, and give each the ground truth that it was matched with.

        Args:
            proposals: per image, with `proposal_boxes` and `objectness_logits`.
            targets: per image, with `gt_boxes`, `gt_classes` and any other `gt_*` field.

        Returns:
            Per image, drawn proposals with `gt_classes` (K for background) and, where the image has ground
            truth, every other `gt_*` field (which means something for foreground only).
        """
        if self.proposal_append_gt:
            proposals = add_ground_truth_to_proposals(targets, proposals)

        # Per image: match, draw, and hand over what the ground truth says.
        drawn, num_foreground = [], []
        for candidates, gt in zip(proposals, targets):
            quality = self._match_quality(gt.gt_boxes, candidates.proposal_boxes)  # (M, Ri)
            matches, labels = self.proposal_matcher(quality)
            rows, classes = self._sample_proposals(matches, labels, gt.gt_classes)
            chosen = candidates[rows]
            chosen.gt_classes = classes
            if len(gt):
                matched_gt = gt[matches[rows]]
                for name, value in matched_gt.get_fields().items():
                    if name.startswith("gt_") and not chosen.has(name):
                        chosen.set(name, value)
            drawn.append(chosen)
            num_foreground.append((classes != self.num_classes).sum())

        # Means over the images, for the curves.
        if drawn:
            foreground = torch.stack(num_foreground).float().mean()
            total = sum(len(d) for d in drawn) / len(drawn)
            put_metrics(
                {"roi_head/num_fg_samples": foreground, "roi_head/num_bg_samples": total - foreground}
            )
        return drawn

    def _match_quality(self, gt_boxes: Boxes, proposal_boxes: Boxes) -> Tensor:
        """(M, Ri) IoU; a subclass with another kind of boxes replaces it."""
        return pairwise_iou(gt_boxes, proposal_boxes)

    def _sample_proposals(
        self, matched_idxs: Tensor, matched_labels: Tensor, gt_classes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Draw proposals of one image.

        Args:
            matched_idxs: (Ri,) best ground truth of every proposal.
            matched_labels: (Ri,) 1 foreground, 0 background, -1 ignored.
            gt_classes: (M,).

        Returns:
            int64 indices of the drawn, foreground first, and their classes.
        """
        if len(gt_classes):
            classes = gt_classes[matched_idxs]
            classes = classes.masked_fill(matched_labels == 0, self.num_classes)
            classes = classes.masked_fill(matched_labels == -1, -1)
        else:
            classes = torch.full_like(matched_idxs, self.num_classes)
        foreground, background = subsample_labels(
            classes, self.batch_size_per_image, self.positive_fraction, self.num_classes
        )
        rows = torch.cat((foreground, background))
        return rows, classes[rows]

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Classify and refine proposals.

        Args:
            images: N images.
            features: by name, (N, C, Hi, Wi).
            proposals: per image, with `proposal_boxes`.
            targets: per image ground truth; needed in training.

        Returns:
            In testing, detections per image and an empty dict; in training, the proposals drawn and the
            losses.
        """
        raise UserNotImplementedError(f"{type(self).__name__} does not say what it does with proposals")
