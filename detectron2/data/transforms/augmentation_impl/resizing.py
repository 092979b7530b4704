"""Augmentations that scale the whole image.

Random choices come from NumPy's global generator; the number and order of draws of each class is part of its
contract, since a seed then gives the same training images as it always did. Sizes are (height, width).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from fvcore.transforms.transform import NoOpTransform, Transform
from PIL import Image

from detectron2.utils.user_errors import UserValueError

from ..augmentation import Augmentation
from ..transform import ResizeTransform


def check_sample_style(style: str) -> None:
    """Raise for what is neither "range" nor "choice"."""
    if style not in ("range", "choice"):
        raise UserValueError(f"sample_style must be 'range' or 'choice', got {style!r}.")


def _resize(image: np.ndarray, size: tuple[int, int], interp: int) -> ResizeTransform:
    """Transform of images as large as `image` to `size`."""
    return ResizeTransform(image.shape[0], image.shape[1], size[0], size[1], interp)


class Resize(Augmentation):
    """Resize to a fixed size."""

    def __init__(self, shape: int | tuple[int, int], interp: int = Image.Resampling.BILINEAR) -> None:
        """
        Args:
            shape: (height, width), or one number for both.
            interp: one of PIL's interpolation modes.
        """
        super().__init__()
        self.shape = (shape, shape) if isinstance(shape, int) else (shape[0], shape[1])
        self.interp = interp

    def get_transform(self, image: np.ndarray) -> Transform:
        return _resize(image, self.shape, self.interp)


class ResizeShortestEdge(Augmentation):
    """Scale so that the shorter side gets a chosen length, unless the longer side would exceed a limit."""

    def __init__(
        self,
        short_edge_length: int | Sequence[int],
        max_size: int = sys.maxsize,
        sample_style: str = "range",
        interp: int = Image.Resampling.BILINEAR,
    ) -> None:
        """
        Args:
            short_edge_length: [min, max] with `sample_style="range"`, the lengths to choose from with
                "choice", or one length. Length 0 leaves the image as it is.
            max_size: limit of the longer side.
            sample_style: "range" or "choice".
            interp: one of PIL's interpolation modes.
        """
        super().__init__()
        check_sample_style(sample_style)
        self.is_range = sample_style == "range"
        if isinstance(short_edge_length, int):
            short_edge_length = (short_edge_length, short_edge_length)
        if self.is_range and len(short_edge_length) != 2:
            raise UserValueError(
                f"short_edge_length must be (min, max) with sample_style='range', got {short_edge_length}. "
                "Use sample_style='choice' for a list of lengths."
            )
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        if self.is_range:
            low, high = self.short_edge_length
            length = np.random.randint(low, high + 1)
        else:
            length = np.random.choice(self.short_edge_length)
        if length == 0:
            return NoOpTransform()
        size = self.get_output_shape(height, width, length, self.max_size)
        return _resize(image, size, self.interp)

    @staticmethod
    def get_output_shape(oldh: int, oldw: int, short_edge_length: int, max_size: int) -> tuple[int, int]:
        """(height, width) that an image of `oldh` x `oldw` gets; halves round up, no side vanishes."""
        scale = float(short_edge_length) / min(oldh, oldw)
        # The shorter side is set rather than multiplied, so that it comes out exact.
        sides = [
            short_edge_length * 1.0 if side == min(oldh, oldw) else scale * side for side in (oldh, oldw)
        ]
        if max(sides) > max_size:
            shrink = max_size * 1.0 / max(sides)
            sides = [side * shrink for side in sides]
        height, width = (max(int(side + 0.5), 1) for side in sides)
        return height, width


class ResizeScale(Augmentation):
    """Scale to fit into a target size times a random factor ("large scale jitter"); the aspect ratio
    stays."""

    def __init__(
        self,
        min_scale: float,
        max_scale: float,
        target_height: int,
        target_width: int,
        interp: int = Image.Resampling.BILINEAR,
    ) -> None:
        """
        Args:
            min_scale, max_scale: range of the factor.
            target_height, target_width: size that factor 1 stands for.
            interp: one of PIL's interpolation modes.
        """
        super().__init__()
        self._init(locals())

    def _get_resize(self, image: np.ndarray, scale: float) -> Transform:
        size = np.array(image.shape[:2])
        box = np.array([self.target_height, self.target_width]) * scale
        new_h, new_w = np.round(size * (box / size).min()).astype(int)
        return _resize(image, (int(new_h), int(new_w)), self.interp)

    def get_transform(self, image: np.ndarray) -> Transform:
        return self._get_resize(image, np.random.uniform(self.min_scale, self.max_scale))


class RandomResize(Augmentation):
    """Resize to one of several fixed sizes."""

    def __init__(
        self, shape_list: Sequence[tuple[int, int]], interp: int = Image.Resampling.BILINEAR
    ) -> None:
        """
        Args:
            shape_list: (height, width) of each.
            interp: one of PIL's interpolation modes.
        """
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        new_h, new_w = self.shape_list[np.random.randint(low=0, high=len(self.shape_list))]
        return _resize(image, (new_h, new_w), self.interp)
