"""Augmentations that cut out a window.

Random choices come from NumPy's global generator; the number and order of draws of each class is part of its
contract, since a seed then gives the same training images as it always did. Sizes are (height, width).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from fvcore.transforms.transform import NoOpTransform, PadTransform, Transform, TransformList

from detectron2.utils.user_errors import UserValueError

from ..augmentation import Augmentation
from ..transform import CropTransform


class FixedSizeCrop(Augmentation):
    """Crop at a random place to at most a fixed size, and pad right and bottom where the image is smaller."""

    def __init__(
        self,
        crop_size: tuple[int, int],
        pad: bool = True,
        pad_value: float = 128.0,
        seg_pad_value: int = 255,
    ) -> None:
        """
        Args:
            crop_size: (height, width).
            pad: whether smaller images are padded.
            pad_value: value of padded pixels.
            seg_pad_value: value of padded pixels in segmentation maps.
        """
        super().__init__()
        self._init(locals())

    def _get_crop(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        crop_h, crop_w = self.crop_size
        # One draw for both axes: the window moves along the diagonal of the free space.
        position = np.random.uniform(0.0, 1.0)
        y0, x0 = (
            int(np.round(max(full - crop, 0) * position))
            for full, crop in ((height, crop_h), (width, crop_w))
        )
        return CropTransform(x0, y0, crop_w, crop_h, width, height)

    def _get_pad(self, image: np.ndarray) -> Transform:
        (height, width), (crop_h, crop_w) = image.shape[:2], self.crop_size
        missing_h, missing_w = max(crop_h - height, 0), max(crop_w - width, 0)
        return PadTransform(
            0,
            0,
            missing_w,
            missing_h,
            min(width, crop_w),
            min(height, crop_h),
            self.pad_value,
            self.seg_pad_value,
        )

    def get_transform(self, image: np.ndarray) -> TransformList:
        steps = [self._get_crop(image)]
        if self.pad:
            steps.append(self._get_pad(image))
        return TransformList(steps)


class RandomCrop(Augmentation):
    """Crop a window of random size and place."""

    def __init__(self, crop_type: str, crop_size: Sequence[float]) -> None:
        """
        Args:
            crop_type: what `crop_size` means.
                "relative": (h, w) as fractions of the image.
                "relative_range": smallest fractions; each is drawn between that and 1.
                "absolute": (h, w) in pixels, at most the image.
                "absolute_range": (min, max) in pixels; each side is drawn between them, at most the image.
            crop_size: two numbers.
        """
        super().__init__()
        known = ("relative_range", "relative", "absolute", "absolute_range")
        if crop_type not in known:
            raise UserValueError(f"crop_type must be one of {', '.join(known)}, got {crop_type!r}.")
        if crop_type == "absolute_range" and crop_size[0] > crop_size[1]:
            raise UserValueError(
                f"crop_size must be (min, max) for 'absolute_range', got {tuple(crop_size)}."
            )
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        crop_h, crop_w = self.get_crop_size((height, width))
        y0, x0 = np.random.randint(height - crop_h + 1), np.random.randint(width - crop_w + 1)
        return CropTransform(x0, y0, crop_w, crop_h)

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Draw the (height, width) of the window for an image of size (height, width)."""
        height, width = image_size
        if self.crop_type.startswith("relative"):
            fractions = np.asarray(self.crop_size, dtype=np.float64)
            if self.crop_type == "relative_range":
                # float32 as in the published recipe: the bound decides the rounding of some crops.
                low = fractions.astype(np.float32)
                fractions = low + np.random.rand(2) * (1 - low)
            return int(height * fractions[0] + 0.5), int(width * fractions[1] + 0.5)
        low, high = self.crop_size
        if self.crop_type == "absolute":
            return min(int(low), height), min(int(high), width)
        crop_h = np.random.randint(min(height, low), min(height, high) + 1)
        crop_w = np.random.randint(min(width, low), min(width, high) + 1)
        return crop_h, crop_w


class RandomCrop_CategoryAreaConstraint(Augmentation):
    """Like `RandomCrop`, tried up to ten times until no class of the semantic map fills too much of the
    window."""

    def __init__(
        self,
        crop_type: str,
        crop_size: Sequence[float],
        single_category_max_area: float = 1.0,
        ignored_category: int | None = None,
    ) -> None:
        """
        Args:
            crop_type, crop_size: as for `RandomCrop`.
            single_category_max_area: largest share of the window that one class may have; 1 turns the search
                off.
            ignored_category: label that does not count.
        """
        self.crop_aug = RandomCrop(crop_type, crop_size)
        self._init(locals())

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray | None) -> Transform:
        if self.single_category_max_area >= 1.0:
            return self.crop_aug.get_transform(image)
        if sem_seg is None:
            raise UserValueError(
                "RandomCrop_CategoryAreaConstraint looks at sem_seg, which this input does not have. Load it,"
                " or set single_category_max_area (INPUT.CROP) to 1."
            )
        height, width = sem_seg.shape
        for _ in range(10):
            crop_h, crop_w = self.crop_aug.get_crop_size((height, width))
            y0, x0 = np.random.randint(height - crop_h + 1), np.random.randint(width - crop_w + 1)
            if self._is_varied(sem_seg[y0 : y0 + crop_h, x0 : x0 + crop_w]):
                break
        return CropTransform(x0, y0, crop_w, crop_h)

    def _is_varied(self, window: np.ndarray) -> bool:
        labels, counts = np.unique(window, return_counts=True)
        if self.ignored_category is not None:
            counts = counts[labels != self.ignored_category]
        return len(counts) > 1 and bool(counts.max() < counts.sum() * self.single_category_max_area)


class MinIoURandomCrop(Augmentation):
    """SSD's crop: a random window that overlaps every box by at least a randomly chosen IoU."""

    def __init__(
        self,
        min_ious: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
        min_crop_size: float = 0.3,
        mode_trials: int = 1000,
        crop_trials: int = 50,
    ) -> None:
        """
        Args:
            min_ious: thresholds to choose from, beside "keep the image" and "any window".
            min_crop_size: smallest side of the window relative to the image.
            mode_trials: how many thresholds are tried.
            crop_trials: how many windows are tried for each.
        """
        super().__init__()
        self._init(locals())
        self.sample_mode = (1, *min_ious, 0)

    def get_transform(self, image: np.ndarray, boxes: np.ndarray | None) -> Transform:
        if boxes is None:
            return NoOpTransform()
        size = image.shape[:2]
        for _ in range(self.mode_trials):
            min_iou = np.random.choice(self.sample_mode)
            if min_iou == 1:
                return NoOpTransform()
            for _ in range(self.crop_trials):
                window = self._draw_window(*size)
                if window is not None and self._suits(window, boxes.reshape(-1, 4), min_iou):
                    return self._crop_to(window)
        return NoOpTransform()

    def _draw_window(self, height: int, width: int) -> np.ndarray | None:
        """Draw (left, top, width, height), or None when it is too long or too thin."""
        new_w = np.random.uniform(self.min_crop_size * width, width)
        new_h = np.random.uniform(self.min_crop_size * height, height)
        if not 0.5 <= new_h / new_w <= 2:
            return None
        # The bounds stand in this order, with 1 for 0, in the published recipe; swapping them changes its
        # draws.
        left, top = np.random.uniform(width - new_w, 1.0), np.random.uniform(height - new_h, 1.0)
        window = np.array([left, top, new_w, new_h])
        is_empty = (window[:2].astype(int) == (window[:2] + window[2:]).astype(int)).any()
        return None if is_empty else window

    @staticmethod
    def _crop_to(window: np.ndarray) -> CropTransform:
        left, top, width, height = (int(v) for v in window)
        return CropTransform(left, top, width, height)

    @staticmethod
    def _suits(window: np.ndarray, boxes: np.ndarray, min_iou: float) -> bool:
        """Whether every box overlaps the window enough and the centre of at least one lies inside."""
        if len(boxes) == 0:
            return True
        low, high = window[:2].astype(int), (window[:2] + window[2:]).astype(int)
        overlap = (np.minimum(boxes[:, 2:], high) - np.maximum(boxes[:, :2], low)).clip(min=0).prod(axis=1)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        ious = overlap / (areas + (high - low).prod() - overlap)
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        has_center_inside = ((centers > low) & (centers < high)).all(axis=1).any()
        return bool(ious.min() >= min_iou and has_center_inside)
