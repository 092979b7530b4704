"""What every backbone is: an image tensor in, named feature maps out."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from typing import Any

from torch import nn

from detectron2.layers.shape_spec import ShapeSpec
from detectron2.utils.user_errors import UserValueError


def stated(value: int | None, what: str) -> int:
    """Return a number of a `ShapeSpec` that may not be left open here."""
    if value is None:
        raise UserValueError(f"{what} must be known, the ShapeSpec leaves it open")
    return value


class Backbone(nn.Module, metaclass=ABCMeta):
    """Base class of feature extractors.

    A subclass either fills `_out_features`, `_out_feature_channels` and `_out_feature_strides`, or overrides
    `output_shape`.
    """

    _out_features: list[str]
    _out_feature_channels: dict[str, int]
    _out_feature_strides: dict[str, int]

    def __init__(self) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """(N, C, H, W) images -> {feature name: (N, C_f, ceil(H / stride_f), ceil(W / stride_f))}."""

    @property
    def size_divisibility(self) -> int:
        """What height and width of the input must be a multiple of; 0 where anything goes."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Further demands on the padded input, such as `square_size` (0: none)."""
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of every feature map that `forward` gives."""
        return {
            name: ShapeSpec(channels=self._out_feature_channels[name], stride=self._out_feature_strides[name])
            for name in self._out_features
        }
