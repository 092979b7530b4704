"""What feature pyramids have in common: the numbers of their levels, and how coarser levels are put on top.

Shapes: N images of H x W; level `p<l>` is (N, C, ceil(H / 2^l), ceil(W / 2^l)), its stride is 2^l.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Protocol

from torch import Tensor

from detectron2.layers.batch_norm import Norm, get_norm
from detectron2.layers.wrappers import Conv2d
from detectron2.utils.user_errors import UserValueError

from .backbone import Backbone


class TopBlock(Protocol):
    """What makes levels coarser than those of the backbone."""

    num_levels: int
    in_feature: str

    def __call__(self, x: Tensor) -> list[Tensor]: ...


class Pyramid(Backbone):
    """Base class of backbones that give levels `p<l>` of one width, the coarsest ones made by a top block.

    A subclass makes its levels, tells `_declare_levels` about them, and ends its `forward` with
    `_add_top_levels`.
    """

    top_block: TopBlock | None
    _levels: tuple[int, ...]  # without those of the top block
    _size_divisibility: int
    _square_pad: int

    def _declare_levels(
        self, levels: Sequence[int], out_channels: int, square_pad: int, below: Collection[str]
    ) -> None:
        """Set what `output_shape` and the demands on the input say; `top_block` must be there.

        Args:
            levels: l of each level that the subclass makes, from fine to coarse.
            out_channels: of every level.
            square_pad: side of the square that images are padded to; 0 means no square.
            below: names of the maps of the backbone below.
        """
        own = [f"p{level}" for level in levels]
        if self.top_block is not None and self.top_block.in_feature not in (*below, *own):
            raise UserValueError(
                f"{type(self.top_block).__name__} makes its levels from {self.top_block.in_feature!r}, which "
                f"is neither among the levels of the pyramid, {own}, nor among the maps below it, "
                f"{list(below)}: add the map that it needs, or choose another top_block"
            )
        self._levels = tuple(levels)
        num_top_levels = 0 if self.top_block is None else self.top_block.num_levels
        every = [*levels, *(levels[-1] + 1 + i for i in range(num_top_levels))]
        self._out_features = [f"p{level}" for level in every]
        self._out_feature_strides = {f"p{level}": 2**level for level in every}
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)
        self._size_divisibility = 2 ** levels[-1]
        self._square_pad = square_pad

    @property
    def size_divisibility(self) -> int:
        return self._size_divisibility

    def _add_top_levels(self, bottom_up: Mapping[str, Tensor], levels: Sequence[Tensor]) -> dict[str, Tensor]:
        """Name the levels, and add those of the top block.

        Args:
            bottom_up: maps of the backbone below, among which the top block looks for its source first.
            levels: the subclass's own, from fine to coarse.
        """
        outputs = dict(zip(self._out_features, levels))
        if self.top_block is not None:
            source = self.top_block.in_feature
            top = self.top_block(bottom_up[source] if source in bottom_up else outputs[source])
            outputs.update(zip(self._out_features[len(levels) :], top))
        return outputs


def levels_of_strides(strides: Sequence[float]) -> list[int]:
    """Return the l of each stride 2^l, from fine to coarse.

    Raises:
        ValueError: if there is none, one is no power of two, or one is not larger than the one before.
    """
    if not strides:
        raise UserValueError("a feature pyramid needs at least one level, got none")
    levels = [int(stride).bit_length() - 1 for stride in strides]
    are_powers = all(stride >= 1 and 2**level == stride for level, stride in zip(levels, strides))
    if not are_powers or any(a >= b for a, b in pairwise(levels)):
        raise UserValueError(f"levels need growing strides that are powers of two, got {list(strides)}")
    return levels


def check_strides_double(strides: Sequence[int]) -> None:
    """Raise ValueError unless each stride is twice the one before."""
    for finer, coarser in pairwise(strides):
        if coarser != 2 * finer:
            raise UserValueError(
                f"each FPN level must have half the resolution of the one before, got strides {strides}"
            )


def make_conv(in_channels: int, out_channels: int, kernel_size: int, norm: Norm) -> Conv2d:
    """Make a convolution that keeps the size, followed by the norm, or with a bias where there is none."""
    return Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        padding=kernel_size // 2,
        bias=not norm,
        norm=get_norm(norm, out_channels),
    )
