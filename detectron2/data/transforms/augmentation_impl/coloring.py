"""Augmentations that change colours and leave geometry alone.

Random choices come from NumPy's global generator; the number and order of draws of each class is part of its
contract, since a seed then gives the same training images as it always did. Sizes are (height, width).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from fvcore.transforms.transform import BlendTransform, Transform

from detectron2.utils.user_errors import UserValueError

from ..augmentation import Augmentation


class _RandomIntensity(Augmentation):
    """Blend the image with a reference: weight 1 keeps it, 0 gives the reference, more than 1 moves away from
    it."""

    def __init__(self, intensity_min: float, intensity_max: float) -> None:
        """
        Args:
            intensity_min, intensity_max: range of the weight.
        """
        super().__init__()
        self._init(locals())

    def _reference(self, image: np.ndarray) -> Any:
        raise NotImplementedError

    def get_transform(self, image: np.ndarray) -> Transform:
        weight = np.random.uniform(self.intensity_min, self.intensity_max)
        return BlendTransform(src_image=self._reference(image), src_weight=1 - weight, dst_weight=weight)


class RandomContrast(_RandomIntensity):
    """Change the contrast: below 1 reduces it, above 1 raises it."""

    def _reference(self, image: np.ndarray) -> Any:
        return image.mean()


class RandomBrightness(_RandomIntensity):
    """Change the brightness: below 1 darkens, above 1 brightens."""

    def _reference(self, image: np.ndarray) -> Any:
        return 0


class RandomSaturation(_RandomIntensity):
    """Change the saturation of RGB images: below 1 goes towards grey, above 1 away from it."""

    def _reference(self, image: np.ndarray) -> Any:
        if image.shape[-1] != 3:
            raise UserValueError(f"RandomSaturation works on RGB images, got shape {image.shape}.")
        return image.dot([0.299, 0.587, 0.114])[:, :, None]


class RandomLighting(Augmentation):
    """AlexNet's colour jitter along the principal components of ImageNet's RGB values."""

    eigen_vals = np.array([0.2175, 0.0188, 0.0045])
    eigen_vecs = np.array(  # a row per colour channel, a column per component
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )

    def __init__(self, scale: float) -> None:
        """
        Args:
            scale: standard deviation of the weights of the components.
        """
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        if image.shape[-1] != 3:
            raise UserValueError(f"RandomLighting works on RGB images, got shape {image.shape}.")
        weights = np.random.normal(scale=self.scale, size=3)
        shift = self.eigen_vecs.dot(weights * self.eigen_vals)
        return BlendTransform(src_image=shift, src_weight=1.0, dst_weight=1.0)
