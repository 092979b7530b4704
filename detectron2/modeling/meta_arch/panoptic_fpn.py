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

    @configurable
    def __init__(
        self,
        *,
        sem_seg_head: nn.Module,
        combine_overlap_thresh: float = 0.5,
        combine_stuff_area_thresh: float = 4096,
        combine_instances_score_thresh: float = 0.5,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            sem_seg_head: features -> logits, or losses in training.
            combine_overlap_thresh: see `combine_semantic_and_instance_outputs`; so are the next two.
            combine_stuff_area_thresh: see there.
            combine_instances_score_thresh: see there.
            kwargs: of `GeneralizedRCNN`.
        """
        super().__init__(**kwargs)
        self.sem_seg_head = sem_seg_head
        self.combine_overlap_thresh = combine_overlap_thresh
        self.combine_stuff_area_thresh = combine_stuff_area_thresh
        self.combine_instances_score_thresh = combine_instances_score_thresh

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        arguments = super().from_config(cfg)
        node = cfg.MODEL.PANOPTIC_FPN
        if not node.COMBINE.ENABLED:
            logger.warning(
                "MODEL.PANOPTIC_FPN.COMBINE.ENABLED has no effect: results always hold a panoptic map. Call "
                "`model.inference(inputs, do_postprocess=False)` for the results before merging."
            )
        if node.INSTANCE_LOSS_WEIGHT != 1.0:
            _scale_instance_losses(arguments["roi_heads"], node.INSTANCE_LOSS_WEIGHT)
        return {
            **arguments,
            "sem_seg_head": build_sem_seg_head(cfg, arguments["backbone"].output_shape()),
            "combine_overlap_thresh": node.COMBINE.OVERLAP_THRESH,
            "combine_stuff_area_thresh": node.COMBINE.STUFF_AREA_LIMIT,
            "combine_instances_score_thresh": node.COMBINE.INSTANCES_CONFIDENCE_THRESH,
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
        gt_instances = self._checked_instances(batched_inputs)
        gt_sem_seg = self._sem_seg_targets(batched_inputs, *label_range(self.sem_seg_head))
        if gt_instances is None or gt_sem_seg is None:
            raise UserValueError(
                "PanopticFPN is trained on `instances` and `sem_seg` of every image; got "
                f"{sorted(batched_inputs[0])}. Train on a data set registered with register_panoptic or "
                "register_coco_panoptic_separated."
            )
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        _, sem_seg_losses = self.sem_seg_head(features, gt_sem_seg)
        detection_losses = self._detection_losses(batched_inputs, images, features, gt_instances)
        return {**sem_seg_losses, **detection_losses}

    def inference(  # type: ignore[override]  # it cannot start from given boxes
        self, batched_inputs: list[dict[str, Any]], do_postprocess: bool = True
    ) -> Any:
        """Segment.

        Args:
            batched_inputs: see `forward`.
            do_postprocess: bring the results to the frame of the original images, and merge them.

        Returns:
            As `forward`; without postprocessing, `Instances` per image and (N, K, H, W) logits, both in the
            frame of the network input.
        """
        assert not self.training, "inference is for models in eval mode"
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        proposals, _ = self._propose(batched_inputs, images, features)
        logits, _ = self.sem_seg_head(features, None)
        instances, _ = self.roi_heads(images, features, proposals, None)
        if not do_postprocess:
            return instances, logits
        return [
            self._merge(*per_image)
            for per_image in zip(instances, logits, batched_inputs, images.image_sizes)
        ]

    def _merge(
        self, instances: Instances, logits: Tensor, batched_input: dict[str, Any], image_size: tuple[int, int]
    ) -> dict[str, Any]:
        """Results of one image in the frame of the network input -> its entry in the output of `forward`."""
        size = output_size(batched_input, image_size)
        sem_seg = sem_seg_postprocess(logits, image_size, *size)
        detections = detector_postprocess(instances, *size)
        panoptic = combine_semantic_and_instance_outputs(
            detections,
            sem_seg.argmax(dim=0),
            self.combine_overlap_thresh,
            self.combine_stuff_area_thresh,
            self.combine_instances_score_thresh,
        )
        return {"sem_seg": sem_seg, "instances": detections, "panoptic_seg": panoptic}


def _scale_instance_losses(roi_heads: Any, factor: float) -> None:
    """Multiply the weights of all losses of region heads."""
    predictor = roi_heads.box_predictor
    heads: list[Any] = list(predictor) if isinstance(predictor, nn.ModuleList) else [predictor]
    for head in heads:
        head.loss_weight = {
            name: head.loss_weight.get(name, 1.0) * factor for name in ("loss_cls", "loss_box_reg")
        }
    for name in ("mask_head", "keypoint_head"):
        head = getattr(roi_heads, name, None)
        if head is not None:
            head.loss_weight = head.loss_weight * factor
