"""The weights of ResNet under other packages' names: torchvision's, which timm and mmdetection share.

Read are ResNet, ResNeXt and Wide-ResNet. The names are those of `resnet` afterwards; values are untouched.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from detectron2.checkpoint.weight_translation import (
    WEIGHT_TRANSLATOR_REGISTRY,
    Array,
    ConvertedBackbone,
    WeightTranslator,
    list_names,
    require_whole,
)
from detectron2.utils.user_errors import UserValueError

from .residual_layout import ResidualLayout, count_blocks, own_shapes

__all__ = ["ResNetWeights", "TorchvisionNames", "conv_shape", "find_prefix"]

Shape = tuple[int, ...]

# What wraps a backbone, outermost first.
_WRAPPERS = ("module.", "model.", "backbone.", "encoder.")
_CLASSIFIERS = ("fc.", "classifier.", "head.", "last_linear.")


def find_prefix(names: Iterable[str]) -> str | None:
    """Return what stands before `layer1.0.conv1.weight`: nothing, or names of wrappers.

    Returns:
        None where the names are not of torchvision's convention.
    """
    marker = "layer1.0.conv1.weight"
    for name in names:
        if name.endswith(marker):
            prefix = rest = name.removesuffix(marker)
            for wrapper in _WRAPPERS:
                rest = rest.removeprefix(wrapper)
            if not rest:
                return prefix
    return None


class TorchvisionNames:
    """Translates one name at a time, knowing which others there are."""

    def __init__(self, names: Collection[str]) -> None:
        """
        Args:
            names: of the whole backbone, without wrappers.
        """

    def __call__(self, name: str) -> str | None:
        """Return our name, None for a name that no rule knows."""
        block = re.fullmatch(r"layer([1-4])\.(\d+)\.(.+)", name)
        if not block:
            return self.in_stem(name)
        part, _, parameter = block[3].rpartition(".")
        our_part = self.in_block(part)
        return our_part and f"res{int(block[1]) + 1}.{block[2]}.{our_part}.{parameter}"

    def in_stem(self, name: str) -> str | None:
        """Return our name of a tensor before the first stage."""
        part, _, parameter = name.rpartition(".")
        our_part = {"conv1": "stem.conv1", "bn1": "stem.conv1.norm"}.get(part)
        return our_part and f"{our_part}.{parameter}"

    def in_block(self, part: str) -> str | None:
        """Return our name of a layer in a block, such as `conv1.norm` for `bn1`."""
        if re.fullmatch(r"conv[123]", part):
            return part
        norm = re.fullmatch(r"bn([123])", part)
        if norm:
            return f"conv{norm[1]}.norm"
        return {"downsample.0": "shortcut", "downsample.1": "shortcut.norm"}.get(part)


@WEIGHT_TRANSLATOR_REGISTRY.register()
class ResNetWeights(WeightTranslator):
    """ResNet as torchvision, timm and mmdetection name it. A variant overrides the parts that differ."""

    sources = "torchvision, timm or mmdetection ResNet"
    names: type[TorchvisionNames] = TorchvisionNames

    def recognizes(self, names: Collection[str]) -> bool:
        return find_prefix(names) is not None

    def translate(self, weights: Mapping[str, Array]) -> ConvertedBackbone[Array]:
        own, dropped = _split_off_others(weights)
        rename = self.names(own)
        converted: dict[str, Array] = {}
        unknown: list[str] = []
        for name, value in own.items():
            new_name = rename(name)
            if new_name is None or new_name in converted:
                unknown.append(name)
            else:
                converted[new_name] = value
        layout = self.read_layout({name: tuple(value.shape) for name, value in converted.items()})
        if layout is None:
            raise UserValueError(
                f"the backbone misses its stem or first block; there are {list_names(converted)}"
            )
        require_whole(layout, converted, unknown=unknown)
        self.check_layout(layout)
        return ConvertedBackbone(converted, layout, dropped)

    def check_layout(self, layout: ResidualLayout) -> None:
        """Raise where no config builds the architecture."""
        if layout.depth is None:
            raise UserValueError(
                f"the weights look like a {layout.title}, but a ResNet with {layout.blocks_per_stage} blocks"
                " has no MODEL.RESNETS.DEPTH"
            )

    def read_layout(self, shapes: Mapping[str, Shape]) -> ResidualLayout | None:
        own = own_shapes(shapes)
        is_basic = "res2.0.conv3.weight" not in own
        stem = conv_shape(own, "stem.conv1.weight")
        middle = conv_shape(own, "res2.0.conv2.weight")
        last = conv_shape(own, "res2.0.conv2.weight" if is_basic else "res2.0.conv3.weight")
        if stem is None or middle is None or last is None:
            return None
        num_groups = middle[0] // middle[1]
        return ResidualLayout(
            blocks_per_stage=count_blocks(own),
            is_basic=is_basic,
            num_groups=num_groups,
            width_per_group=middle[0] // max(num_groups, 1),
            stem_channels=stem[0],
            res2_channels=last[0],
            input_channels=stem[1],
        )


def conv_shape(shapes: Mapping[str, Shape], name: str) -> Shape | None:
    """Return the shape of a convolution's weight, None where there is none that could be one."""
    shape = shapes.get(name, ())
    return shape if len(shape) == 4 and 0 not in shape else None


def _split_off_others(weights: Mapping[str, Array]) -> tuple[dict[str, Array], list[str]]:
    """Return the backbone's weights without wrappers in their names, and the names of all others."""
    prefix = find_prefix(weights) or ""
    own: dict[str, Array] = {}
    dropped: list[str] = []
    # What lies outside the backbone stands first in the list.
    outside = [name for name in weights if not name.startswith(prefix)]
    for name, value in weights.items():
        short = name.removeprefix(prefix)
        if not name.startswith(prefix):
            continue
        if short.startswith(_CLASSIFIERS) or short.endswith("num_batches_tracked"):
            dropped.append(name)
        else:
            own[short] = value
    return own, outside + dropped
