"""Augmentations: policies that look at an image (and its annotations) and choose a deterministic
`Transform`.

Random numbers come from NumPy's global generator, so seeding it seeds the augmentations.
"""

from __future__ import annotations

import inspect
import pprint
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from fvcore.transforms.transform import Transform, TransformList

from detectron2.utils.user_errors import UserNotImplementedError, UserTypeError

__all__ = [
    "AugInput",
    "Augmentation",
    "AugmentationList",
    "StandardAugInput",
    "TransformGen",
    "apply_augmentations",
    "apply_transform_gens",
]


def _rand_range(low: float = 1.0, high: float | None = None, size: Any = None) -> Any:
    """Uniform in [low, high), or in [0, low) when only one bound is given."""
    if high is None:
        low, high = 0, low
    return np.random.uniform(low, high, [] if size is None else size)


def _check_img_dtype(image: np.ndarray) -> None:
    """Raise for what no transform could take as an image."""
    if not isinstance(image, np.ndarray):
        raise UserTypeError(
            f"An image must be a numpy array, got {type(image).__name__}. Use np.asarray(image)."
        )
    is_integer = np.issubdtype(image.dtype, np.integer)
    if is_integer and image.dtype != np.uint8:
        raise UserTypeError(f"An integer image must be uint8 in [0, 255], got {image.dtype}.")
    if image.ndim not in (2, 3):
        raise UserTypeError(f"An image must be (H, W) or (H, W, C), got shape {image.shape}.")


class Augmentation:
    """Base class: choose a transform from the attributes of an input, then apply it.

    A subclass defines `get_transform`. A single argument gets the image, whatever its name. The names of
    several say which attributes of the input they get, `def get_transform(self, image, boxes)` for example.
    `input_args` overrides these names.
    """

    input_args: tuple[str, ...] | None = None

    if TYPE_CHECKING:  # what `_init` stores

        def __getattr__(self, name: str) -> Any: ...

    def _init(self, params: dict[str, Any] | None = None) -> None:
        """Store constructor arguments (`locals()`) as attributes."""
        for name, value in (params or {}).items():
            if name != "self" and not name.startswith("_"):
                setattr(self, name, value)

    def get_transform(self, *args: Any) -> Transform:
        """Choose the transform from the image, or from the attributes that several arguments name."""
        raise UserNotImplementedError(f"{type(self).__name__} does not define get_transform.")

    def __call__(self, aug_input: Any) -> Transform:
        """Choose a transform and change `aug_input` by it in place.

        Args:
            aug_input: an object with the needed attributes and a method `transform(tfm)`, such as
                `AugInput`.

        Returns:
            The transform, to be applied to whatever is not part of the input.
        """
        transform = self.get_transform(*_get_aug_input_args(self, aug_input))
        if not isinstance(transform, Transform):
            raise UserTypeError(
                f"{type(self).__name__}.get_transform must return a Transform, got "
                f"{type(transform).__name__}. Return NoOpTransform() to leave the input alone."
            )
        aug_input.transform(transform)
        return transform

    _rand_range = staticmethod(_rand_range)

    def __repr__(self) -> str:
        shown = []
        for name, parameter in inspect.signature(type(self).__init__).parameters.items():
            if name == "self" or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if not hasattr(self, name):
                return object.__repr__(self)
            value = getattr(self, name)
            if (
                value is not parameter.default
            ):  # an argument that was given is shown, if it is the default too
                text = pprint.pformat(value)
                shown.append(f"{name}={text if len(text) <= 50 else text[:47] + '...'}")
        return f"{type(self).__name__}({', '.join(shown)})"

    __str__ = __repr__


def _argument_names(aug: Augmentation) -> tuple[str, ...]:
    parameters = inspect.signature(aug.get_transform).parameters
    if len(parameters) == 1:
        return ("image",)
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values()):
        raise UserTypeError(
            f"{type(aug).__name__}.get_transform must name its arguments, got *args or **kwargs. "
            "Name the attributes of the input that it uses, or set input_args."
        )
    return tuple(parameters)


def _get_aug_input_args(aug: Augmentation, aug_input: Any) -> list[Any]:
    """Look the arguments of `aug.get_transform` up in `aug_input`."""
    if aug.input_args is None:
        aug.input_args = _argument_names(aug)
    for name in aug.input_args:
        if not hasattr(aug_input, name):
            raise AttributeError(
                f"{type(aug).__name__} needs {name!r}, which the {type(aug_input).__name__} does not have. "
                "Add it to the input, or take the augmentation out."
            )
    return [getattr(aug_input, name) for name in aug.input_args]


class _TransformToAug(Augmentation):
    """Presents a `Transform` as an `Augmentation`."""

    input_args = ()

    def __init__(self, tfm: Transform) -> None:
        self.tfm = tfm

    def get_transform(self, *args: Any) -> Transform:
        return self.tfm

    def __repr__(self) -> str:
        return repr(self.tfm)


def transform_to_aug(tfm_or_aug: Augmentation | Transform) -> Augmentation:
    if isinstance(tfm_or_aug, Augmentation):
        return tfm_or_aug
    if isinstance(tfm_or_aug, Transform):
        return _TransformToAug(tfm_or_aug)
    raise UserTypeError(f"Expected an Augmentation or a Transform, got {type(tfm_or_aug).__name__}.")


class AugmentationList(Augmentation):
    """Apply several augmentations in order; each sees the result of the one before."""

    def __init__(self, augs: Sequence[Augmentation | Transform]) -> None:
        """
        Args:
            augs: augmentations or transforms.
        """
        super().__init__()
        self.augs = [transform_to_aug(aug) for aug in augs]

    def __call__(self, aug_input: Any) -> TransformList:
        """Apply all to `aug_input` in place and return the transforms that were chosen."""
        return TransformList([aug(aug_input) for aug in self.augs])

    def __repr__(self) -> str:
        return f"AugmentationList[{', '.join(repr(aug) for aug in self.augs)}]"

    __str__ = __repr__


class AugInput:
    """An image and what belongs to it, changed in place by transforms."""

    def __init__(
        self, image: np.ndarray, *, boxes: np.ndarray | None = None, sem_seg: np.ndarray | None = None
    ) -> None:
        """
        Args:
            image: (H, W) or (H, W, C), uint8 in [0, 255] or floating point in [0, 1] or [0, 255].
            boxes: (N, 4) XYXY in pixels.
            sem_seg: (H, W) integer labels.
        """
        _check_img_dtype(image)
        self.image = image
        self.boxes = boxes
        self.sem_seg = sem_seg

    def transform(self, tfm: Transform) -> None:
        """Apply a transform to image, boxes and sem_seg."""
        self.image = tfm.apply_image(self.image)
        self.boxes = None if self.boxes is None else tfm.apply_box(self.boxes)
        self.sem_seg = None if self.sem_seg is None else tfm.apply_segmentation(self.sem_seg)

    def apply_augmentations(self, augmentations: list[Augmentation | Transform]) -> TransformList:
        """Same as `AugmentationList(augmentations)(self)`."""
        return AugmentationList(augmentations)(self)


def apply_augmentations(
    augmentations: Sequence[Transform | Augmentation], inputs: Any
) -> tuple[Any, TransformList]:
    """Apply augmentations to an input.

    Args:
        augmentations: augmentations or transforms, in order.
        inputs: an `AugInput`, changed in place, or an image array.

    Returns:
        The transformed input (an array when an array came in) and the transforms that were chosen.
    """
    is_array = isinstance(inputs, np.ndarray)
    aug_input = AugInput(inputs) if is_array else inputs
    transforms = AugmentationList(augmentations)(aug_input)
    return (aug_input.image if is_array else aug_input), transforms


# Names from before augmentations saw more than the image; user code still imports them.
apply_transform_gens = apply_augmentations
StandardAugInput = AugInput
TransformGen = Augmentation


# The name under which projects import it.
_transform_to_aug = transform_to_aug
