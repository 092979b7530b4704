"""Versions of an image for test-time augmentation, and the way between their frames and that of the results.

Shapes: R boxes; K classes. Boxes are XYXY.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from fvcore.transforms.transform import NoOpTransform, Transform, TransformList
from torch import Tensor

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.data.transforms.augmentation import Augmentation, apply_augmentations
from detectron2.data.transforms.augmentation_impl.moving import RandomFlip
from detectron2.data.transforms.augmentation_impl.resizing import ResizeShortestEdge
from detectron2.data.transforms.transform import ResizeTransform
from detectron2.structures.boxes import Boxes
from detectron2.utils.user_errors import UserValueError

from .postprocessing import sem_seg_postprocess


class DatasetMapperTTA:
    """Make the versions of an image: every size, plain and mirrored."""

    @configurable
    def __init__(self, min_sizes: list[int], max_size: int, flip: bool) -> None:
        """
        Args:
            min_sizes: lengths of the shorter side, one version (or two) each.
            max_size: most that the longer side may have.
            flip: add a mirrored twin of each.
        """
        self.min_sizes = min_sizes
        self.max_size = max_size
        self.flip = flip

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.TEST.AUG
        return {"min_sizes": node.MIN_SIZES, "max_size": node.MAX_SIZE, "flip": node.FLIP}

    def __call__(self, dataset_dict: dict[str, Any]) -> list[dict[str, Any]]:
        """Make the versions.

        Args:
            dataset_dict: with `image` (C, H, W), and `height` and `width` of the results.

        Returns:
            Per version, the same dict with another `image`, and the `transforms` that lead there from the
            frame of the results.
        """
        image = dataset_dict["image"].permute(1, 2, 0).cpu().numpy()  # (H, W, C)
        result_size = (dataset_dict["height"], dataset_dict["width"])
        to_image: Transform = NoOpTransform()
        if image.shape[:2] != result_size:
            to_image = ResizeTransform(*result_size, *image.shape[:2])
        versions = []
        for augmentations in self._augmentations():
            array, transforms = apply_augmentations(augmentations, image.copy())
            versions.append(
                {
                    **dataset_dict,
                    "image": torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1))),
                    "transforms": TransformList([to_image]) + transforms,
                }
            )
        return versions

    def _augmentations(self) -> Iterator[list[Augmentation | Transform]]:
        for min_size in self.min_sizes:
            yield [ResizeShortestEdge(min_size, self.max_size)]
            if self.flip:
                yield [ResizeShortestEdge(min_size, self.max_size), RandomFlip(prob=1.0)]


def move_boxes(transforms: Transform, boxes: Boxes) -> Boxes:
    """Bring boxes from one frame to another.

    Args:
        transforms: lead from the one to the other.
        boxes: R boxes in the one.

    Returns:
        R float32 boxes in the other, on the same device.
    """
    moved = transforms.apply_box(boxes.tensor.double().cpu().numpy())
    return Boxes(torch.as_tensor(moved, dtype=torch.float32).reshape(-1, 4)).to(boxes.device)


def _moved_corners(transforms: Transform, size: tuple[int, int]) -> np.ndarray:
    """(3, 2) where the upper left, upper right and lower left corner of a frame of that size go."""
    height, width = size
    corners: np.ndarray = transforms.apply_coords(
        np.array([[0, 0], [width, 0], [0, height]], dtype=np.float64)
    )
    rightwards, downwards = corners[1] - corners[0], corners[2] - corners[0]
    if abs(rightwards[1]) > 1e-3 * abs(rightwards[0]) or abs(downwards[0]) > 1e-3 * abs(downwards[1]):
        raise UserValueError(
            "Test-time augmentation brings masks back from resized, cropped and mirrored versions of an "
            f"image, not from turned ones; got {transforms}"
        )
    return corners


def mirrored_dims(transforms: Transform) -> list[int]:
    """Tell in which of the last two dimensions a version is mirrored.

    Args:
        transforms: lead from the frame of the results to that of the version.

    Raises:
        ValueError: the version is turned.
    """
    origin, right, below = _moved_corners(transforms, (1, 1))
    return [dim for dim, step in ((-1, right[0] - origin[0]), (-2, below[1] - origin[1])) if step < 0]


def sem_seg_probabilities(
    logits: Tensor, image_size: tuple[int, int], transforms: Transform, size: tuple[int, int]
) -> Tensor:
    """Bring the semantic map of a version back to the frame of the results.

    Args:
        logits: (K, H, W) of the padded version.
        image_size: (height, width) of the version.
        transforms: lead from the frame of the results to that of the version.
        size: (height, width) of the results.

    Returns:
        (K, height, width) probabilities.

    Raises:
        ValueError: the version is turned, or not of the whole image.
    """
    height, width = image_size
    corners = _moved_corners(transforms, size)
    covered = np.ptp(corners, axis=0), corners.min(axis=0)
    if np.abs(covered[0] - [width, height]).max() > 1 or np.abs(covered[1]).max() > 1:
        raise UserValueError(
            "Test-time augmentation averages semantic maps of whole images, resized or mirrored; got "
            f"{transforms}"
        )
    restored = sem_seg_postprocess(logits, (height, width), *size)
    return restored.flip(mirrored_dims(transforms)).float().softmax(dim=0)


class SemanticMean:
    """The mean of the semantic maps of versions, which come in their order."""

    def __init__(self, tfms: Sequence[Any], size: tuple[int, int]) -> None:
        """
        Args:
            tfms: per version, what leads there from the frame of the results.
            size: (height, width) of the results.
        """
        self.tfms, self.size = tfms, size
        self.num_added = 0
        self.total: Any = 0

    def add(self, batch: Sequence[dict[str, Any]], logits: Tensor) -> None:
        """Take in the (K, H, W) logits of the next versions."""
        for version, version_logits in zip(batch, logits):
            image_size, tfm = version["image"].shape[-2:], self.tfms[self.num_added]
            self.total = self.total + sem_seg_probabilities(version_logits, image_size, tfm, self.size)
            self.num_added += 1

    def mean(self) -> Tensor:
        """(K, height, width) probabilities."""
        mean: Tensor = self.total / self.num_added
        return mean
