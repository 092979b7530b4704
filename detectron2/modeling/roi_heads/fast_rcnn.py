"""Classify regions, refine their boxes, and choose the detections of an image (Girshick, 2015).

Shapes: Ri regions of image i, R of all images; K foreground classes, class K is background; Kb sets of deltas
per region: K, or 1 when regression is class-agnostic. Boxes are XYXY in input-image pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.data.detection_utils.metadata_queries import get_fed_loss_cls_weights
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.structures.instances import Instances
from detectron2.utils.user_errors import UserValueError

from ..backbone.backbone import stated
from ..box_regression import Box2BoxTransform, BoxTransform, dense_box_regression_loss
from ..inference import class_probabilities, split_by_image
from ..metrics import put_metrics
from .detections import fast_rcnn_inference as fast_rcnn_inference
from .detections import fast_rcnn_inference_single_image as fast_rcnn_inference_single_image

Predictions = tuple[Tensor, Tensor]  # (R, K + 1) class logits and (R, Kb * 4) deltas


def _log_classification_stats(logits: Tensor, gt_classes: Tensor, prefix: str = "fast_rcnn") -> None:
    """Put accuracy over all regions and over foreground, and the share of foreground taken for background."""
    if not len(gt_classes):
        return
    background = logits.shape[1] - 1
    predicted = logits.argmax(dim=1)
    is_right = predicted == gt_classes
    is_foreground = (gt_classes >= 0) & (gt_classes < background)
    num_foreground = is_foreground.sum().clamp(min=1)
    put_metrics(
        {
            f"{prefix}/cls_accuracy": is_right.float().mean(),
            f"{prefix}/fg_cls_accuracy": (is_right & is_foreground).sum() / num_foreground,
            f"{prefix}/false_negative": ((predicted == background) & is_foreground).sum() / num_foreground,
        }
    )


def _count_inputs(shape: ShapeSpec | int) -> int:
    """Numbers that describe a region."""
    if isinstance(shape, int):
        return shape
    channels = stated(shape.channels, "input channels of the box predictor")
    return channels * math.prod(side or 1 for side in (shape.height, shape.width))


class FastRCNNOutputLayers(nn.Module):
    """Two linear layers, class logits and box deltas; their losses; and how they become detections."""

    fed_loss_cls_weights: Tensor

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec | int,
        *,
        box2box_transform: BoxTransform,
        num_classes: int,
        test_score_thresh: float = 0.0,
        test_nms_thresh: float = 0.5,
        test_topk_per_image: int = 100,
        cls_agnostic_bbox_reg: bool = False,
        smooth_l1_beta: float = 0.0,
        box_reg_loss_type: str = "smooth_l1",
        loss_weight: float | dict[str, float] = 1.0,
        use_fed_loss: bool = False,
        use_sigmoid_ce: bool = False,
        get_fed_loss_cls_weights: Callable[[], Tensor] | None = None,
        fed_loss_num_classes: int = 50,
    ) -> None:
        """
        Args:
            input_shape: of the features of a region, or their number.
            box2box_transform: how deltas stand for boxes; has `weights`, one for each number of a box.
            num_classes: K.
            test_score_thresh: only higher scores count.
            test_nms_thresh: IoU above which the lower-scored of two detections of a class goes.
            test_topk_per_image: most detections per image; negative for no limit.
            cls_agnostic_bbox_reg: one set of deltas per region instead of one per class.
            smooth_l1_beta: where the smooth L1 loss turns from quadratic to linear.
            box_reg_loss_type: "smooth_l1" on deltas, or "giou", "diou" or "ciou" on decoded boxes.
            loss_weight: one factor, or one for each of "loss_cls" and "loss_box_reg".
            use_fed_loss: federated loss: every step, only some of the classes count (LVIS).
            use_sigmoid_ce: one binary decision per class instead of softmax.
            get_fed_loss_cls_weights: gives (K,) weights by which the federated loss draws classes.
            fed_loss_num_classes: how many classes it draws.
        """
        super().__init__()
        num_inputs = _count_inputs(input_shape)
        num_box_sets = 1 if cls_agnostic_bbox_reg else num_classes
        self.num_classes = num_classes
        self.box_dim = len(box2box_transform.weights)  # type: ignore[attr-defined]  # all but the linear one have it
        self.cls_score = nn.Linear(num_inputs, num_classes + 1)
        self.bbox_pred = nn.Linear(num_inputs, num_box_sets * self.box_dim)
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

        self.box2box_transform = box2box_transform
        self.smooth_l1_beta = smooth_l1_beta
        self.box_reg_loss_type = box_reg_loss_type
        self.test_score_thresh = test_score_thresh
        self.test_nms_thresh = test_nms_thresh
        self.test_topk_per_image = test_topk_per_image
        names = ("loss_cls", "loss_box_reg")
        self.loss_weight = loss_weight if isinstance(loss_weight, dict) else dict.fromkeys(names, loss_weight)
        self.use_sigmoid_ce = use_sigmoid_ce
        self.use_fed_loss = use_fed_loss
        self.fed_loss_num_classes = fed_loss_num_classes
        if use_fed_loss:
            self._setup_fed_loss(get_fed_loss_cls_weights)

    def _setup_fed_loss(self, get_weights: Callable[[], Tensor] | None) -> None:
        if not self.use_sigmoid_ce:
            raise UserValueError(
                "The federated loss needs one decision per class: set MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE"
            )
        if get_weights is None:
            raise UserValueError(
                "use_fed_loss needs get_fed_loss_cls_weights, a function that returns (K,) weights"
            )
        weights = get_weights()
        if len(weights) != self.num_classes:
            raise UserValueError(
                f"The federated loss got weights of {len(weights)} classes, NUM_CLASSES is {self.num_classes}"
            )
        self.register_buffer("fed_loss_cls_weights", weights, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        node = cfg.MODEL.ROI_BOX_HEAD
        return {
            "input_shape": input_shape,
            "box2box_transform": Box2BoxTransform(weights=node.BBOX_REG_WEIGHTS),
            "num_classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "cls_agnostic_bbox_reg": node.CLS_AGNOSTIC_BBOX_REG,
            "smooth_l1_beta": node.SMOOTH_L1_BETA,
            "box_reg_loss_type": node.BBOX_REG_LOSS_TYPE,
            "loss_weight": {"loss_box_reg": node.BBOX_REG_LOSS_WEIGHT},
            "test_score_thresh": cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST,
            "test_nms_thresh": cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST,
            "test_topk_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "use_fed_loss": node.USE_FED_LOSS,
            "use_sigmoid_ce": node.USE_SIGMOID_CE,
            "get_fed_loss_cls_weights": lambda: get_fed_loss_cls_weights(
                dataset_names=cfg.DATASETS.TRAIN, freq_weight_power=node.FED_LOSS_FREQ_WEIGHT_POWER
            ),
            "fed_loss_num_classes": node.FED_LOSS_NUM_CLASSES,
        }

    def forward(self, x: Tensor) -> Predictions:
        """(R, ...) features -> (R, K + 1) class logits and (R, Kb * B) deltas."""
        x = x.flatten(start_dim=1)
        return self.cls_score(x), self.bbox_pred(x)

    def losses(self, predictions: Predictions, proposals: list[Instances]) -> dict[str, Tensor]:
        """Compare predictions with the ground truth of the regions.

        Args:
            predictions: what `forward` returned for the regions of all images.
            proposals: per image, with `proposal_boxes`, `gt_classes` and, where the image has objects,
                `gt_boxes`.

        Returns:
            "loss_cls" and "loss_box_reg".
        """
        logits, deltas = predictions
        logits = logits.float()
        gt_classes = _concatenated(
            [p.gt_classes for p in proposals], like=logits.new_zeros(0, dtype=torch.int64)
        )
        _log_classification_stats(logits, gt_classes)

        no_boxes = logits.new_zeros(0, self.box_dim)
        boxes = _concatenated([p.proposal_boxes.tensor for p in proposals], like=no_boxes)
        # In an image without objects all is background, and the target box is never looked at.
        gt_boxes = _concatenated(
            [(p.gt_boxes if p.has("gt_boxes") else p.proposal_boxes).tensor for p in proposals], like=no_boxes
        )
        if self.use_sigmoid_ce:
            loss_cls = self.sigmoid_cross_entropy_loss(logits, gt_classes)
        else:
            # Not reduction="mean": without regions that is NaN.
            loss_cls = F.cross_entropy(logits, gt_classes, reduction="sum") / max(len(gt_classes), 1)
        losses = {
            "loss_cls": loss_cls,
            "loss_box_reg": self.box_reg_loss(boxes, gt_boxes, deltas, gt_classes),
        }
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}

    def get_fed_loss_classes(
        self, gt_classes: Tensor, num_fed_loss_classes: int, num_classes: int, weight: Tensor
    ) -> Tensor:
        """Draw the classes that the federated loss looks at: those present, and random others up to a number.

        Args:
            gt_classes: (R,), K for background.
            num_fed_loss_classes: how many, where fewer are present.
            num_classes: K.
            weight: (K,) how likely an absent class is drawn.

        Returns:
            Distinct classes; K is among them when there is background.
        """
        present: Tensor = gt_classes.unique()
        num_missing = num_fed_loss_classes - len(present)
        if num_missing <= 0:
            return present
        probability = F.pad(weight.float(), (0, 1))  # (K + 1,), background never drawn
        probability[present] = 0
        return torch.cat((present, torch.multinomial(probability, num_missing, replacement=False)))

    def sigmoid_cross_entropy_loss(self, pred_class_logits: Tensor, gt_classes: Tensor) -> Tensor:
        """Sum the binary losses of the classes (all, or those of the federated loss), averaged over regions.

        Args:
            pred_class_logits: (R, K + 1); the last column is not used.
            gt_classes: (R,), K for background.
        """
        num_classes = pred_class_logits.shape[1] - 1
        target = F.one_hot(gt_classes, num_classes + 1)[:, :num_classes].to(pred_class_logits.dtype)
        loss = F.binary_cross_entropy_with_logits(pred_class_logits[:, :-1], target, reduction="none")
        if self.use_fed_loss:
            counted = self.get_fed_loss_classes(
                gt_classes, self.fed_loss_num_classes, num_classes, self.fed_loss_cls_weights
            )
            is_counted = loss.new_zeros(num_classes + 1).index_fill(0, counted, 1.0)
            loss = loss * is_counted[:num_classes]
        return loss.sum() / max(len(gt_classes), 1)

    def box_reg_loss(
        self, proposal_boxes: Tensor, gt_boxes: Tensor, pred_deltas: Tensor, gt_classes: Tensor
    ) -> Tensor:
        """Sum the regression loss of the foreground, averaged over all regions.

        Dividing by all regions, not by the foreground, gives every foreground region of a batch the same
        weight, whatever their number.

        Args:
            proposal_boxes: (R, B).
            gt_boxes: (R, B).
            pred_deltas: (R, Kb * B).
            gt_classes: (R,), K for background.
        """
        is_foreground = (gt_classes >= 0) & (gt_classes < self.num_classes)
        rows = is_foreground.nonzero().flatten()
        deltas = pred_deltas.unflatten(1, (-1, self.box_dim))  # (R, Kb, B)
        columns = gt_classes[rows] if deltas.shape[1] > 1 else torch.zeros_like(rows)
        total = dense_box_regression_loss(
            [proposal_boxes[rows]],
            self.box2box_transform,
            [deltas[rows, columns][None]],
            [gt_boxes[rows]],
            ...,
            self.box_reg_loss_type,
            self.smooth_l1_beta,
        )
        return total / max(len(gt_classes), 1)

    def inference(
        self, predictions: Predictions, proposals: list[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """Choose the detections of every image.

        Args:
            predictions: what `forward` returned for the regions of all images.
            proposals: per image, with `proposal_boxes`.

        Returns:
            Per image, `Instances` with `pred_boxes`, `scores` and `pred_classes`, best first, and the region
            that each came from.
        """
        return fast_rcnn_inference(
            self.predict_boxes(predictions, proposals),
            self.predict_probs(predictions, proposals),
            [p.image_size for p in proposals],
            self.test_score_thresh,
            self.test_nms_thresh,
            self.test_topk_per_image,
        )

    def predict_boxes_for_gt_classes(
        self, predictions: Predictions, proposals: list[Instances]
    ) -> list[Tensor]:
        """Per image, (Ri, B): every region's box as refined for its true class (any class for background).

        Args:
            predictions: what `forward` returned for the regions of all images.
            proposals: per image, with `proposal_boxes` and `gt_classes`.
        """
        if not proposals:
            return []
        gt_classes = torch.cat([p.gt_classes for p in proposals]).clamp(0, self.num_classes - 1)
        boxes = self._refine(predictions[1], proposals)  # (R, Kb, B)
        if boxes.shape[1] == 1:
            gt_classes = torch.zeros_like(gt_classes)
        rows = torch.arange(len(boxes), device=boxes.device)
        return split_by_image(boxes[rows, gt_classes], proposals)

    def predict_boxes(self, predictions: Predictions, proposals: list[Instances]) -> list[Tensor]:
        """Per image, (Ri, Kb * B) refined boxes; arguments as in `inference`."""
        if not proposals:
            return []
        boxes = self._refine(predictions[1], proposals).flatten(1)
        return split_by_image(boxes, proposals)

    def _refine(self, deltas: Tensor, proposals: list[Instances]) -> Tensor:
        """(R, Kb, B) refined boxes."""
        return self.decode(deltas, torch.cat([p.proposal_boxes.tensor for p in proposals]))

    def decode(self, deltas: Tensor, sources: Tensor) -> Tensor:
        """(R, Kb * B) deltas and the (R, B) boxes of the regions -> (R, Kb, B) refined boxes."""
        boxes: Tensor = self.box2box_transform.apply_deltas(deltas, sources).unflatten(1, (-1, self.box_dim))
        return boxes

    def predict_probs(self, predictions: Predictions, proposals: list[Instances]) -> list[Tensor]:
        """Per image, (Ri, K + 1) probabilities, background last; arguments as in `inference`."""
        probs = class_probabilities(predictions[0], self.use_sigmoid_ce)
        return split_by_image(probs, proposals)


def _concatenated(tensors: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat(tensors) if tensors else like
