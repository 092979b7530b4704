"""Images of different sizes in one tensor.

Shapes: N images, C channels; image i is (C, Hi, Wi), and the batch (N, C, H, W) with H >= Hi and W >= Wi.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from detectron2.layers.tracing import is_tracing
from detectron2.layers.wrappers import shapes_to_tensor
from detectron2.utils.user_errors import UserTypeError, UserValueError


class ImageList:
    """A batch that was padded at the bottom and at the right, and the sizes before that.

    Attributes:
        tensor: (N, H, W) or (N, C, H, W).
        image_sizes: (height, width) of each image without its padding.
    """

    def __init__(self, tensor: Tensor, image_sizes: list[tuple[int, int]]) -> None:
        """
        Args:
            tensor: (N, H, W) or (N, C, H, W).
            image_sizes: (height, width) per image.
        """
        self.tensor = tensor
        self.image_sizes = image_sizes

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, idx: int | slice) -> Tensor:
        """Return an image without its padding; a view of the batch."""
        image_size = self.image_sizes[idx]
        height, width = image_size[0], image_size[1]
        return self.tensor[idx, ..., :height, :width]

    def to(self, *args: Any, **kwargs: Any) -> ImageList:
        """Return the batch moved by torch's `to`."""
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    @property
    def device(self) -> torch.device:
        """Device of the tensor."""
        return self.tensor.device

    @staticmethod
    def from_tensors(
        tensors: Sequence[Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: Mapping[str, int] | None = None,
    ) -> ImageList:
        """Pad images to a common size, at the bottom and at the right.

        While torch.jit.trace records, each of `image_sizes` is a tensor (2,), so that the program adapts to
        images of any size; their number is fixed.

        Args:
            tensors: images (Hi, Wi) or (C, Hi, Wi) of the same dtype, channels and device; at least one.
            size_divisibility: height and width become multiples of it, if it is greater than 1.
            pad_value: value of the padding.
            padding_constraints: "size_divisibility" to be used if the argument is 0, and "square_size": if
                greater than 0, every image is padded to this height and width.

        Raises:
            TypeError: if `tensors` is no list or tuple of tensors.
            ValueError: if there is no image, channels differ, or an image exceeds "square_size".
        """
        _check_images(tensors)
        constraints = padding_constraints or {}
        divisor = size_divisibility or constraints.get("size_divisibility", 0)
        square_size = constraints.get("square_size", 0)
        if is_tracing():
            return _trace_from_tensors(tensors, divisor, square_size, pad_value)
        image_sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in tensors]
        height = max(size[0] for size in image_sizes)
        width = max(size[1] for size in image_sizes)
        if square_size > 0:
            if max(height, width) > square_size:
                raise UserValueError(
                    f"an image of {height} x {width} does not fit into the square of {square_size} that the "
                    "model needs; resize images further down (INPUT.MAX_SIZE_TRAIN, INPUT.MAX_SIZE_TEST)"
                )
            height = width = square_size
        if divisor > 1:
            height, width = (-(-size // divisor) * divisor for size in (height, width))
        return ImageList(_stack_padded(tensors, height, width, pad_value).contiguous(), image_sizes)


def _trace_from_tensors(
    tensors: Sequence[Tensor], divisor: int, square_size: int, pad_value: float
) -> ImageList:
    """Do what `ImageList.from_tensors` does with sizes that are tensors; a larger image is not noticed."""
    image_sizes: list[Any] = [shapes_to_tensor(image.shape[-2:]) for image in tensors]
    size = torch.stack(image_sizes).amax(dim=0)
    if square_size > 0:
        size = torch.full_like(size, square_size)
    if divisor > 1:
        size = (size + (divisor - 1)).div(divisor, rounding_mode="floor") * divisor
    padded = []
    for image, image_size in zip(tensors, image_sizes):
        bottom, right = size[0] - image_size[0], size[1] - image_size[1]
        padded.append(F.pad(image, [0, right, 0, bottom], value=pad_value))
    return ImageList(torch.stack(padded), image_sizes)


def _check_images(tensors: Sequence[Tensor]) -> None:
    if not isinstance(tensors, (list, tuple)):
        raise UserTypeError(f"expected a list or tuple of images, got {type(tensors).__name__}")
    if not tensors:
        raise UserValueError("there are no images to batch")
    for image in tensors:
        if not isinstance(image, Tensor):
            raise UserTypeError(f"expected images as tensors, got {type(image).__name__}")
        if not is_tracing() and image.shape[:-2] != tensors[0].shape[:-2]:
            raise UserValueError(
                f"images may differ in height and width only, got {tuple(tensors[0].shape)} and "
                f"{tuple(image.shape)}"
            )


def _stack_padded(tensors: Sequence[Tensor], height: int, width: int, pad_value: float) -> Tensor:
    if len(tensors) == 1 or torch.compiler.is_compiling():
        padded = [
            F.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]), value=pad_value)
            for image in tensors
        ]
        return padded[0].unsqueeze(0) if len(padded) == 1 else torch.stack(padded)
    # Without a padded copy of each image, which would double the memory.
    first = tensors[0]
    batch = first.new_full((len(tensors), *first.shape[:-2], height, width), pad_value)
    for image, place in zip(tensors, batch):
        place[..., : image.shape[-2], : image.shape[-1]].copy_(image)
    return batch
