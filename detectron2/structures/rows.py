"""What boxes, masks and keypoints share: a tensor with one row per object of an image.

Shapes: N objects, (N, ...) the tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from detectron2.utils.user_errors import UserTypeError, UserValueError

Rows = TypeVar("Rows", bound="TensorRows")


class TensorRows:
    """A tensor whose first dimension counts objects.

    Parts of it are built by calling the class with a tensor.

    Attributes:
        tensor: (N, ...).
    """

    tensor: Tensor

    def __init__(self, tensor: Tensor) -> None:
        """
        Args:
            tensor: (N, ...).
        """
        self.tensor = tensor

    @property
    def device(self) -> torch.device:
        """Device of the tensor."""
        return self.tensor.device

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __getitem__(self: Rows, item: int | slice | Tensor | Any) -> Rows:
        """Pick objects by an index, a slice, or a tensor of indices or bool; an index gives one of them.

        Raises:
            ValueError: `item` indexes more than the objects.
        """
        picked = self.tensor[item]
        if isinstance(item, int):
            picked = picked.unsqueeze(0)  # one object stays a collection
        if picked.ndim != self.tensor.ndim:
            raise UserValueError(
                f"{type(self).__name__} are indexed by one dimension; {item!r} gave shape "
                f"{tuple(picked.shape)}"
            )
        return type(self)(picked)


def cat_tensors(collections: Sequence[TensorRows], kind: type[TensorRows], empty: Tensor) -> Tensor:
    """Concatenate the tensors of collections.

    Args:
        collections: a list or tuple.
        kind: what every one of them must be.
        empty: (0, ...), the result where there are none.

    Returns:
        A tensor of its own, even where there is a single collection.

    Raises:
        TypeError: it is no list or tuple, or holds something else.
    """
    if not isinstance(collections, (list, tuple)):
        raise UserTypeError(f"expected a list or tuple of {kind.__name__}, got {type(collections).__name__}")
    for member in collections:
        if not isinstance(member, kind):
            raise UserTypeError(f"expected only {kind.__name__} to concatenate, got {type(member).__name__}")
    return torch.cat([member.tensor for member in collections]) if collections else empty
