"""What the names and shapes of a residual backbone's weights tell about its architecture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detectron2.checkpoint.weight_translation import BackboneLayout

from .stage_plan import BLOCKS_PER_STAGE

__all__ = ["ResidualLayout", "conv_shapes", "count_blocks", "norm_shapes", "own_shapes"]

Shape = tuple[int, ...]
Blocks = tuple[int, ...]

_DEPTHS: dict[tuple[bool, Blocks], int] = {
    (depth < 50, blocks): depth for depth, blocks in BLOCKS_PER_STAGE.items()
}
_BLOCK = re.compile(r"res([2-5])\.(\d+)\.")
_NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class ResidualLayout(BackboneLayout):
    """The architecture of a ResNet, and what its variants have in common with it.

    Attributes:
        blocks_per_stage: from res2 on; fewer than four where the last stages are absent.
        is_basic: blocks of two 3x3 convolutions instead of bottlenecks.
        num_groups, width_per_group: of the 3x3 convolutions in res2.
    """

    blocks_per_stage: Blocks
    is_basic: bool
    num_groups: int
    width_per_group: int
    stem_channels: int
    res2_channels: int
    input_channels: int

    @property
    def depth(self) -> int | None:
        """The depth that such a network is named by, None for a shape that has no name."""
        return _DEPTHS.get((self.is_basic, self.blocks_per_stage))

    @property
    def title(self) -> str:
        return self.title_in("ResNet", "")

    def title_in(self, family: str, more: str) -> str:
        """Name the architecture as one of a family; `more` stands behind its width."""
        name = f"{family}-{self.depth or 'x'.join(map(str, self.blocks_per_stage))}"
        if self.is_basic:
            return name
        groups = f"{self.num_groups} groups of " if self.num_groups > 1 else ""
        return f"{name} ({groups}width {self.width_per_group}{more})"

    @property
    def builders(self) -> str:
        return "build_resnet_*"

    @property
    def pyramid_builder(self) -> str:
        return "build_resnet_fpn_backbone"

    def config_values(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if self.depth is not None:
            values["MODEL.RESNETS.DEPTH"] = self.depth
        if not self.is_basic:
            values["MODEL.RESNETS.NUM_GROUPS"] = self.num_groups
            values["MODEL.RESNETS.WIDTH_PER_GROUP"] = self.width_per_group
        values["MODEL.RESNETS.STEM_OUT_CHANNELS"] = self.stem_channels
        values["MODEL.RESNETS.RES2_OUT_CHANNELS"] = self.res2_channels
        return values

    def flavour_values(self, *, is_caffe: bool) -> dict[str, Any]:
        return {"MODEL.RESNETS.STRIDE_IN_1X1": is_caffe}

    def values_to_change(self, model: BackboneLayout) -> dict[str, Any]:
        values = super().values_to_change(model)
        if isinstance(model, ResidualLayout) and self.has_common_stages(model):
            values.pop("MODEL.RESNETS.DEPTH", None)
        return values

    def has_common_stages(self, other: ResidualLayout) -> bool:
        """Whether the stages that both have are of equal length."""
        pairs = zip(self.blocks_per_stage, other.blocks_per_stage)
        return all(ours == theirs for ours, theirs in pairs)

    def expected_shapes(self) -> dict[str, Shape]:
        shapes = self.stem_shapes()
        in_channels = self.stem_channels
        for stage, num_blocks in enumerate(self.blocks_per_stage):
            out_channels = self.res2_channels * 2**stage
            for index in range(num_blocks):
                block: dict[str, Shape] = {}
                if index == 0 and (stage > 0 or in_channels != out_channels):
                    block |= self.shortcut_shapes(in_channels, out_channels)
                block |= self.branch_shapes(in_channels, out_channels, 2**stage)
                shapes |= {f"res{stage + 2}.{index}.{name}": shape for name, shape in block.items()}
                in_channels = out_channels
        return shapes

    def stem_shapes(self) -> dict[str, Shape]:
        """Return the tensors of the stem, by their full names."""
        return conv_shapes("stem.conv1", self.stem_channels, self.input_channels, 7, 7)

    def shortcut_shapes(self, in_channels: int, out_channels: int) -> dict[str, Shape]:
        """Return the tensors of a shortcut that projects."""
        return conv_shapes("shortcut", out_channels, in_channels, 1, 1)

    def branch_shapes(self, in_channels: int, out_channels: int, width_factor: int) -> dict[str, Shape]:
        """Return the tensors of a block beside its shortcut; its width is `width_factor` times res2's."""
        if self.is_basic:
            first = conv_shapes("conv1", out_channels, in_channels, 3, 3)
            return first | conv_shapes("conv2", out_channels, out_channels, 3, 3)
        width = self.num_groups * self.width_per_group * width_factor
        return {
            **conv_shapes("conv1", width, in_channels, 1, 1),
            **conv_shapes("conv2", width, width // self.num_groups, 3, 3),
            **conv_shapes("conv3", out_channels, width, 1, 1),
        }


def own_shapes(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the tensors of the residual backbone among others, without what stands before their names.

    Returns:
        Empty where there is no residual backbone.
    """
    marker = "res2.0.conv1.weight"
    prefix = next((name.removesuffix(marker) for name in shapes if name.endswith(marker)), None)
    if prefix is None:
        return {}
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def count_blocks(names: Mapping[str, Shape]) -> Blocks:
    """Return the blocks in res2, res3, ... as far as there are any."""
    counts: dict[int, int] = {}
    for name in names:
        block = _BLOCK.match(name)
        if block:
            stage, index = int(block[1]), int(block[2])
            counts[stage] = max(counts.get(stage, 0), index + 1)
    return tuple(counts[stage] for stage in range(2, 6) if stage in counts)


def norm_shapes(name: str, channels: int) -> dict[str, Shape]:
    """Return the tensors of a norm."""
    return {f"{name}.{part}": (channels,) for part in _NORM}


def conv_shapes(name: str, *shape: int) -> dict[str, Shape]:
    """Return the tensors of a convolution with its norm inside."""
    return {f"{name}.weight": shape} | norm_shapes(f"{name}.norm", shape[0])
