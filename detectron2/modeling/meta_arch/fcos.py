"""FCOS (Tian et al., 2019): every location is a point that predicts the box around it.

A location of a level with stride s is an anchor: a square of side s, of which the centre and, as a unit of
length, the side matter. Shapes are those of `dense_detector`, with A = 1; M objects of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.layers.losses import sigmoid_focal_loss
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.structures.boxes import Boxes, pairwise_point_box_distance
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances

from ..anchor_generator import DefaultAnchorGenerator
from ..backbone.backbone import Backbone, stated
from ..box_regression import Box2BoxTransformLinear, BoxTransform, dense_box_regression_loss
from .dense_detector import DenseDetector, one_hot_targets, targets_of_matches
from .retinanet_head import RetinaNetHead, init_convolutions

# A level is responsible for objects whose farthest side is this many strides away; the first and last level
# also for all that are smaller and larger.
_REACH_IN_STRIDES = (4, 8)


class FCOS(DenseDetector):
    """Classify points, regress the sides of the boxes around them, and say how central they are in these."""

    num_classes: int

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: list[str] | None = None,
        box2box_transform: BoxTransform | None = None,
        num_classes: int,
        center_sampling_radius: float = 1.5,
        focal_loss_alpha: float = 0.25,
        focal_loss_gamma: float = 2.0,
        test_score_thresh: float = 0.2,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.6,
        max_detections_per_image: int = 100,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        """
        Args:
            backbone: images -> feature maps by name.
            head: L feature maps -> L class logits (N, K, Hi, Wi), L deltas (N, 4, Hi, Wi) and L centerness
                logits (N, 1, Hi, Wi).
            head_in_features: names of the feature maps for the head; by default all, finest first.
            box2box_transform: how deltas stand for boxes; by default distances to the four sides in strides.
            num_classes: K.
            center_sampling_radius: foreground are points within this many strides of an object's centre;
                0 for all points in its box.
            focal_loss_alpha: weight of the positive class.
            focal_loss_gamma: how much less well-classified points count.
            test_score_thresh: only higher scores count.
            test_topk_candidates: most candidates per level before NMS.
            test_nms_thresh: IoU above which the lower-scored of two detections of a class goes.
            max_detections_per_image: after NMS.
            pixel_mean: per channel, subtracted from images.
            pixel_std: per channel, divides images then.
        """
        super().__init__(backbone, head, head_in_features, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.num_classes = num_classes
        shapes = backbone.output_shape()
        strides = [stated(shapes[name].stride, "stride") for name in self.head_in_features]
        self.anchor_generator = DefaultAnchorGenerator(
            sizes=[[stride] for stride in strides], aspect_ratios=[1.0], strides=strides
        )
        self.box2box_transform = box2box_transform or Box2BoxTransformLinear(normalize_by_size=True)
        self.center_sampling_radius = float(center_sampling_radius)
        self.focal_loss_alpha, self.focal_loss_gamma = focal_loss_alpha, focal_loss_gamma
        self.test_score_thresh, self.test_topk_candidates = test_score_thresh, test_topk_candidates
        self.test_nms_thresh, self.max_detections_per_image = test_nms_thresh, max_detections_per_image
        self._setup_normalizer(initial=300)

    def forward_training(
        self, images: ImageList, features: list[Tensor], predictions: Any, gt_instances: list[Instances]
    ) -> dict[str, Tensor]:
        """See `DenseDetector.forward_training`."""
        logits, deltas, centerness = self._transpose_dense_predictions(predictions, (self.num_classes, 4, 1))
        anchors = self.anchor_generator(features)
        gt_labels, gt_boxes = self.label_anchors(anchors, gt_instances)
        return self.losses(anchors, logits, gt_labels, deltas, gt_boxes, centerness)

    @torch.no_grad()
    def label_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Say for every point what it should predict.

        Args:
            anchors: per level, Ri squares.
            gt_instances: per image, with `gt_boxes` and `gt_classes`.

        Returns:
            Per image, (R,) int64 labels and (R, 4) boxes; see `targets_of_matches`.
        """
        points, sides = _points(anchors)
        reach = _reach_per_point(anchors, sides)
        targets = [
            targets_of_matches(gt, *self._match(gt.gt_boxes, points, sides, reach), self.num_classes)
            for gt in gt_instances
        ]
        return [labels for labels, _ in targets], [boxes for _, boxes in targets]

    def _match(
        self, gt_boxes: Boxes, points: Tensor, sides: Tensor, reach: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Give a point the smallest of the objects that it may stand for.

        Args:
            gt_boxes: M boxes.
            points: (R, 2).
            sides: (R,) strides.
            reach: (R,) least and (R,) greatest distance to the farthest side.

        Returns:
            (R,) int64 index of the object, 0 where there is none, and (R,) labels, 1 for foreground.
        """
        if not len(gt_boxes):
            nothing = torch.zeros_like(sides, dtype=torch.int64)
            return nothing, nothing
        distances = pairwise_point_box_distance(points, gt_boxes)  # (R, M, 4)
        farthest = distances.amax(dim=2)
        fits = (distances.amin(dim=2) > 0) & (farthest > reach[0][:, None]) & (farthest < reach[1][:, None])
        if self.center_sampling_radius > 0:
            offset = (points[:, None] - gt_boxes.get_centers()).abs().amax(dim=2)  # (R, M)
            fits &= offset < self.center_sampling_radius * sides[:, None]
        area, matches = gt_boxes.area().expand_as(fits).where(fits, torch.inf).min(dim=1)
        return matches, area.isfinite().long()

    def losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
        pred_centerness: list[Tensor],
    ) -> dict[str, Tensor]:
        """Compare predictions with the targets of the points.

        Args:
            anchors: per level, Ri squares.
            pred_logits: per level, (N, Ri, K).
            gt_labels: per image, (R,).
            pred_anchor_deltas: per level, (N, Ri, 4).
            gt_boxes: per image, (R, 4).
            pred_centerness: per level, (N, Ri, 1) logits.

        Returns:
            "loss_fcos_cls" over all points, "loss_fcos_loc" and "loss_fcos_ctr" over foreground, divided by a
            running mean of the number of foreground points.
        """
        labels = torch.stack(gt_labels)  # (N, R)
        is_foreground = (labels >= 0) & (labels != self.num_classes)
        normalizer = self._update_normalizer(is_foreground)
        loss_cls = sigmoid_focal_loss(
            torch.cat(pred_logits, dim=1),
            one_hot_targets(labels, self.num_classes),
            self.focal_loss_alpha,
            self.focal_loss_gamma,
            reduction="sum",
        )
        loss_loc = dense_box_regression_loss(
            list(anchors),
            self.box2box_transform,
            pred_anchor_deltas,
            gt_boxes,
            is_foreground,
            box_reg_loss_type="giou",
        )
        centerness = torch.cat(pred_centerness, dim=1).squeeze(2).float()  # (N, R)
        target = self.compute_ctrness_targets(anchors, gt_boxes)
        loss_ctr = F.binary_cross_entropy_with_logits(
            centerness[is_foreground], target[is_foreground], reduction="sum"
        )
        return {
            "loss_fcos_cls": loss_cls / normalizer,
            "loss_fcos_loc": loss_loc / normalizer,
            "loss_fcos_ctr": loss_ctr / normalizer,
        }

    @torch.no_grad()
    def compute_ctrness_targets(self, anchors: list[Boxes], gt_boxes: list[Tensor]) -> Tensor:
        """Measure how central points lie in their boxes.

        Args:
            anchors: per level, Ri squares.
            gt_boxes: per image, (R, 4), the box of each point.

        Returns:
            (N, R) float32, 1 in the centre, 0 on the border and outside.
        """
        points, _ = _points(anchors)
        x, y = points.unbind(dim=1)  # (R,)
        x1, y1, x2, y2 = torch.stack(gt_boxes).unbind(dim=2)  # (N, R)
        return (_balance(x - x1, x2 - x) * _balance(y - y1, y2 - y)).sqrt()

    def forward_inference(
        self, images: ImageList, features: list[Tensor], predictions: Any
    ) -> list[Instances]:
        """See `DenseDetector.forward_inference`; a score is the geometric mean of class and centerness."""
        logits, deltas, centerness = self._transpose_dense_predictions(predictions, (self.num_classes, 4, 1))
        anchors = self.anchor_generator(features)
        scores = [
            (level.float().sigmoid() * center.float().sigmoid()).sqrt()
            for level, center in zip(logits, centerness)
        ]
        return [
            self.inference_single_image(anchors, [x[i] for x in scores], [x[i] for x in deltas], image_size)
            for i, image_size in enumerate(images.image_sizes)
        ]


class FCOSHead(RetinaNetHead):
    """The head of RetinaNet for one anchor per location, and centerness beside the boxes."""

    def __init__(self, *, input_shape: list[ShapeSpec], conv_dims: list[int], **kwargs: Any) -> None:
        """
        Args:
            input_shape: channels of the feature levels.
            conv_dims: channels of the convolutions of a stack.
            kwargs: of `RetinaNetHead`, save `num_anchors`, which is 1.
        """
        super().__init__(input_shape=input_shape, conv_dims=conv_dims, num_anchors=1, **kwargs)
        self.ctrness = nn.Conv2d(conv_dims[-1], 1, 3, padding=1)
        init_convolutions(self.ctrness)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], ...]:
        """L maps (N, C, Hi, Wi) -> L class logits, L deltas and L centerness logits; see `FCOS`."""
        self._check_num_levels(features)
        logits = [self.cls_score(self.cls_subnet(x)) for x in features]
        box_features = [self.bbox_subnet(x) for x in features]
        return logits, [self.bbox_pred(x) for x in box_features], [self.ctrness(x) for x in box_features]


def _points(anchors: list[Boxes]) -> tuple[Tensor, Tensor]:
    """(R, 2) centres and (R,) sides of the squares of all levels."""
    squares = Boxes.cat(anchors)
    return squares.get_centers(), squares.tensor[:, 2] - squares.tensor[:, 0]


def _reach_per_point(anchors: list[Boxes], sides: Tensor) -> tuple[Tensor, Tensor]:
    """(R,) least and (R,) greatest distance from a point to the farthest side of its object."""
    least, greatest = (sides * factor for factor in _REACH_IN_STRIDES)
    least[: len(anchors[0])] = 0
    greatest[len(greatest) - len(anchors[-1]) :] = torch.inf
    return least, greatest


def _balance(one_side: Tensor, other_side: Tensor) -> Tensor:
    """The smaller of two distances over the larger; 0 where one is not positive."""
    smaller, larger = torch.minimum(one_side, other_side), torch.maximum(one_side, other_side)
    return (smaller / larger).where(smaller > 0, 0)
