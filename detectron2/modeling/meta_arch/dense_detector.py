"""What one-stage detectors share: a head on every feature level that predicts at every location.

Shapes: N images; L feature levels; Hi, Wi height and width of level i; A anchors per location;
Ri = Hi * Wi * A anchors of level i, R of all levels; K foreground classes, label K is background and -1 is
ignored.
Boxes are XYXY in input-image pixels until postprocessing brings them to the frame of the original image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detectron2.layers.tracing import fixed_size
from detectron2.structures.boxes import Boxes
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.utils.events.storage import get_event_storage
from detectron2.utils.user_errors import UserNotImplementedError, UserValueError

from ..backbone.backbone import Backbone, stated
from ..box_regression import BoxTransform
from ..inference import Detections, choose_dense_detections, decode_level, in_anchor_order
from ..metrics import put_metrics
from ..postprocessing import detector_postprocess
from .image_model import ImageModel, output_size
from .training_pictures import put_picture_of_boxes

NORMALIZER_MOMENTUM = 0.9


def permute_to_N_HWA_K(tensor: Tensor, K: int) -> Tensor:
    """Bring predictions of a level into the order of its anchors: (N, A*K, Hi, Wi) -> (N, Ri, K)."""
    if tensor.ndim != 4 or fixed_size(tensor, 1) % K:
        raise UserValueError(f"expected (N, A * {K}, H, W) predictions, got {tuple(tensor.shape)}")
    return in_anchor_order(tensor, K)


class DenseDetector(ImageModel):
    """Backbone and a head over feature levels; subclasses say what is trained and what is detected.

    A subclass that uses `inference_single_image` sets `box2box_transform`, `test_score_thresh`,
    `test_topk_candidates`, `test_nms_thresh` and `max_detections_per_image`; one that uses
    `_update_normalizer` calls `_setup_normalizer` first.
    """

    num_classes: int | None = None
    box2box_transform: BoxTransform
    test_score_thresh: float
    test_topk_candidates: int
    test_nms_thresh: float
    max_detections_per_image: int
    loss_normalizer: Tensor
    vis_period = 0
    input_format: str | None = None

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: list[str] | None = None,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        """
        Args:
            backbone: images -> feature maps by name.
            head: list of L feature maps -> several lists of L predictions each.
            head_in_features: names of the feature maps for the head; by default all, finest first.
            pixel_mean: per channel, subtracted from images.
            pixel_std: per channel, divides images then.
        """
        super().__init__()
        self._setup_images(backbone, pixel_mean, pixel_std)
        self.head = head
        if head_in_features is None:
            strides = {
                name: stated(shape.stride, "stride") for name, shape in backbone.output_shape().items()
            }
            head_in_features = sorted(strides, key=strides.__getitem__)
        if not head_in_features:
            raise UserValueError("A dense detector needs at least one feature map for its head")
        self.head_in_features = list(head_in_features)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Train or detect.

        Args:
            batched_inputs: per image, a dict with `image` (C, H, W); in training `instances` with ground
                truth; `height` and `width` of the results wanted.

        Returns:
            In training a dict of losses; otherwise, per image, {"instances": `Instances` with `pred_boxes`,
            `scores` and `pred_classes`}.
        """
        # Features and predictions of all levels.
        gt_instances = self._gt_for_training(batched_inputs) if self.training else None
        images = self.preprocess_image(batched_inputs)
        features_by_name = self.backbone(images.tensor)
        features = [features_by_name[name] for name in self.head_in_features]
        predictions = self.head(features)

        # Training: losses, and from time to time a picture.
        if gt_instances is not None:
            if self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0:
                with torch.no_grad():
                    results = self.forward_inference(images, features, predictions)
                self.visualize_training(batched_inputs, results)
            return self.forward_training(images, features, predictions, gt_instances)

        # Testing: detections, in the frames of the original images.
        return [
            {"instances": detector_postprocess(result, *output_size(x, size))}
            for result, x, size in zip(
                self.forward_inference(images, features, predictions), batched_inputs, images.image_sizes
            )
        ]

    def _gt_for_training(self, batched_inputs: list[dict[str, Any]]) -> list[Instances]:
        gt_instances = self._ground_truth(batched_inputs, self.num_classes)
        if gt_instances is None:
            raise UserValueError(
                f"{type(self).__name__} is trained on `instances` of every image; got "
                f"{sorted(batched_inputs[0])}"
            )
        return gt_instances

    def forward_training(
        self, images: ImageList, features: list[Tensor], predictions: Any, gt_instances: list[Instances]
    ) -> dict[str, Tensor]:
        """Compute the losses.

        Args:
            images: the padded batch.
            features: L feature maps.
            predictions: what the head made of them.
            gt_instances: per image, with `gt_boxes` and `gt_classes`.
        """
        raise UserNotImplementedError(f"{type(self).__name__} does not define forward_training")

    def forward_inference(
        self, images: ImageList, features: list[Tensor], predictions: Any
    ) -> list[Instances]:
        """Detect; see `forward_training` for the arguments. Results are in the frame of the network input."""
        raise UserNotImplementedError(f"{type(self).__name__} does not define forward_inference")

    def inference_single_image(
        self,
        anchors: list[Boxes],
        box_cls: list[Tensor],
        box_delta: list[Tensor],
        image_size: tuple[int, int],
    ) -> Instances:
        """Choose the detections of one image.

        Args:
            anchors: per level, Ri boxes.
            box_cls: per level, (Ri, K) scores in [0, 1].
            box_delta: per level, (Ri, 4).
            image_size: (height, width) of the input without padding.

        Returns:
            At most `max_detections_per_image`, best first, with `pred_boxes`, `scores` and `pred_classes`.
        """
        found = self.choose_detections(anchors, box_cls, box_delta)
        return Instances(
            image_size, pred_boxes=Boxes(found.boxes), scores=found.scores, pred_classes=found.classes
        )

    def choose_detections(
        self, anchors: list[Boxes], scores: list[Tensor], deltas: list[Tensor]
    ) -> Detections:
        """Choose the detections of one image as `inference_single_image` does, with tensors as the result."""
        levels = [
            decode_level(
                level_anchors.tensor,
                level_scores,
                level_deltas,
                self.box2box_transform,
                score_thresh=self.test_score_thresh,
                topk=self.test_topk_candidates,
            )
            for level_anchors, level_scores, level_deltas in zip(anchors, scores, deltas)
        ]
        return choose_dense_detections(levels, self.test_nms_thresh, self.max_detections_per_image)

    def _transpose_dense_predictions(
        self, predictions: Sequence[list[Tensor]], dims_per_anchor: Sequence[int]
    ) -> list[list[Tensor]]:
        """Per kind of prediction, L tensors (N, A * size, Hi, Wi) -> L tensors (N, Ri, size)."""
        if len(predictions) != len(dims_per_anchor):
            raise UserValueError(
                f"{type(self).__name__} expects {len(dims_per_anchor)} kinds of predictions of its head, got "
                f"{len(predictions)}"
            )
        return [
            [permute_to_N_HWA_K(x, size) for x in levels]
            for levels, size in zip(predictions, dims_per_anchor)
        ]

    def _setup_normalizer(self, initial: float) -> None:
        """Start the running number of foreground anchors that losses are divided by."""
        self.register_buffer("loss_normalizer", torch.tensor(float(initial)), persistent=False)

    def _update_normalizer(self, is_foreground: Tensor) -> Tensor:
        """Count the foreground anchors (N, R) of a batch in, and return the new divisor of its losses."""
        count = is_foreground.sum()
        put_metrics({"num_pos_anchors": count / len(is_foreground)})
        # A new tensor: the losses of another batch may still need the old one for their gradients.
        # Always float32: half precision cannot count what one batch adds to thousands of anchors.
        self.loss_normalizer = torch.lerp(
            count.clamp(min=1).float(), self.loss_normalizer.float(), NORMALIZER_MOMENTUM
        )
        return self.loss_normalizer

    def visualize_training(self, batched_inputs: list[dict[str, Any]], results: list[Instances]) -> None:
        """Put a picture of the first image into the event storage: ground truth, and 20 detections beside.

        Args:
            batched_inputs: see `forward`.
            results: per image, best first, in the frame of the network input.
        """
        if not batched_inputs:
            return
        if self.input_format is None:
            raise UserValueError(
                "visualize_training needs input_format, to show images in their true colours"
            )
        shown = detector_postprocess(results[0], *batched_inputs[0]["image"].shape[-2:])
        name = "Left: GT bounding boxes;  Right: Predicted boxes"
        put_picture_of_boxes(name, batched_inputs[0], shown.pred_boxes.tensor[:20], self.input_format)


def targets_of_matches(
    gt: Instances, matches: Tensor, match_labels: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Turn the matches of one image's anchors into what a dense detector is trained on.

    Args:
        gt: `gt_boxes` and `gt_classes` of the image.
        matches: (R,) index of each anchor's ground truth.
        match_labels: (R,) 1 for foreground, 0 for background, -1 for ignored.
        num_classes: K.

    Returns:
        (R,) int64 labels and (R, 4) target boxes, which mean something for foreground only.
    """
    if not len(gt):
        background = torch.full_like(matches, num_classes).where(match_labels >= 0, -1)
        return background, gt.gt_boxes.tensor.new_zeros(len(matches), 4)
    labels = torch.where(match_labels == 1, gt.gt_classes[matches], num_classes)
    return labels.where(match_labels >= 0, -1), gt.gt_boxes.tensor[matches]


def one_hot_targets(labels: Tensor, num_classes: int) -> Tensor:
    """(...) labels -> (..., K) float32, zeros for background and ignored."""
    classes = torch.arange(num_classes, device=labels.device)
    return (labels[..., None] == classes).float()
