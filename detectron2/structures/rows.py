"""What the collections of this package share: construction, indexing and concatenation of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detectron2.utils.user_errors import UserTypeError, UserValueError


def as_box_tensor(values: Any, width: int) -> Tensor:
    """Check and complete what a constructor of boxes was given; a tensor keeps its device."""
    if isinstance(values, Tensor):
        tensor = values.float()
    else:
        tensor = torch.as_tensor(values, dtype=torch.float32, device="cpu")
    if (tensor.ndim != 2 or tensor.shape[-1] != width) and tensor.numel() == 0:
        return tensor.reshape(-1, width)
    if tensor.ndim != 2 or tensor.shape[-1] != width:
        raise UserValueError(f"expected boxes of shape (N, {width}), got {tuple(tensor.shape)}")
    return tensor


def pick_rows(tensor: Tensor, item: Any, owner: str) -> Tensor:
    """Index the first dimension; an integer keeps it, so that one element stays a collection."""
    if isinstance(item, int):
        return tensor[item].unsqueeze(0)
    picked = tensor[item]
    if picked.ndim != tensor.ndim:
        raise UserValueError(
            f"{owner} are indexed by one dimension; {item!r} gave shape {tuple(picked.shape)}"
        )
    return picked


def cat_tensors(collections: Sequence[Any], kind: type, *, width: int) -> Tensor:
    if not isinstance(collections, (list, tuple)):
        raise UserTypeError(f"expected a list or tuple of {kind.__name__}, got {type(collections).__name__}")
    for member in collections:
        if not isinstance(member, kind):
            raise UserTypeError(f"expected only {kind.__name__} to concatenate, got {type(member).__name__}")
    # A copy even of a single member: the result is nobody else's tensor.
    return torch.cat([member.tensor for member in collections]) if collections else torch.empty(0, width)
