"""Augmentations that mirror, turn or shift the image, and the one that applies another by chance.

Random choices come from NumPy's global generator; the number and order of draws of each class is part of its
contract, since a seed then gives the same training images as it always did. Sizes are (height, width).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from fvcore.transforms.transform import HFlipTransform, NoOpTransform, Transform, VFlipTransform

from detectron2.utils.user_errors import UserValueError

from ..augmentation import Augmentation, transform_to_aug
from ..transform import ExtentTransform, RotationTransform
from .resizing import check_sample_style


class RandomApply(Augmentation):
    """Apply another augmentation with some probability."""

    def __init__(self, tfm_or_aug: Augmentation | Transform, prob: float = 0.5) -> None:
        """
        Args:
            tfm_or_aug: what to apply.
            prob: probability in [0, 1].
        """
        super().__init__()
        if not 0 <= prob <= 1:
            raise UserValueError(f"prob must lie in [0, 1], got {prob}.")
        self.aug = transform_to_aug(tfm_or_aug)
        self.prob = prob

    def _is_chosen(self) -> bool:
        return bool(self._rand_range() < self.prob)

    def get_transform(self, *args: Any) -> Transform:
        return self.aug.get_transform(*args) if self._is_chosen() else NoOpTransform()

    def __call__(self, aug_input: Any) -> Transform:
        return self.aug(aug_input) if self._is_chosen() else NoOpTransform()


class RandomFlip(Augmentation):
    """Mirror the image left to right, or upside down, with some probability."""

    def __init__(self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False) -> None:
        """
        Args:
            prob: probability of the flip.
            horizontal, vertical: which flip it is; exactly one. For both, use two augmentations.
        """
        super().__init__()
        if horizontal == vertical:
            raise UserValueError(
                "RandomFlip does one flip: set either horizontal or vertical. Use two RandomFlip for both."
            )
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        if self._rand_range() >= self.prob:
            return NoOpTransform()
        return HFlipTransform(width) if self.horizontal else VFlipTransform(height)


class RandomRotation(Augmentation):
    """Rotate counter-clockwise by a random angle, about a random point."""

    def __init__(
        self,
        angle: float | Sequence[float],
        expand: bool = True,
        center: Sequence[Sequence[float]] | None = None,
        sample_style: str = "range",
        interp: int | None = None,
    ) -> None:
        """
        Args:
            angle: [min, max] in degrees with `sample_style="range"`, the angles to choose from with
                "choice", or one angle.
            expand: let the canvas grow to hold the rotated image.
            center: [[minx, miny], [maxx, maxy]] as fractions of the image with "range", points to choose from
                with "choice"; the middle by default. It has no effect when `expand` is set.
            sample_style: "range" or "choice".
            interp: one of OpenCV's interpolation modes.
        """
        super().__init__()
        check_sample_style(sample_style)
        self.is_range = sample_style == "range"
        self._init(locals())
        # One angle, or one centre, is a range without width.
        if np.ndim(angle) == 0:
            self.angle = (angle, angle)
        if center is not None and np.ndim(center) == 1:
            self.center = (center, center)

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        center: Any = None
        if self.is_range:
            angle = float(np.random.uniform(*self.angle))
            if self.center is not None:
                (min_x, min_y), (max_x, max_y) = self.center
                center = (np.random.uniform(min_x, max_x), np.random.uniform(min_y, max_y))
        else:
            angle = float(np.random.choice(self.angle))
            if self.center is not None:
                center = self.center[np.random.randint(len(self.center))]
        if angle % 360 == 0:
            return NoOpTransform()
        pixel = None if center is None else (width * center[0], height * center[1])
        return RotationTransform(height, width, angle, expand=self.expand, center=pixel, interp=self.interp)


class RandomExtent(Augmentation):
    """Cut out a randomly scaled and shifted rectangle; what lies outside the image is filled with zeros."""

    def __init__(self, scale_range: tuple[float, float], shift_range: tuple[float, float]) -> None:
        """
        Args:
            scale_range: (low, high) of the size of the rectangle relative to the image.
            shift_range: (x, y); the middle moves by up to half of this share of the width and the height.
        """
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        size = np.array([width, height, width, height])
        scale = np.random.uniform(*self.scale_range)
        shift = np.array(
            [amount * side * (np.random.rand() - 0.5) for amount, side in zip(self.shift_range, size)]
        )
        rect = 0.5 * size * [-1, -1, 1, 1] * scale + np.tile(shift, 2) + 0.5 * size
        return ExtentTransform(rect, output_size=(int(rect[3] - rect[1]), int(rect[2] - rect[0])))
