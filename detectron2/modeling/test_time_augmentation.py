"""Test-time augmentation: detect in several versions of an image, and merge what was found.

Shapes: V versions of an image; R detections; K classes; M resolution of mask heads.
There are two frames: that of the results (`height` and `width` of the input), and one per version, that of
the network input which its transforms lead to. Boxes are XYXY.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detectron2.config.config.node import CfgNode
from detectron2.data.detection_utils.image_io import read_image
from detectron2.structures.boxes import Boxes
from detectron2.structures.instances import Instances
from detectron2.utils.user_errors import UserTypeError, UserValueError

from .augmented_versions import DatasetMapperTTA as DatasetMapperTTA
from .augmented_versions import mirrored_dims, move_boxes, sem_seg_probabilities
from .inference import suppress
from .meta_arch.build import META_ARCH_REGISTRY
from .meta_arch.panoptic_fpn import PanopticFPN
from .meta_arch.rcnn import GeneralizedRCNN
from .postprocessing import detector_postprocess


class GeneralizedRCNNWithTTA(nn.Module):
    """A `GeneralizedRCNN` that detects in all versions of an image; it is called as the model is.

    Boxes of all versions go through one NMS. Masks are then predicted in the boxes that are left, in every
    version, and averaged.
    """

    model_class: type[GeneralizedRCNN] = GeneralizedRCNN

    def __init__(self, cfg: CfgNode, model: nn.Module, tta_mapper: Any = None, batch_size: int = 3) -> None:
        """
        Args:
            cfg: of the model.
            model: the model, or a DistributedDataParallel around it.
            tta_mapper: image -> versions, as `DatasetMapperTTA`, which it is by default.
            batch_size: versions that go through the model at once.
        """
        super().__init__()
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        self._check(cfg, model)
        self.cfg = cfg.clone()
        self.model: Any = model
        self.tta_mapper = DatasetMapperTTA(cfg) if tta_mapper is None else tta_mapper
        self.batch_size = batch_size

    def _check(self, cfg: CfgNode, model: nn.Module) -> None:
        if not isinstance(model, self.model_class):
            raise UserTypeError(
                f"{type(self).__name__} augments a {self.model_class.__name__}, got a {type(model).__name__}"
            )
        if type(self) is GeneralizedRCNNWithTTA and isinstance(model, PanopticFPN):
            raise UserTypeError("to augment a PanopticFPN, use PanopticFPNWithTTA")
        _check_config(cfg)

    @torch.no_grad()
    def __call__(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Detect.

        Args:
            batched_inputs: as for the model; `file_name` may stand in for `image`.

        Returns:
            As the model, in the frame of the results.
        """
        return [self._inference_one_image(self._with_image(x)) for x in batched_inputs]

    def _with_image(self, x: dict[str, Any]) -> dict[str, Any]:
        if "image" not in x:
            array = read_image(x["file_name"], self.model.input_format)
            x = {**x, "image": torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))}
        height, width = x["image"].shape[-2:]
        return {"height": height, "width": width, **x}

    def _inference_one_image(self, x: dict[str, Any]) -> dict[str, Any]:
        versions = self.tta_mapper(x)
        found: list[Instances] = []
        with _boxes_only(self.model.roi_heads):
            for batch in self._batches(versions):
                found += self.model.inference(batch, do_postprocess=False)
        return {"instances": self._merge_instances(found, versions, (x["height"], x["width"]))}

    def _batches(self, versions: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        for start in range(0, len(versions), self.batch_size):
            yield versions[start : start + self.batch_size]

    def _merge_instances(
        self, found: list[Instances], versions: list[dict[str, Any]], size: tuple[int, int]
    ) -> Instances:
        """Per version, boxes in its frame -> detections in the frame of the results, masks included."""
        merged = self._merge_boxes(found, versions, size)
        if self.cfg.MODEL.MASK_ON:
            merged.pred_masks = self._mean_masks(merged, versions)
        return detector_postprocess(merged, *size)

    def _merge_boxes(
        self, found: list[Instances], versions: list[dict[str, Any]], size: tuple[int, int]
    ) -> Instances:
        boxes = Boxes.cat(
            [move_boxes(v["transforms"].inverse(), x.pred_boxes) for x, v in zip(found, versions)]
        )
        boxes.clip(size)
        scores = torch.cat([x.scores for x in found])
        classes = torch.cat([x.pred_classes for x in found])
        keep = suppress(
            boxes.tensor,
            scores,
            classes,
            nms_thresh=self.cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST,
            topk=self.cfg.TEST.DETECTIONS_PER_IMAGE,
        )
        return Instances(size, pred_boxes=boxes[keep], scores=scores[keep], pred_classes=classes[keep])

    def _mean_masks(self, merged: Instances, versions: list[dict[str, Any]]) -> Tensor:
        """(R, 1, M, M) mask probabilities, the mean over all versions."""
        if not len(merged):
            versions = versions[:1]  # nothing to average; one version tells the shape
        total: Tensor | None = None
        for batch in self._batches(versions):
            given = [self._in_frame_of(v, merged) for v in batch]
            for version, result in zip(batch, self._predict_masks(batch, given)):
                masks = result.pred_masks.flip(mirrored_dims(version["transforms"], merged.image_size))
                total = masks if total is None else total + masks
        if total is None:
            raise UserValueError("the mapper of test-time augmentation made no version of the image")
        return total / len(versions)

    def _predict_masks(self, batch: list[dict[str, Any]], given: list[Instances]) -> list[Instances]:
        results: list[Instances] = self.model.inference(batch, detected_instances=given, do_postprocess=False)
        return results

    @staticmethod
    def _in_frame_of(version: dict[str, Any], merged: Instances) -> Instances:
        return Instances(
            tuple(version["image"].shape[-2:]),
            pred_boxes=move_boxes(version["transforms"], merged.pred_boxes),
            pred_classes=merged.pred_classes,
            scores=merged.scores,
        )


class PanopticFPNWithTTA(GeneralizedRCNNWithTTA):
    """A `PanopticFPN` that segments all versions of an image.

    Instances are merged as by `GeneralizedRCNNWithTTA`. Class probabilities of pixels are averaged, so that
    `sem_seg` holds probabilities instead of logits. The panoptic map is made of the merged results.
    """

    model_class = PanopticFPN

    def _inference_one_image(self, x: dict[str, Any]) -> dict[str, Any]:
        size = (x["height"], x["width"])
        versions = self.tta_mapper(x)
        found: list[Instances] = []
        probabilities: Any = 0
        with _boxes_only(self.model.roi_heads):
            for batch in self._batches(versions):
                instances, logits = self.model.inference(batch, do_postprocess=False)
                found += instances
                for version, version_logits in zip(batch, logits):
                    probabilities = probabilities + sem_seg_probabilities(version_logits, version, size)
        sem_seg = probabilities / len(versions)
        detections = self._merge_instances(found, versions, size)
        panoptic = self.model.combine(detections, sem_seg)
        return {"sem_seg": sem_seg, "instances": detections, "panoptic_seg": panoptic}

    def _predict_masks(self, batch: list[dict[str, Any]], given: list[Instances]) -> list[Instances]:
        results: list[Instances] = self.model.predict_in_boxes(batch, given)  # without the semantic map
        return results


def find_tta_class(cfg: CfgNode) -> type[GeneralizedRCNNWithTTA]:
    """Return the class that augments models of this config, to be called with `(cfg, model)`.

    Raises:
        ValueError: there is none.
    """
    model_class = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
    _check_config(cfg)
    for tta_class in (PanopticFPNWithTTA, GeneralizedRCNNWithTTA):
        if isinstance(model_class, type) and issubclass(model_class, tta_class.model_class):
            return tta_class
    raise UserValueError(
        "Test-time augmentation is for GeneralizedRCNN and PanopticFPN, MODEL.META_ARCHITECTURE is "
        f"{cfg.MODEL.META_ARCHITECTURE}: set TEST.AUG.ENABLED to False"
    )


def _check_config(cfg: CfgNode) -> None:
    if cfg.MODEL.KEYPOINT_ON:
        raise UserValueError(
            "Test-time augmentation does not merge keypoints: set MODEL.KEYPOINT_ON to False"
        )
    if cfg.MODEL.LOAD_PROPOSALS:
        raise UserValueError(
            "Test-time augmentation needs a model that makes its proposals: set MODEL.LOAD_PROPOSALS to False"
        )


@contextmanager
def _boxes_only(roi_heads: Any) -> Iterator[None]:
    """Let region heads stop after boxes: masks and keypoints wait for the merged ones."""
    switches = {
        name: getattr(roi_heads, name) for name in ("mask_on", "keypoint_on") if hasattr(roi_heads, name)
    }
    try:
        for name in switches:
            setattr(roi_heads, name, False)
        yield
    finally:
        for name, value in switches.items():
            setattr(roi_heads, name, value)
