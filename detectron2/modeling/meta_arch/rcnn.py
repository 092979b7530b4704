"""Two-stage detectors, and their first stage alone.

Shapes: N images; C channels; H, W size of an image before padding. Boxes are XYXY in input-image pixels until
postprocessing brings them to the frame of the original image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.utils.events.storage import get_event_storage
from detectron2.utils.user_errors import UserValueError

from ..backbone.backbone import Backbone
from ..backbone.build import build_backbone
from ..postprocessing import detector_postprocess
from ..proposal_generator.build import build_proposal_generator
from ..roi_heads.roi_heads.base import build_roi_heads
from .build import META_ARCH_REGISTRY
from .image_model import ImageModel, output_size
from .training_pictures import put_picture_of_boxes


@META_ARCH_REGISTRY.register()
class GeneralizedRCNN(ImageModel):
    """Backbone, proposals, region heads."""

    class_count_keys = {"thing": "MODEL.ROI_HEADS.NUM_CLASSES"}

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generator: nn.Module | None,
        roi_heads: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str | None = None,
        vis_period: int = 0,
    ) -> None:
        """
        Args:
            backbone: images -> feature maps by name.
            proposal_generator: images and features -> proposals; None when the loader delivers proposals.
            roi_heads: features and proposals -> detections.
            pixel_mean: per channel, subtracted from images.
            pixel_std: per channel, divides images then.
            input_format: channel order of images; needed for pictures only.
            vis_period: every how many steps proposals go to the event storage as a picture; 0 for never.
        """
        super().__init__()
        if vis_period > 0 and input_format is None:
            raise UserValueError("vis_period needs input_format, to show images in their true colours")
        self._setup_images(backbone, pixel_mean, pixel_std)
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.input_format = input_format
        self.vis_period = vis_period

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        return {
            "backbone": backbone,
            "proposal_generator": build_proposal_generator(cfg, shapes),
            "roi_heads": build_roi_heads(cfg, shapes),
            "input_format": cfg.INPUT.FORMAT,
            "vis_period": cfg.VIS_PERIOD,
            **cls.image_arguments(cfg),
        }

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Train or detect.

        Args:
            batched_inputs: per image, a dict with `image` (C, H, W); in training `instances` with ground
                truth; for a model without proposal generator `proposals`; `height` and `width` of the results
                wanted.

        Returns:
            In training a dict of losses; otherwise, per image, {"instances": `Instances` with `pred_boxes`,
            `scores`, `pred_classes`, and `pred_masks` and `pred_keypoints` where there are such heads}.
        """
        if not self.training:
            return self.inference(batched_inputs)
        gt_instances = self._checked_instances(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        return self._detection_losses(batched_inputs, images, features, gt_instances)

    def _checked_instances(self, batched_inputs: list[dict[str, Any]]) -> list[Instances] | None:
        num_classes = getattr(self.roi_heads, "num_classes", None)
        return self._ground_truth(batched_inputs, num_classes)

    def _detection_losses(
        self, batched_inputs: list[dict[str, Any]], images: Any, features: Any, gt_instances: Any
    ) -> dict[str, Tensor]:
        """Losses of proposals and of region heads."""
        proposals, proposal_losses = self._propose(batched_inputs, images, features, gt_instances)
        _, detector_losses = self.roi_heads(images, features, proposals, gt_instances)
        if self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0:
            self.visualize_training(batched_inputs, proposals)
        return {**proposal_losses, **self._weigh_instance_losses(detector_losses)}

    def _weigh_instance_losses(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses of the region heads as they go into the sum."""
        return losses

    def _propose(
        self, batched_inputs: list[dict[str, Any]], images: Any, features: Any, gt_instances: Any = None
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        if self.proposal_generator is not None:
            proposals, losses = self.proposal_generator(images, features, gt_instances)
            return proposals, losses
        if "proposals" not in batched_inputs[0]:
            raise UserValueError(
                "A model without proposal generator needs `proposals` in its inputs: set "
                "MODEL.LOAD_PROPOSALS and DATASETS.PROPOSAL_FILES_TRAIN / _TEST, or "
                "MODEL.PROPOSAL_GENERATOR.NAME to RPN"
            )
        return [x["proposals"].to(self.device) for x in batched_inputs], {}

    def inference(
        self,
        batched_inputs: list[dict[str, Any]],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> Any:
        """Detect.

        Args:
            batched_inputs: see `forward`.
            detected_instances: per image, boxes and classes that are known already; then only masks and
                keypoints are predicted.
            do_postprocess: bring the results to the frame of the original images.

        Returns:
            As `forward`; without postprocessing, per image, `Instances` in the frame of the network input.
        """
        assert not self.training, "inference is for models in eval mode"
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        results = self._detect(batched_inputs, images, features, detected_instances)
        if not do_postprocess:
            return results
        return self._postprocess(results, batched_inputs, images.image_sizes)

    def predict_in_boxes(
        self, batched_inputs: list[dict[str, Any]], instances: list[Instances]
    ) -> list[Instances]:
        """Predict masks and keypoints in given boxes, and nothing else.

        Args:
            batched_inputs: see `forward`.
            instances: per image, with `pred_boxes` and `pred_classes`.

        Returns:
            Per image, the instances with what the heads add, in the frame of the network input.
        """
        images = self.preprocess_image(batched_inputs)
        return self._detect(batched_inputs, images, self.backbone(images.tensor), instances)

    def _detect(
        self,
        batched_inputs: list[dict[str, Any]],
        images: ImageList,
        features: dict[str, Tensor],
        known: list[Instances] | None,
    ) -> list[Instances]:
        """Per image, `Instances` in the frame of the network input, in known boxes where there are such."""
        roi_heads: Any = self.roi_heads
        results: list[Instances]
        if known is not None:
            results = roi_heads.forward_with_given_boxes(features, [x.to(self.device) for x in known])
            return results
        proposals, _ = self._propose(batched_inputs, images, features)
        results, _ = roi_heads(images, features, proposals, None)
        return results

    @staticmethod
    def _postprocess(
        instances: list[Instances], batched_inputs: list[dict[str, Any]], image_sizes: list[tuple[int, int]]
    ) -> list[dict[str, Any]]:
        return [
            {"instances": detector_postprocess(result, *output_size(x, size))}
            for result, x, size in zip(instances, batched_inputs, image_sizes)
        ]

    def visualize_training(self, batched_inputs: list[dict[str, Any]], proposals: list[Instances]) -> None:
        """Put a picture of the first image into the event storage: ground truth, and 20 proposals beside.

        Args:
            batched_inputs: see `forward`.
            proposals: per image, best first.
        """
        if not batched_inputs or self.input_format is None:
            return
        name = "Left: GT bounding boxes;  Right: Predicted proposals"
        boxes = proposals[0].proposal_boxes.tensor[:20]
        put_picture_of_boxes(name, batched_inputs[0], boxes, self.input_format)


@META_ARCH_REGISTRY.register()
class ProposalNetwork(ImageModel):
    """Backbone and proposals, without region heads."""

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generator: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        """
        Args:
            backbone: images -> feature maps by name.
            proposal_generator: images and features -> proposals.
            pixel_mean: per channel, subtracted from images.
            pixel_std: per channel, divides images then.
        """
        super().__init__()
        self._setup_images(backbone, pixel_mean, pixel_std)
        self.proposal_generator = proposal_generator

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        backbone = build_backbone(cfg)
        proposal_generator = build_proposal_generator(cfg, backbone.output_shape())
        if proposal_generator is None:
            raise UserValueError(
                "ProposalNetwork makes proposals: MODEL.PROPOSAL_GENERATOR.NAME cannot be "
                "PrecomputedProposals"
            )
        return {
            "backbone": backbone,
            "proposal_generator": proposal_generator,
            **cls.image_arguments(cfg),
        }

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Train or propose.

        Args:
            batched_inputs: as for `GeneralizedRCNN.forward`.

        Returns:
            In training a dict of losses; otherwise, per image, {"proposals": `Instances` with
            `proposal_boxes` and `objectness_logits`} in the frame of the original image.
        """
        gt_instances = self._ground_truth(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        proposals, losses = self.proposal_generator(images, features, gt_instances)
        if self.training:
            return losses
        return [
            {"proposals": detector_postprocess(result, *output_size(x, size))}
            for result, x, size in zip(proposals, batched_inputs, images.image_sizes)
        ]
