"""Panoptic FPN (Kirillov et al., 2019): Mask R-CNN and a semantic head on one backbone, merged."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor, nn

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.structures.instances import Instances
from detectron2.utils.user_errors import UserValueError

from ..panoptic_fusion import combine_semantic_and_instance_outputs as combine_semantic_and_instance_outputs
from ..postprocessing import detector_postprocess, sem_seg_postprocess
from .build import META_ARCH_REGISTRY
from .image_model import output_size
from .rcnn import GeneralizedRCNN
from .semantic_seg import build_sem_seg_head, label_range

logger = logging.getLogger(__name__)


@META_ARCH_REGISTRY.register()
class PanopticFPN(GeneralizedRCNN):
    """Instances of things from region heads, stuff from a semantic head, and both in one map."""

    class_count_keys = {
        "thing": "MODEL.ROI_HEADS.NUM_CLASSES",
        "stuff": "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
    }

    @configurable
    def __init__(
        self,
        *,
        sem_seg_head: nn.Module,
        combine_overlap_thresh: float = 0.5,
        combine_stuff_area_thresh: float = 4096,
        combine_instances_score_thresh: float = 0.5,
        instance_loss_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            sem_seg_head: features -> logits, or losses in training.
            combine_overlap_thresh: an instance with more than this share of its mask taken is dropped.
            combine_stuff_area_thresh: a stuff class with fewer free pixels is dropped.
            combine_instances_score_thresh: instances with lower scores are dropped.
            instance_loss_weight: factor of all losses of the region heads, beside their own weights.
            kwargs: of `GeneralizedRCNN`.
        """
        super().__init__(**kwargs)
        self.sem_seg_head = sem_seg_head
        self.combine_overlap_thresh = combine_overlap_thresh
        self.combine_stuff_area_thresh = combine_stuff_area_thresh
        self.combine_instances_score_thresh = combine_instances_score_thresh
        self.instance_loss_weight = instance_loss_weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        arguments = super().from_config(cfg)
        node = cfg.MODEL.PANOPTIC_FPN
        if not node.COMBINE.ENABLED:
            logger.warning(
                "MODEL.PANOPTIC_FPN.COMBINE.ENABLED has no effect: results always hold a panoptic map. Call "
                "`model.inference(inputs, do_postprocess=False)` for the results before merging."
            )
        return {
            **arguments,
            "sem_seg_head": build_sem_seg_head(cfg, arguments["backbone"].output_shape()),
            "combine_overlap_thresh": node.COMBINE.OVERLAP_THRESH,
            "combine_stuff_area_thresh": node.COMBINE.STUFF_AREA_LIMIT,
            "combine_instances_score_thresh": node.COMBINE.INSTANCES_CONFIDENCE_THRESH,
            "instance_loss_weight": node.INSTANCE_LOSS_WEIGHT,
        }

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Train or segment.

        Args:
            batched_inputs: per image, a dict with `image` (C, H, W); in training `instances` and `sem_seg`,
                (H, W) labels in which 0 stands for all things; `height` and `width` of the results wanted.

        Returns:
            In training a dict of losses; otherwise, per image, a dict with `instances` (see
            `GeneralizedRCNN`), `sem_seg` (see `SemanticSegmentor`) and `panoptic_seg`, what
            `combine_semantic_and_instance_outputs` makes of both.
        """
        if not self.training:
            return self.inference(batched_inputs)

        # Both kinds of ground truth.
        gt_instances = self._checked_instances(batched_inputs)
        gt_sem_seg = self._sem_seg_targets(batched_inputs, *label_range(self.sem_seg_head))
        if gt_instances is None or gt_sem_seg is None:
            raise UserValueError(
                "PanopticFPN is trained on `instances` and `sem_seg` of every image; got "
                f"{sorted(batched_inputs[0])}. Train on a data set registered with register_panoptic or "
                "register_coco_panoptic_separated."
            )

        # Both heads on the same features.
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        _, sem_seg_losses = self.sem_seg_head(features, gt_sem_seg)
        detection_losses = self._detection_losses(batched_inputs, images, features, gt_instances)
        return {**sem_seg_losses, **detection_losses}

    def _weigh_instance_losses(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.instance_loss_weight == 1.0:
            return losses
        return {name: loss * self.instance_loss_weight for name, loss in losses.items()}

    def inference(  # type: ignore[override]  # the published order of arguments; by name they are the base's
        self,
        batched_inputs: list[dict[str, Any]],
        do_postprocess: bool = True,
        detected_instances: list[Instances] | None = None,
    ) -> Any:
        """Segment.

        Args:
            batched_inputs: see `forward`.
            do_postprocess: bring the results to the frame of the original images, and merge them.
            detected_instances: per image, boxes and classes that are known already; then only masks and
                keypoints of instances are predicted.

        Returns:
            As `forward`; without postprocessing, `Instances` per image and (N, K, H, W) logits, both in the
            frame of the network input.
        """
        assert not self.training, "inference is for models in eval mode"
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        logits, _ = self.sem_seg_head(features, None)
        instances = self._detect(batched_inputs, images, features, detected_instances)
        if not do_postprocess:
            return instances, logits
        return [
            self._merge(*per_image)
            for per_image in zip(instances, logits.unbind(), batched_inputs, images.image_sizes)
        ]

    def _merge(
        self, instances: Instances, logits: Tensor, batched_input: dict[str, Any], image_size: tuple[int, int]
    ) -> dict[str, Any]:
        """Results of one image in the frame of the network input -> its entry in the output of `forward`."""
        size = output_size(batched_input, image_size)
        sem_seg = sem_seg_postprocess(logits, image_size, *size)
        detections = detector_postprocess(instances, *size)
        return {
            "sem_seg": sem_seg,
            "instances": detections,
            "panoptic_seg": self.combine(detections, sem_seg),
        }

    def combine(self, detections: Instances, sem_seg: Tensor) -> tuple[Tensor, list[dict[str, Any]]]:
        """Merge the results of one image, by the model's thresholds.

        Args:
            detections: with `pred_masks` (R, H, W), `scores` and `pred_classes`.
            sem_seg: (K, H, W) logits or probabilities.

        Returns:
            (H, W) segment ids and a dict per segment, as of `combine_semantic_and_instance_outputs`.
        """
        return combine_semantic_and_instance_outputs(
            detections,
            sem_seg.argmax(dim=0),
            self.combine_overlap_thresh,
            self.combine_stuff_area_thresh,
            self.combine_instances_score_thresh,
        )
