"""COCO 2017 with persons and their keypoints."""

from detectron2.data.detection_utils import create_keypoint_hflip_indices

from .coco import dataloader

_train, _test = "keypoints_coco_2017_train", "keypoints_coco_2017_val"

dataloader.test.dataset.names = _test
# Persons without keypoints teach nothing.
dataloader.train.dataset.update(names=_train, min_keypoints=1)
# Keypoints that change sides in a mirrored image.
_mirrored = create_keypoint_hflip_indices(_train)
dataloader.train.mapper.update(use_keypoint=True, use_instance_mask=False, keypoint_hflip_indices=_mirrored)
