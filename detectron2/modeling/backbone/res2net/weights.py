"""The weights of Res2Net: the names that others gave them, what shapes tell, and which config keys fit.

Read are the official files (v1 with the 7x7 stem, v1b with the deep stem), timm's and mmdetection's, and
ResNet-D, which is a Res2Net of scale 1.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from detectron2.checkpoint.weight_translation import WEIGHT_TRANSLATOR_REGISTRY, BackboneLayout
from detectron2.modeling.backbone.residual_layout import (
    ResidualLayout,
    conv_shapes,
    count_blocks,
    norm_shapes,
    own_shapes,
)
from detectron2.modeling.backbone.residual_weights import (
    ResNetWeights,
    TorchvisionNames,
    conv_shape,
    find_prefix,
)

__all__ = ["Res2NetLayout", "Res2NetWeights"]

Shape = tuple[int, ...]

# The deep stem as mmdetection numbers it.
_SEQUENTIAL_STEM = {
    "0": "conv1.0",
    "1": "conv1.1",
    "3": "conv1.3",
    "4": "conv1.4",
    "6": "conv1.6",
    "7": "bn1",
}

# These two only mean something together.
_WIDTH_KEYS = {"MODEL.RES2NET.SCALE", "MODEL.RESNETS.WIDTH_PER_GROUP"}


@dataclass(frozen=True)
class Res2NetLayout(ResidualLayout):
    """The architecture of a Res2Net.

    Attributes:
        scale: splits of a bottleneck; 1 is a ResNet with a deep stem or pooled shortcuts.
        deep_stem: three 3x3 convolutions instead of one 7x7.
        avg_down: shortcuts pool before they project.
    """

    scale: int
    deep_stem: bool
    avg_down: bool

    @property
    def title(self) -> str:
        return self.title_in("Res2Net", f", scale {self.scale}")

    @property
    def builders(self) -> str:
        return "build_res2net_*"

    @property
    def pyramid_builder(self) -> str:
        return "build_res2net_fpn_backbone"

    def config_values(self) -> dict[str, Any]:
        blocks = {} if self.depth is not None else {"MODEL.RES2NET.STAGE_BLOCKS": list(self.blocks_per_stage)}
        return {
            **blocks,
            **super().config_values(),
            "MODEL.RES2NET.SCALE": self.scale,
            "MODEL.RES2NET.DEEP_STEM": self.deep_stem,
            "MODEL.RES2NET.AVG_DOWN": self.avg_down,
        }

    def values_to_change(self, model: BackboneLayout) -> dict[str, Any]:
        values = super().values_to_change(model)
        own = self.config_values()
        if not isinstance(model, Res2NetLayout):
            return values | {key: own[key] for key in own if key in _WIDTH_KEYS}
        if self.has_common_stages(model):
            values.pop("MODEL.RES2NET.STAGE_BLOCKS", None)
        wanted = values.keys() | (_WIDTH_KEYS if _WIDTH_KEYS & values.keys() else set())
        return {key: value for key, value in own.items() if key in wanted}

    def stem_shapes(self) -> dict[str, Shape]:
        if not self.deep_stem:
            return super().stem_shapes()
        out, half = self.stem_channels, self.stem_channels // 2
        return {
            "stem.conv1.0.weight": (half, self.input_channels, 3, 3),
            **norm_shapes("stem.conv1.1", half),
            "stem.conv1.3.weight": (half, half, 3, 3),
            **norm_shapes("stem.conv1.4", half),
            "stem.conv1.6.weight": (out, half, 3, 3),
            **norm_shapes("stem.bn1", out),
        }

    def shortcut_shapes(self, in_channels: int, out_channels: int) -> dict[str, Shape]:
        name = "shortcut.1" if self.avg_down else "shortcut"
        return conv_shapes(name, out_channels, in_channels, 1, 1)

    def branch_shapes(self, in_channels: int, out_channels: int, width_factor: int) -> dict[str, Shape]:
        split = self.num_groups * self.width_per_group * width_factor
        shapes = conv_shapes("conv1", split * self.scale, in_channels, 1, 1)
        for i in range(max(self.scale - 1, 1)):
            shapes[f"convs.{i}.weight"] = (split, split // self.num_groups, 3, 3)
            shapes |= norm_shapes(f"bns.{i}", split)
        return shapes | conv_shapes("conv3", out_channels, split * self.scale, 1, 1)


class _Res2NetNames(TorchvisionNames):
    def __init__(self, names: Collection[str]) -> None:
        self._has_deep_stem = _has_deep_stem(names)
        self._has_avg_down = _has_avg_down(names)
        self._middle_is_one_conv = "layer1.0.convs.0.weight" not in names

    def in_stem(self, name: str) -> str | None:
        numbered = re.fullmatch(r"stem\.(\d)\.(\w+)", name)
        if numbered:
            part = _SEQUENTIAL_STEM.get(numbered[1])
            return part and f"stem.{part}.{numbered[2]}"
        if re.fullmatch(r"conv1\.[01346]\.\w+", name):
            return f"stem.{name}"
        if self._has_deep_stem and re.fullmatch(r"bn1\.\w+", name):
            return f"stem.{name}"
        return super().in_stem(name)

    def in_block(self, part: str) -> str | None:
        if self._middle_is_one_conv and part in ("conv2", "bn2"):
            return f"{part[:-1]}s.0"
        if re.fullmatch(r"(convs|bns)\.\d+", part):
            return part
        if self._has_avg_down and part.startswith("downsample."):
            return {"downsample.1": "shortcut.1", "downsample.2": "shortcut.1.norm"}.get(part)
        return super().in_block(part)


def _has_deep_stem(names: Collection[str]) -> bool:
    return any(name.startswith(("conv1.6.", "stem.6.")) for name in names)


def _has_avg_down(names: Collection[str]) -> bool:
    return any(re.search(r"\.downsample\.2\.", name) for name in names)


@WEIGHT_TRANSLATOR_REGISTRY.register()
class Res2NetWeights(ResNetWeights):
    """Res2Net as its authors, timm and mmdetection name it."""

    sources = "official, timm or mmdetection Res2Net"
    names = _Res2NetNames

    def recognizes(self, names: Collection[str]) -> bool:
        prefix = find_prefix(names)
        if prefix is None:
            return False
        own = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
        if "layer1.0.convs.0.weight" in own:
            return True
        # Our ResNet has neither.
        is_bottleneck = "layer1.0.conv3.weight" in own
        return is_bottleneck and (_has_deep_stem(own) or _has_avg_down(own))

    def check_layout(self, layout: ResidualLayout) -> None:
        """Any number of blocks has its MODEL.RES2NET.STAGE_BLOCKS."""

    def read_layout(self, shapes: Mapping[str, Shape]) -> Res2NetLayout | None:
        own = own_shapes(shapes)
        deep_stem = "stem.conv1.6.weight" in own
        stem_in = conv_shape(own, "stem.conv1.0.weight" if deep_stem else "stem.conv1.weight")
        stem_out = conv_shape(own, "stem.conv1.6.weight" if deep_stem else "stem.conv1.weight")
        first = conv_shape(own, "res2.0.conv1.weight")
        middle = conv_shape(own, "res2.0.convs.0.weight")
        last = conv_shape(own, "res2.0.conv3.weight")
        if stem_in is None or stem_out is None or first is None or middle is None or last is None:
            return None
        num_groups = middle[0] // middle[1]
        return Res2NetLayout(
            blocks_per_stage=count_blocks(own),
            is_basic=False,
            num_groups=num_groups,
            width_per_group=middle[0] // max(num_groups, 1),
            stem_channels=stem_out[0],
            res2_channels=last[0],
            input_channels=stem_in[1],
            scale=first[0] // middle[0],
            deep_stem=deep_stem,
            avg_down=any(".0.shortcut.1.weight" in name for name in own),
        )
