import copy

import torch

from detectron2.config import configurable
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T


class BrightnessMapper:
    @configurable
    def __init__(self, is_train, *, augmentations, image_format):
        self.is_train = is_train
        self.augmentations = augmentations
        self.image_format = image_format

    @classmethod
    def from_config(cls, cfg, is_train=True):
        augmentations = utils.build_augmentation(cfg, is_train)
        if is_train:
            augmentations.append(T.RandomBrightness(0.5, cfg.INPUT.MAX_BRIGHTNESS))
        return {"is_train": is_train, "augmentations": augmentations, "image_format": cfg.INPUT.FORMAT}

    def __call__(self, dataset_dict):
        sample = copy.deepcopy(dataset_dict)
        annotations = sample.pop("annotations", [])
        picture = utils.read_image(sample["file_name"], format=self.image_format)
        utils.check_image_size(sample, picture)
        picture, transforms = T.apply_transform_gens(self.augmentations, picture)
        sample["image"] = torch.from_numpy(picture.transpose(2, 0, 1).copy())
        if self.is_train:
            size = picture.shape[:2]
            moved = [utils.transform_instance_annotations(a, transforms, size) for a in annotations]
            sample["instances"] = utils.filter_empty_instances(utils.annotations_to_instances(moved, size))
        return sample
