"""Choose augmentations from a config, and crops from an instance."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectron2.structures.boxes import BoxMode
from detectron2.utils.user_errors import UserValueError

from .augmentation import Augmentation
from .augmentation_impl.moving import RandomFlip
from .augmentation_impl.resizing import ResizeShortestEdge
from .transform import CropTransform


def build_augmentation(cfg: Any, is_train: bool) -> list[Augmentation]:
    """The default augmentations: resize by the shorter side, and in training flip.

    Args:
        cfg: a config; `INPUT.MIN_SIZE_*`, `INPUT.MAX_SIZE_*` and `INPUT.RANDOM_FLIP` are read.
        is_train: for training or for testing.
    """
    options = cfg.INPUT
    if not is_train:
        return [ResizeShortestEdge(options.MIN_SIZE_TEST, options.MAX_SIZE_TEST, "choice")]
    flips: dict[str, list[Augmentation]] = {
        "none": [],
        "horizontal": [RandomFlip(horizontal=True, vertical=False)],
        "vertical": [RandomFlip(horizontal=False, vertical=True)],
    }
    if options.RANDOM_FLIP not in flips:
        raise UserValueError(
            f"INPUT.RANDOM_FLIP must be one of {', '.join(flips)}, got {options.RANDOM_FLIP!r}."
        )
    resize = ResizeShortestEdge(
        options.MIN_SIZE_TRAIN, options.MAX_SIZE_TRAIN, options.MIN_SIZE_TRAIN_SAMPLING
    )
    return [resize, *flips[options.RANDOM_FLIP]]


def gen_crop_transform_with_instance(
    crop_size: tuple[int, int], image_size: tuple[int, int], instance: dict[str, Any]
) -> CropTransform:
    """Draw a crop window that contains the centre of an instance's box.

    Args:
        crop_size: (height, width) of the window.
        image_size: (height, width) of the image.
        instance: an annotation with `bbox` and `bbox_mode`.
    """
    crop = np.asarray(crop_size, dtype=np.int32)
    size = np.asarray(image_size, dtype=np.int32)
    x0, y0, x1, y1 = BoxMode.convert(instance["bbox"], instance["bbox_mode"], BoxMode.XYXY_ABS)
    center = np.array([(y0 + y1) * 0.5, (x0 + x1) * 0.5])  # (y, x)
    if (center < 0).any() or (center > size).any():
        raise UserValueError(
            f"The centre of the box {instance['bbox']} lies outside the image of {tuple(image_size)} "
            "(height, width)."
        )
    lowest = np.maximum(np.floor(center).astype(np.int32) - crop, 0)
    highest = np.minimum(np.ceil(center).astype(np.int32), np.maximum(size - crop, 0))
    top = np.random.randint(lowest[0], highest[0] + 1)
    left = np.random.randint(lowest[1], highest[1] + 1)
    return CropTransform(left, top, int(crop[1]), int(crop[0]))
