"""From a data set dict to what models take: read, augment, and make tensors."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fvcore.transforms.transform import Transform, TransformList

from detectron2.config.config.construction import configurable
from detectron2.structures.boxes import BoxMode
from detectron2.utils.user_errors import UserValueError

from .detection_utils.annotations import transform_instance_annotations, transform_proposals
from .detection_utils.box_kind import has_rotated_boxes
from .detection_utils.deep_images import ValueRange
from .detection_utils.image_io import SizeMismatchError, check_image_size, read_image
from .detection_utils.metadata_queries import create_keypoint_hflip_indices
from .detection_utils.panoptic_png import read_panoptic_ids
from .detection_utils.sem_seg import read_sem_seg
from .detection_utils.targets import (
    annotations_to_instances,
    annotations_to_instances_rotated,
    filter_empty_instances,
)
from .transforms.augmentation import AugInput, Augmentation, AugmentationList
from .transforms.augmentation_impl.cropping import RandomCrop
from .transforms.build import build_augmentation

logger = logging.getLogger(__name__)

__all__ = ["DatasetMapper"]


class DatasetMapper:
    """Map a data set dict to the input of the built-in models.

    The result is a copy of the dict with, for the augmented image:

    - `image`: (C, H, W) uint8 tensor, in the format of `INPUT.FORMAT`;
    - `instances`: `Instances` of (H, W), crowds left out (training only);
    - `sem_seg`: (H, W) int64 labels, where the dict has them;
    - `proposals`: `Instances`, where proposals were loaded and are asked for.

    `height` and `width` are those of the file. Write your own mapper when you need something else: it may
    be any function of a dict, and the pieces of this one are in `detection_utils`.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[Augmentation | Transform],
        image_format: str,
        use_instance_mask: bool = False,
        use_keypoint: bool = False,
        instance_mask_format: str = "polygon",
        keypoint_hflip_indices: np.ndarray | None = None,
        precomputed_proposal_topk: int | None = None,
        recompute_boxes: bool = False,
        use_rotated_boxes: bool = False,
        value_range: ValueRange = None,
    ) -> None:
        """
        Args:
            is_train: whether annotations are used.
            augmentations: applied in order.
            image_format: format of the image, as `read_image` takes it.
            use_instance_mask: whether instances get masks.
            use_keypoint: whether instances get keypoints.
            instance_mask_format: "polygon" or "bitmask". Masks derived from panoptic PNGs are bit masks in
                any case.
            keypoint_hflip_indices: for each keypoint the one whose place it takes in a mirrored image.
            precomputed_proposal_topk: how many precomputed proposals are kept; None ignores them.
            recompute_boxes: whether boxes become the bounds of the augmented masks, tighter than the bounds
                of augmented boxes.
            use_rotated_boxes: whether boxes become `RotatedBoxes`; upright ones get the angle 0.
            value_range: for images of more than 8 bits per channel, the values that become 0 and 255; None
                refuses them.
        """
        if recompute_boxes and not use_instance_mask:
            raise UserValueError("recompute_boxes needs use_instance_mask, since it measures the masks.")
        self.is_train = is_train
        self.augmentations = AugmentationList(augmentations)
        self.image_format, self.value_range = image_format, value_range
        self.use_instance_mask, self.instance_mask_format = use_instance_mask, instance_mask_format
        self.recompute_boxes, self.use_rotated_boxes = recompute_boxes, use_rotated_boxes
        self.use_keypoint, self.keypoint_hflip_indices = use_keypoint, keypoint_hflip_indices
        self.proposal_topk = precomputed_proposal_topk
        mode = "training" if is_train else "inference"
        logger.info("DatasetMapper for %s, augmentations: %s", mode, self.augmentations)

    @classmethod
    def from_config(cls, cfg: Any, is_train: bool = True) -> dict[str, Any]:
        augmentations: list[Augmentation] = build_augmentation(cfg, is_train)
        crops = cfg.INPUT.CROP.ENABLED and is_train
        if crops:
            augmentations.insert(0, RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
        arguments = {
            "is_train": is_train,
            "augmentations": augmentations,
            "image_format": cfg.INPUT.FORMAT,
            "use_keypoint": cfg.MODEL.KEYPOINT_ON,
            "use_instance_mask": cfg.MODEL.MASK_ON,
            "instance_mask_format": cfg.INPUT.MASK_FORMAT,
            # A box cut by a crop is looser than the mask that is left in it.
            "recompute_boxes": crops and cfg.MODEL.MASK_ON,
            "use_rotated_boxes": has_rotated_boxes(cfg),
            "value_range": tuple(cfg.INPUT.VALUE_RANGE) or None,
        }
        if cfg.MODEL.KEYPOINT_ON:
            arguments["keypoint_hflip_indices"] = create_keypoint_hflip_indices(cfg.DATASETS.TRAIN)
        if cfg.MODEL.LOAD_PROPOSALS:
            split = "TRAIN" if is_train else "TEST"
            arguments["precomputed_proposal_topk"] = cfg.DATASETS[f"PRECOMPUTED_PROPOSAL_TOPK_{split}"]
        return arguments

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one data set dict; it is not changed."""
        dataset_dict = copy.deepcopy(dataset_dict)
        try:
            return self._map(dataset_dict)
        except (FileNotFoundError, ValueError) as e:
            if "dataset_name" not in dataset_dict or isinstance(e, SizeMismatchError):
                raise
            kind = FileNotFoundError if isinstance(e, FileNotFoundError) else ValueError
            raise kind(
                f"Data set {dataset_dict['dataset_name']!r}, image {dataset_dict.get('file_name')!r}: {e}"
            ) from e

    def _map(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        image = read_image(dataset_dict["file_name"], format=self.image_format, value_range=self.value_range)
        check_image_size(dataset_dict, image)
        panoptic_ids = self._read_panoptic_ids(dataset_dict)
        aug_input = AugInput(image, sem_seg=read_sem_seg(dataset_dict, panoptic_ids))
        for source in ("sem_seg_file_name", "sem_seg_labels"):
            dataset_dict.pop(source, None)
        transforms = self.augmentations(aug_input)
        image_size = aug_input.image.shape[:2]
        dataset_dict["image"] = torch.from_numpy(np.array(aug_input.image.transpose(2, 0, 1), order="C"))
        if aug_input.sem_seg is not None:
            dataset_dict["sem_seg"] = torch.from_numpy(aug_input.sem_seg.astype(np.int64))

        if self.proposal_topk is not None:
            transform_proposals(dataset_dict, image_size, transforms, proposal_topk=self.proposal_topk)
        if not self.is_train:
            dataset_dict.pop("annotations", None)
        elif "annotations" in dataset_dict:
            if panoptic_ids is not None and self.use_instance_mask:
                _cut_out_segments(dataset_dict["annotations"], panoptic_ids)
            self._transform_annotations(dataset_dict, transforms, image_size)
        return dataset_dict

    def _read_panoptic_ids(self, dataset_dict: dict[str, Any]) -> np.ndarray | None:
        """The panoptic PNG, where the stuff map or masks are derived from it."""
        needs_masks = self.is_train and self.use_instance_mask
        has_segments = any("segment_id" in anno for anno in dataset_dict.get("annotations", ()))
        if "sem_seg_labels" not in dataset_dict and not (needs_masks and has_segments):
            return None
        ids = read_panoptic_ids(dataset_dict["pan_seg_file_name"])
        expected = (dataset_dict["height"], dataset_dict["width"])
        if ids.shape != expected:
            raise SizeMismatchError(
                f"Panoptic PNG {dataset_dict['pan_seg_file_name']!r} is {ids.shape[1]} x {ids.shape[0]} "
                f"(width x height), but image {dataset_dict['file_name']!r} is {expected[1]} x {expected[0]}."
            )
        return ids

    def _transform_annotations(
        self, dataset_dict: dict[str, Any], transforms: TransformList, image_size: tuple[int, int]
    ) -> None:
        """Replace `annotations` by `instances`."""
        annotations = [anno for anno in dataset_dict.pop("annotations") if anno.get("iscrowd", 0) == 0]
        is_from_png = any(
            "segment_id" in a and isinstance(a.get("segmentation"), np.ndarray) for a in annotations
        )
        mask_format = "bitmask" if is_from_png else self.instance_mask_format
        for anno in annotations:
            if not self.use_instance_mask:
                anno.pop("segmentation", None)
            if not self.use_keypoint:
                anno.pop("keypoints", None)
            if self.use_rotated_boxes:
                anno["bbox"] = BoxMode.convert(anno["bbox"], anno["bbox_mode"], BoxMode.XYWHA_ABS)
                anno["bbox_mode"] = BoxMode.XYWHA_ABS
            transform_instance_annotations(
                anno, transforms, image_size, keypoint_hflip_indices=self.keypoint_hflip_indices
            )
        if self.use_rotated_boxes:
            instances = annotations_to_instances_rotated(annotations, image_size)
        else:
            instances = annotations_to_instances(annotations, image_size, mask_format=mask_format)
        if self.recompute_boxes and instances.has("gt_masks"):
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        dataset_dict["instances"] = filter_empty_instances(instances)


def _cut_out_segments(annotations: list[dict[str, Any]], panoptic_ids: np.ndarray) -> None:
    """Give annotations that only name a segment of the panoptic PNG their mask, crowds left out."""
    for anno in annotations:
        if "segment_id" in anno and "segmentation" not in anno and not anno.get("iscrowd", 0):
            anno["segmentation"] = (panoptic_ids == anno["segment_id"]).astype(np.uint8)
