"""RegNet: networks whose stage widths and depths follow from a few numbers, and the AnyNet beneath them.

Shapes: N images, H x W their size; stage `s<i>` gives (N, C_i, ceil(H / stride_i), ceil(W / stride_i)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor, nn

from detectron2.layers.batch_norm import Norm
from detectron2.layers.blocks import CNNBlockBase
from detectron2.utils.user_errors import UserTypeError, UserValueError

from .backbone import Backbone
from .regnet_blocks import (
    SE,
    AnyStage,
    BasicTransform,
    BottleneckTransform,
    MakeActivation,
    ResBasicBlock,
    ResBottleneckBlock,
    ResStem,
    SimpleStem,
    VanillaBlock,
    conv2d,
    gap2d,
    init_weights,
    pool2d,
)

__all__ = [
    "SE",
    "AnyNet",
    "AnyStage",
    "BasicTransform",
    "BottleneckTransform",
    "RegNet",
    "ResBasicBlock",
    "ResBottleneckBlock",
    "ResStem",
    "SimpleStem",
    "VanillaBlock",
    "adjust_block_compatibility",
    "conv2d",
    "gap2d",
    "generate_regnet_parameters",
    "init_weights",
    "pool2d",
]


class AnyNet(Backbone):
    """A stem, and stages of which everything is told."""

    def __init__(
        self,
        *,
        stem_class: Callable[..., CNNBlockBase],
        stem_width: int,
        block_class: Callable[..., nn.Module],
        depths: Sequence[int],
        widths: Sequence[int],
        group_widths: Sequence[int],
        strides: Sequence[int],
        bottleneck_ratios: Sequence[float],
        se_ratio: float,
        activation_class: MakeActivation,
        freeze_at: int = 0,
        norm: Norm = "BN",
        out_features: Sequence[str] | None = None,
    ) -> None:
        """
        Args:
            stem_class: makes the stem from (channels, width, norm, activation_class).
            stem_width: channels of the stem.
            block_class: `VanillaBlock`, `ResBasicBlock`, `ResBottleneckBlock` or one like them.
            depths: blocks of each stage.
            widths: channels of each stage.
            group_widths: channels per group of the 3x3 convolutions of each stage.
            strides: of each stage.
            bottleneck_ratios: bottleneck channels per output channel of each stage.
            se_ratio: squeezed channels per input channel; 0 means no squeeze and excitation.
            activation_class: makes an activation.
            freeze_at: 0 for nothing, 1 for the stem, 2 for the stem and s1, and so on.
            norm: after each convolution.
            out_features: names among "stem", "s1", "s2", ...; None means the last.
        """
        super().__init__()
        self.stem = stem_class(3, stem_width, norm, activation_class)
        self._out_feature_strides = {"stem": self.stem.stride}
        self._out_feature_channels = {"stem": stem_width}
        self._stage_names: list[str] = []
        previous = "stem"
        for i, depth in enumerate(depths):
            name = f"s{i + 1}"
            params = {"bot_mul": bottleneck_ratios[i], "group_w": group_widths[i], "se_r": se_ratio}
            w_in = self._out_feature_channels[previous]
            stage = AnyStage(w_in, widths[i], strides[i], depth, block_class, norm, activation_class, params)
            self.add_module(name, stage)
            self._stage_names.append(name)
            self._out_feature_strides[name] = self._out_feature_strides[previous] * strides[i]
            self._out_feature_channels[name] = widths[i]
            previous = name
        self.apply(init_weights)

        self._out_features = [previous] if out_features is None else list(out_features)
        known = ["stem", *self._stage_names]
        if not self._out_features or not set(self._out_features) <= set(known):
            raise UserValueError(f"out_features must be some of {known}, got {self._out_features}")
        self.freeze(freeze_at)

    @property
    def stages_and_names(self) -> list[tuple[nn.Module, str]]:
        """The stages in order, each with its name."""
        return [(self.get_submodule(name), name) for name in self._stage_names]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) images -> the maps of `out_features` by name."""
        if x.dim() != 4:
            raise UserValueError(
                f"a RegNet takes (N, C, H, W) images, got a tensor of shape {tuple(x.shape)}"
            )
        maps = {"stem": self.stem(x)}
        x = maps["stem"]
        for stage, name in self.stages_and_names:
            x = maps[name] = stage(x)
        return {name: value for name, value in maps.items() if name in self._out_features}

    def freeze(self, freeze_at: int = 0) -> AnyNet:
        """Stop training the first parts, their batch norms included.

        Args:
            freeze_at: 0 for nothing, 1 for the stem, 2 for the stem and s1, and so on.

        Returns:
            The network itself.
        """
        if freeze_at >= 1:
            self.stem.freeze()
        for stage, _ in self.stages_and_names[: max(freeze_at - 1, 0)]:
            for block in stage.children():
                if not isinstance(block, CNNBlockBase):
                    raise UserTypeError(f"only CNNBlockBase blocks can be frozen, got {type(block).__name__}")
                block.freeze()
        return self


def adjust_block_compatibility(
    ws: Sequence[int], bs: Sequence[float], gs: Sequence[int]
) -> tuple[list[int], Sequence[float], list[int]]:
    """Round widths so that bottlenecks split into their groups.

    Args:
        ws: channels of each stage.
        bs: bottleneck channels per output channel of each stage.
        gs: channels per group of each stage.

    Returns:
        New `ws`, `bs` as it was, and new `gs`.
    """
    if not len(ws) == len(bs) == len(gs):
        raise UserValueError(
            f"ws, bs and gs must have one entry per stage, got {len(ws)}, {len(bs)}, {len(gs)}"
        )
    if any(number <= 0 for number in (*ws, *bs, *gs)):
        raise UserValueError(f"widths, ratios and group widths must be positive, got {ws}, {bs} and {gs}")
    new_ws, new_gs = [], []
    for width, ratio, group_width in zip(ws, bs, gs):
        bottleneck = int(max(1, width * ratio))
        group_width = int(min(group_width, bottleneck))
        multiple = math.lcm(group_width, int(ratio)) if ratio > 1 else group_width
        bottleneck = max(multiple, int(round(bottleneck / multiple) * multiple))
        new_ws.append(int(bottleneck / ratio))
        new_gs.append(group_width)
    return new_ws, bs, new_gs


def generate_regnet_parameters(
    w_a: float, w_0: int, w_m: float, d: int, q: int = 8
) -> tuple[list[int], list[int], int, int, list[int], list[float]]:
    """Work out the stages of a RegNet: widths grow linearly from block to block and are then quantised.

    Args:
        w_a: slope of the widths per block.
        w_0: width of the first block, a multiple of `q`.
        w_m: factor between the widths of neighbouring stages.
        d: number of blocks.
        q: widths are multiples of it.

    Returns:
        The stages' widths and depths, the number of stages, the number that there would be with those that
        have no blocks, and the blocks' widths, quantised and as they were.
    """
    if w_a < 0 or w_0 <= 0 or w_m <= 1 or w_0 % q:
        raise UserValueError(
            f"expected w_a >= 0, w_m > 1 and w_0 a positive multiple of {q}, got {w_a=}, {w_m=}, {w_0=}"
        )
    continuous = w_0 + w_a * np.arange(d)
    exponents = np.round(np.log(continuous / w_0) / np.log(w_m))
    quantised = (np.round(w_0 * w_m**exponents / q) * q).astype(int)
    widths, depths = np.unique(quantised, return_counts=True)
    return (
        widths.tolist(),
        depths.tolist(),
        len(widths),
        int(exponents.max()) + 1,
        quantised.tolist(),
        continuous.tolist(),
    )


class RegNet(AnyNet):
    """RegNetX, and with `se_ratio` RegNetY: an `AnyNet` whose stages follow from four numbers."""

    def __init__(
        self,
        *,
        stem_class: Callable[..., CNNBlockBase],
        stem_width: int,
        block_class: Callable[..., nn.Module],
        depth: int,
        w_a: float,
        w_0: int,
        w_m: float,
        group_width: int,
        stride: int = 2,
        bottleneck_ratio: float = 1.0,
        se_ratio: float = 0.0,
        activation_class: MakeActivation | None = None,
        freeze_at: int = 0,
        norm: Norm = "BN",
        out_features: Sequence[str] | None = None,
    ) -> None:
        """
        Args:
            depth, w_a, w_0, w_m: number of blocks, and their widths for `generate_regnet_parameters`.
            group_width: channels per group of all 3x3 convolutions.
            stride: of every stage.
            bottleneck_ratio: bottleneck channels per output channel.
            activation_class: None means ReLU.

        The others are those of `AnyNet`.
        """
        widths, depths, num_stages, *_ = generate_regnet_parameters(w_a, w_0, w_m, depth)
        ratios = [bottleneck_ratio] * num_stages
        widths, _, group_widths = adjust_block_compatibility(widths, ratios, [group_width] * num_stages)
        super().__init__(
            stem_class=stem_class,
            stem_width=stem_width,
            block_class=block_class,
            depths=depths,
            widths=widths,
            group_widths=group_widths,
            strides=[stride] * num_stages,
            bottleneck_ratios=ratios,
            se_ratio=se_ratio,
            activation_class=_relu if activation_class is None else activation_class,
            freeze_at=freeze_at,
            norm=norm,
            out_features=out_features,
        )


def _relu() -> nn.Module:
    return nn.ReLU(inplace=True)
