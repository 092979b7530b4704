"""Test-time augmentation: detect in several versions of an image, and merge what was found.

Shapes: V versions of an image; R detections; K classes; M resolution of mask heads.
There are two frames: that of the results (`height` and `width` of the input), and one per version, that of
the network input which its transforms lead to. Boxes are XYXY.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
from .augmented_versions import SemanticMean, mirrored_dims, move_boxes
from .inference import suppress
from .meta_arch.build import META_ARCH_REGISTRY
from .meta_arch.panoptic_fpn import PanopticFPN
from .meta_arch.rcnn import GeneralizedRCNN
from .postprocessing import detector_postprocess

_Found = tuple[Tensor, list[Any], list[Any]]  # boxes, scores and classes of all versions


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

    # The steps below are for subclasses to replace, one at a time, under the names that projects know.

    def _inference_one_image(self, input: dict[str, Any]) -> dict[str, Any]:
        """Detect in one image, which has `image`, `height` and `width`."""
        versions, tfms = self._get_augmented_inputs(input)
        with self._turn_off_roi_heads(["mask_on", "keypoint_on"]):
            found = self._get_augmented_boxes(versions, tfms)
        return {"instances": self._merge_versions(found, versions, tfms, (input["height"], input["width"]))}

    def _merge_versions(
        self, found: _Found, versions: list[dict[str, Any]], tfms: list[Any], size: tuple[int, int]
    ) -> Instances:
        """Boxes of all versions -> detections in the frame of the results, masks included."""
        merged = self._merge_detections(*found, size)
        if self.cfg.MODEL.MASK_ON:
            if not len(merged):
                versions, tfms = versions[:1], tfms[:1]  # nothing to average; one version tells the shape
            given = self._rescale_detected_boxes(versions, merged, tfms)
            merged.pred_masks = self._reduce_pred_masks(self._batch_inference(versions, given), tfms)
        return detector_postprocess(merged, *size)

    def _get_augmented_inputs(self, input: dict[str, Any]) -> tuple[list[dict[str, Any]], list[Any]]:
        """Make the versions of an image; returns model inputs, and the transforms that lead to each."""
        versions = self.tta_mapper(input)
        if not versions:
            raise UserValueError("the mapper of test-time augmentation made no version of the image")
        return [{k: v for k, v in x.items() if k != "transforms"} for x in versions], [
            x["transforms"] for x in versions
        ]

    @contextmanager
    def _turn_off_roi_heads(self, attrs: Iterable[str]) -> Iterator[None]:
        """Set switches of the region heads, of those that they have, to False inside a `with` block."""
        roi_heads = self.model.roi_heads
        switches = {name: getattr(roi_heads, name) for name in attrs if hasattr(roi_heads, name)}
        try:
            for name in switches:
                setattr(roi_heads, name, False)
            yield
        finally:
            for name, value in switches.items():
                setattr(roi_heads, name, value)

    def _get_augmented_boxes(self, augmented_inputs: list[dict[str, Any]], tfms: list[Any]) -> _Found:
        """Detect in all versions.

        Returns:
            (R, 4) boxes in the frame of the results, and a list of R scores and one of R classes.
        """
        outputs = self._batch_inference(augmented_inputs)
        boxes = Boxes.cat([move_boxes(tfm.inverse(), x.pred_boxes) for x, tfm in zip(outputs, tfms)])
        scores = [score for x in outputs for score in x.scores]
        return boxes.tensor, scores, [category for x in outputs for category in x.pred_classes]

    def _batch_inference(
        self, batched_inputs: list[dict[str, Any]], detected_instances: list[Instances] | None = None
    ) -> list[Instances]:
        """Run the model on versions, `batch_size` at a time.

        Args:
            batched_inputs: V versions.
            detected_instances: per version, boxes in its frame in which masks are predicted; None to detect.

        Returns:
            Per version, its instances in its own frame.
        """
        outputs: list[Instances] = []
        for start in range(0, len(batched_inputs), self.batch_size):
            batch = slice(start, start + self.batch_size)
            given = None if detected_instances is None else detected_instances[batch]
            outputs += self._run_model(batched_inputs[batch], given)
        return outputs

    def _run_model(self, batch: list[dict[str, Any]], given: list[Instances] | None) -> list[Instances]:
        results: list[Instances] = self.model.inference(batch, detected_instances=given, do_postprocess=False)
        return results

    def _merge_detections(
        self,
        all_boxes: Tensor,
        all_scores: Sequence[Tensor | float] | Tensor,
        all_classes: Sequence[Tensor | int] | Tensor,
        shape_hw: tuple[int, int],
    ) -> Instances:
        """Keep the best of what was found in all versions, in the frame of the results, of size `shape_hw`.

        The first three are what `_get_augmented_boxes` returns.
        """
        boxes = Boxes(all_boxes)
        boxes.clip(shape_hw)
        scores = _as_tensor(all_scores, boxes.tensor)
        classes = _as_tensor(all_classes, boxes.tensor).long()
        keep = suppress(
            boxes.tensor,
            scores,
            classes,
            nms_thresh=self.cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST,
            topk=self.cfg.TEST.DETECTIONS_PER_IMAGE,
        )
        return Instances(shape_hw, pred_boxes=boxes[keep], scores=scores[keep], pred_classes=classes[keep])

    def _rescale_detected_boxes(
        self, augmented_inputs: list[dict[str, Any]], merged_instances: Instances, tfms: list[Any]
    ) -> list[Instances]:
        """Per version, the merged detections in its frame."""
        return [
            Instances(
                tuple(version["image"].shape[-2:]),
                pred_boxes=move_boxes(tfm, merged_instances.pred_boxes),
                pred_classes=merged_instances.pred_classes,
                scores=merged_instances.scores,
            )
            for version, tfm in zip(augmented_inputs, tfms)
        ]

    def _reduce_pred_masks(self, outputs: list[Instances], tfms: list[Any]) -> Tensor:
        """Average the (R, 1, M, M) mask probabilities of all versions, those of mirrored ones turned back."""
        total: Any = 0
        for x, tfm in zip(outputs, tfms):
            total = total + x.pred_masks.flip(mirrored_dims(tfm))
        mean: Tensor = total / len(outputs)
        return mean


class PanopticFPNWithTTA(GeneralizedRCNNWithTTA):
    """A `PanopticFPN` that segments all versions of an image.

    Instances are merged as by `GeneralizedRCNNWithTTA`. Class probabilities of pixels are averaged, so that
    `sem_seg` holds probabilities instead of logits. The panoptic map is made of the merged results.
    """

    model_class = PanopticFPN
    _semantics: SemanticMean | None = None  # where semantic maps go while versions are detected in

    def _inference_one_image(self, input: dict[str, Any]) -> dict[str, Any]:
        size = (input["height"], input["width"])
        versions, tfms = self._get_augmented_inputs(input)
        semantics = self._semantics = SemanticMean(tfms, size)
        try:
            with self._turn_off_roi_heads(["mask_on", "keypoint_on"]):
                found = self._get_augmented_boxes(versions, tfms)
        finally:
            self._semantics = None
        detections = self._merge_versions(found, versions, tfms, size)
        sem_seg = semantics.mean()
        panoptic = self.model.combine(detections, sem_seg)
        return {"sem_seg": sem_seg, "instances": detections, "panoptic_seg": panoptic}

    def _run_model(self, batch: list[dict[str, Any]], given: list[Instances] | None) -> list[Instances]:
        instances: list[Instances]
        if given is not None:
            instances = self.model.predict_in_boxes(batch, given)  # without the semantic map
            return instances
        instances, logits = self.model.inference(batch, do_postprocess=False)
        if self._semantics is not None:
            self._semantics.add(batch, logits)
        return instances


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


def _as_tensor(values: Sequence[Tensor | float] | Tensor, like: Tensor) -> Tensor:
    """R numbers, maybe tensors of no dimension, as (R,) on the device of `like`."""
    if isinstance(values, Tensor):
        return values
    if not values:
        return like.new_zeros(0)
    return torch.stack([torch.as_tensor(value, device=like.device) for value in values])
