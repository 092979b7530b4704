"""Whether two results of a model, an augmentation or an evaluator are the same, all the way down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detectron2.structures import BitMasks, Boxes, Instances, RotatedBoxes


def assert_same(first: Any, second: Any, where: str = "result", *, tolerance: float = 0.0) -> None:
    """Fail where two nested results differ, and say in which part; NaN equals NaN."""
    assert type(first) is type(second), f"{where}: {type(first).__name__} and {type(second).__name__}"
    parts = _parts(first), _parts(second)
    if parts[0] is not None and parts[1] is not None:
        assert list(parts[0]) == list(parts[1]), where
        for key in parts[0]:
            assert_same(parts[0][key], parts[1][key], f"{where}.{key}", tolerance=tolerance)
    elif isinstance(first, (Tensor, np.ndarray)):
        torch.testing.assert_close(
            _as_tensor(first), _as_tensor(second), rtol=tolerance, atol=tolerance, equal_nan=True,
            msg=lambda text: f"{where}: {text}",
        )  # fmt: skip
    else:
        both_nan = first != first and second != second  # noqa: PLR0124  # also of what is no float
        assert first == second or both_nan, f"{where}: {first} and {second}"


def _as_tensor(value: Tensor | np.ndarray) -> Tensor:
    # Arrays may be views with negative strides, or not writable; tensors can be neither.
    return value if isinstance(value, Tensor) else torch.as_tensor(np.array(value))


def _parts(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    if isinstance(value, Instances):
        return {"image_size": value.image_size, **value.get_fields()}
    if isinstance(value, (Boxes, RotatedBoxes, BitMasks)):
        return {"tensor": value.tensor}
    return None


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors of a nested result."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for part in (_parts(value) or {}).values() for tensor in tensors_in(part)]
