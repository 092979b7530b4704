"""What the names and shapes of a residual backbone's weights tell about its architecture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["BackboneLayout", "expected_shapes", "explain_conflicts", "infer_layout"]

Shape = tuple[int, ...]
Blocks = tuple[int, ...]

# Blocks in res2..res5 of the depths that MODEL.RESNETS.DEPTH knows: basic blocks and bottlenecks.
_BASIC_DEPTHS: dict[Blocks, int] = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 34}
_BOTTLENECK_DEPTHS: dict[Blocks, int] = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}

_BLOCK = re.compile(r"res([2-5])\.(\d+)\.")
_NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class BackboneLayout:
    """The architecture of a ResNet or Res2Net.

    Attributes:
        blocks_per_stage: from res2 on; fewer than four where the last stages are absent.
        is_res2net: its bottlenecks have `convs` and `bns` (scale 1 is a ResNet with a deep stem or pooled
            shortcut).
        is_basic: blocks of two 3x3 convolutions instead of bottlenecks.
        num_groups, width_per_group: of the 3x3 convolutions in res2.
        scale: splits of a bottleneck.
        deep_stem: three 3x3 convolutions instead of one 7x7.
        avg_down: shortcuts pool before they project.
    """

    blocks_per_stage: tuple[int, ...]
    is_res2net: bool
    is_basic: bool
    num_groups: int
    width_per_group: int
    scale: int
    deep_stem: bool
    avg_down: bool
    input_channels: int
    stem_channels: int
    res2_channels: int

    @property
    def depth(self) -> int | None:
        """The depth that such a network is named by, None for a shape that has no name."""
        return (_BASIC_DEPTHS if self.is_basic else _BOTTLENECK_DEPTHS).get(self.blocks_per_stage)

    @property
    def title(self) -> str:
        """What a person would call it."""
        family = "Res2Net" if self.is_res2net else "ResNet"
        name = f"{family}-{self.depth or 'x'.join(map(str, self.blocks_per_stage))}"
        if self.is_basic:
            return name
        groups = f"{self.num_groups} groups of " if self.num_groups > 1 else ""
        splits = f", scale {self.scale}" if self.is_res2net else ""
        return f"{name} ({groups}width {self.width_per_group}{splits})"

    def config_values(self) -> dict[str, Any]:
        """Config keys that build this architecture, but for those with several right answers."""
        values: dict[str, Any] = {}
        if self.depth is not None:
            values["MODEL.RESNETS.DEPTH"] = self.depth
        elif self.is_res2net:
            values["MODEL.RES2NET.STAGE_BLOCKS"] = list(self.blocks_per_stage)
        if not self.is_basic:
            values["MODEL.RESNETS.NUM_GROUPS"] = self.num_groups
            values["MODEL.RESNETS.WIDTH_PER_GROUP"] = self.width_per_group
        values["MODEL.RESNETS.STEM_OUT_CHANNELS"] = self.stem_channels
        values["MODEL.RESNETS.RES2_OUT_CHANNELS"] = self.res2_channels
        if self.is_res2net:
            values["MODEL.RES2NET.SCALE"] = self.scale
            values["MODEL.RES2NET.DEEP_STEM"] = self.deep_stem
            values["MODEL.RES2NET.AVG_DOWN"] = self.avg_down
        return values


def infer_layout(shapes: Mapping[str, Shape]) -> BackboneLayout | None:
    """Read the architecture off the shapes of tensors under our names, with or without a common prefix.

    Returns:
        None if there is no residual backbone among them, or its first block is not whole.
    """
    prefix = next(
        (n.removesuffix("res2.0.conv1.weight") for n in shapes if n.endswith("res2.0.conv1.weight")), None
    )
    if prefix is None:
        return None
    own = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    is_res2net = "res2.0.convs.0.weight" in own
    is_basic = "res2.0.conv3.weight" not in own
    deep_stem = "stem.conv1.6.weight" in own
    middle = own.get("res2.0.convs.0.weight" if is_res2net else "res2.0.conv2.weight")
    stem_in = own.get("stem.conv1.0.weight" if deep_stem else "stem.conv1.weight")
    stem_out = own.get("stem.conv1.6.weight" if deep_stem else "stem.conv1.weight")
    last = own.get("res2.0.conv2.weight" if is_basic else "res2.0.conv3.weight")
    if middle is None or last is None or stem_in is None or stem_out is None:
        return None
    if any(len(shape) != 4 or 0 in shape for shape in (middle, last, stem_in, stem_out)):
        return None
    num_groups = middle[0] // middle[1]
    return BackboneLayout(
        blocks_per_stage=_count_blocks(own),
        is_res2net=is_res2net,
        is_basic=is_basic,
        num_groups=num_groups,
        width_per_group=middle[0] // max(num_groups, 1),
        scale=own["res2.0.conv1.weight"][0] // middle[0] if is_res2net else 1,
        deep_stem=deep_stem,
        avg_down=any(".0.shortcut.1.weight" in name for name in own),
        input_channels=stem_in[1],
        stem_channels=stem_out[0],
        res2_channels=last[0],
    )


def _count_blocks(names: Mapping[str, Shape]) -> tuple[int, ...]:
    counts: dict[int, int] = {}
    for name in names:
        block = _BLOCK.match(name)
        if block:
            stage, index = int(block[1]), int(block[2])
            counts[stage] = max(counts.get(stage, 0), index + 1)
    present = [stage for stage in range(2, 6) if stage in counts]
    return tuple(counts[stage] for stage in present)


def expected_shapes(layout: BackboneLayout) -> dict[str, Shape]:
    """Return the name and shape of every tensor that a backbone of this architecture has."""
    shapes = _stem_shapes(layout)
    in_channels = layout.stem_channels
    for stage, num_blocks in enumerate(layout.blocks_per_stage):
        out_channels = layout.res2_channels * 2**stage
        for index in range(num_blocks):
            changes_shape = index == 0 and (stage > 0 or in_channels != out_channels)
            block = _block_shapes(layout, in_channels, out_channels, 2**stage, changes_shape)
            shapes |= {f"res{stage + 2}.{index}.{name}": shape for name, shape in block.items()}
            in_channels = out_channels
    return shapes


def _norm_shapes(name: str, channels: int) -> dict[str, Shape]:
    return {f"{name}.{part}": (channels,) for part in _NORM}


def _conv_shapes(name: str, *shape: int) -> dict[str, Shape]:
    """Return a convolution with its norm inside."""
    return {f"{name}.weight": shape} | _norm_shapes(f"{name}.norm", shape[0])


def _stem_shapes(layout: BackboneLayout) -> dict[str, Shape]:
    out = layout.stem_channels
    if not layout.deep_stem:
        return _conv_shapes("stem.conv1", out, layout.input_channels, 7, 7)
    half = out // 2
    return {
        "stem.conv1.0.weight": (half, layout.input_channels, 3, 3),
        **_norm_shapes("stem.conv1.1", half),
        "stem.conv1.3.weight": (half, half, 3, 3),
        **_norm_shapes("stem.conv1.4", half),
        "stem.conv1.6.weight": (out, half, 3, 3),
        **_norm_shapes("stem.bn1", out),
    }


def _block_shapes(
    layout: BackboneLayout, in_channels: int, out_channels: int, width_factor: int, changes_shape: bool
) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    if changes_shape:
        shortcut = "shortcut.1" if layout.avg_down else "shortcut"
        shapes |= _conv_shapes(shortcut, out_channels, in_channels, 1, 1)
    if layout.is_basic:
        first = _conv_shapes("conv1", out_channels, in_channels, 3, 3)
        return shapes | first | _conv_shapes("conv2", out_channels, out_channels, 3, 3)

    split = layout.num_groups * layout.width_per_group * width_factor
    bottleneck = split * layout.scale
    shapes |= _conv_shapes("conv1", bottleneck, in_channels, 1, 1)
    if layout.is_res2net:
        for i in range(max(layout.scale - 1, 1)):
            shapes[f"convs.{i}.weight"] = (split, split // layout.num_groups, 3, 3)
            shapes |= _norm_shapes(f"bns.{i}", split)
    else:
        shapes |= _conv_shapes("conv2", split, split // layout.num_groups, 3, 3)
    return shapes | _conv_shapes("conv3", out_channels, bottleneck, 1, 1)


def explain_conflicts(file: BackboneLayout, model: BackboneLayout) -> str | None:
    """Say how a config must change so that its backbone takes the weights of a file.

    Returns:
        None if it takes them as it is.
    """
    if file.is_res2net != model.is_res2net:
        twin = "build_res2net_*" if file.is_res2net else "build_resnet_*"
        advice = [f"MODEL.BACKBONE.NAME to a {twin} backbone"]
        differing = {"MODEL.RES2NET.SCALE", "MODEL.RESNETS.WIDTH_PER_GROUP"} if file.is_res2net else set()
    else:
        advice = []
        differing = {
            key for key, value in file.config_values().items() if model.config_values().get(key) != value
        }
        num_common = min(len(file.blocks_per_stage), len(model.blocks_per_stage))
        if file.blocks_per_stage[:num_common] == model.blocks_per_stage[:num_common]:
            differing -= {"MODEL.RESNETS.DEPTH", "MODEL.RES2NET.STAGE_BLOCKS"}
        if {"MODEL.RES2NET.SCALE", "MODEL.RESNETS.WIDTH_PER_GROUP"} & differing and file.is_res2net:
            differing |= {
                "MODEL.RES2NET.SCALE",
                "MODEL.RESNETS.WIDTH_PER_GROUP",
            }  # they only mean something together
    advice += [f"{key} to {value}" for key, value in file.config_values().items() if key in differing]
    if not advice:
        return None
    return f"the weights are of a {file.title}, the config describes a {model.title}: set " + " and ".join(
        advice
    )
