"""ImageNet backbones under other packages' names, translated to ours.

Read are torchvision's ResNet, ResNeXt and Wide-ResNet, the official Res2Net files (v1 with the 7x7 stem,
v1b with the deep stem), timm's versions of all of them and mmdetection's. The names are those of
`detectron2.modeling.backbone.resnet` and `res2net` afterwards; the values are untouched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from detectron2.utils.user_errors import UserValueError

from .backbone_layout import BackboneLayout, expected_shapes, infer_layout

__all__ = ["ConvertedBackbone", "convert_backbone", "is_foreign_backbone"]

Array = TypeVar("Array")  # a torch tensor or NumPy array: only its shape is looked at

# What wraps a backbone, outermost first.
_WRAPPERS = ("module.", "model.", "backbone.", "encoder.")
_CLASSIFIERS = ("fc.", "classifier.", "head.", "last_linear.")

# The deep stem as mmdetection numbers it.
_SEQUENTIAL_STEM = {
    "0": "conv1.0",
    "1": "conv1.1",
    "3": "conv1.3",
    "4": "conv1.4",
    "6": "conv1.6",
    "7": "bn1",
}

_MAX_LISTED = 12


@dataclass(frozen=True)
class ConvertedBackbone(Generic[Array]):
    """Weights under our names.

    Attributes:
        weights: by name, such as `res2.0.conv1.weight`.
        layout: the architecture that they are of.
        dropped: names in the file that a backbone has no use for: classifier, batch counters, other parts.
    """

    weights: dict[str, Array]
    layout: BackboneLayout
    dropped: list[str]


def is_foreign_backbone(names: Iterable[str]) -> bool:
    """Tell whether the names are of a residual backbone in the convention of torchvision, timm or Res2Net."""
    return _find_prefix(names) is not None


def _find_prefix(names: Iterable[str]) -> str | None:
    """Return what stands before `layer1.0.conv1.weight`: nothing, or names of wrappers."""
    marker = "layer1.0.conv1.weight"
    for name in names:
        if name.endswith(marker):
            prefix = rest = name.removesuffix(marker)
            for wrapper in _WRAPPERS:
                rest = rest.removeprefix(wrapper)
            if not rest:
                return prefix
    return None


def convert_backbone(weights: Mapping[str, Array]) -> ConvertedBackbone[Array]:
    """Translate names to ours and check that the result is a whole backbone.

    Args:
        weights: tensors or arrays by name; wrappers such as `module.` and `backbone.` may stand before the
            names.

    Raises:
        ValueError: the names are of no known backbone, or tensors are unknown, missing or of the wrong
            shape; the message lists them.
    """
    prefix = _find_prefix(weights)
    if prefix is None:
        raise UserValueError(_describe_stranger(weights))
    dropped = [name for name in weights if not name.startswith(prefix)]
    own: dict[str, Array] = {}
    for name, value in weights.items():
        short = name.removeprefix(prefix)
        if name in dropped or short.startswith(_CLASSIFIERS) or short.endswith("num_batches_tracked"):
            dropped.append(name)
        else:
            own[short] = value
    dropped = list(dict.fromkeys(dropped))

    rename = _Renamer(own)
    converted: dict[str, Array] = {}
    unknown: list[str] = []
    for name, value in own.items():
        new_name = rename(name)
        if new_name is None or new_name in converted:
            unknown.append(name)
        else:
            converted[new_name] = value
    layout = _check(converted, unknown)
    return ConvertedBackbone(converted, layout, dropped)


def _describe_stranger(names: Iterable[str]) -> str:
    listed = list(names)
    if any(name.endswith("res2.0.conv1.weight") for name in listed):
        return "the weights have this package's names already, there is nothing to convert"
    return (
        "the weights are of no backbone that is known here (torchvision, timm or mmdetection ResNet, official"
        f" Res2Net): no tensor is called layer1.0.conv1.weight; there are {_list(listed)}"
    )


class _Renamer:
    """Translates one name at a time, knowing which others there are."""

    def __init__(self, names: Iterable[str]) -> None:
        names = list(names)
        self.has_deep_stem = any(name.startswith(("conv1.6.", "stem.6.")) for name in names)
        self.has_avg_down = any(re.search(r"\.downsample\.2\.", name) for name in names)
        # A ResNet with a deep stem or pooled shortcuts is what a Res2Net of scale 1 is.
        is_res2net = "layer1.0.convs.0.weight" in names
        is_bottleneck = "layer1.0.conv3.weight" in names
        self.middle_is_scale_1 = (
            is_bottleneck and not is_res2net and (self.has_deep_stem or self.has_avg_down)
        )

    def __call__(self, name: str) -> str | None:
        """Return our name, None for a name that no rule knows."""
        block = re.fullmatch(r"layer([1-4])\.(\d+)\.(.+)", name)
        if block:
            inner = self._in_block(block[3])
            return inner and f"res{int(block[1]) + 1}.{block[2]}.{inner}"
        return self._in_stem(name)

    def _in_stem(self, name: str) -> str | None:
        sequential = re.fullmatch(r"stem\.(\d)\.(\w+)", name)
        if sequential:
            part = _SEQUENTIAL_STEM.get(sequential[1])
            return part and f"stem.{part}.{sequential[2]}"
        if re.fullmatch(r"conv1(\.[01346])?\.\w+", name):
            return f"stem.{name}"
        norm = re.fullmatch(r"bn1\.(\w+)", name)
        if norm:
            return f"stem.bn1.{norm[1]}" if self.has_deep_stem else f"stem.conv1.norm.{norm[1]}"
        return None

    def _in_block(self, name: str) -> str | None:
        part, _, parameter = name.rpartition(".")
        if self.middle_is_scale_1 and part in ("conv2", "bn2"):
            return f"{part[:-1]}s.0.{parameter}"
        if re.fullmatch(r"conv[123]|convs\.\d+|bns\.\d+", part):
            return name
        norm = re.fullmatch(r"bn([123])", part)
        if norm:
            return f"conv{norm[1]}.norm.{parameter}"
        projections = (
            {"downsample.1": "shortcut.1", "downsample.2": "shortcut.1.norm"}
            if self.has_avg_down
            else {"downsample.0": "shortcut", "downsample.1": "shortcut.norm"}
        )
        return f"{projections[part]}.{parameter}" if part in projections else None


def _check(converted: Mapping[str, Array], unknown: list[str]) -> BackboneLayout:
    """Compare with what the architecture demands, tensor by tensor."""
    shapes = {name: tuple(value.shape) for name, value in converted.items()}  # type: ignore[attr-defined]
    layout = infer_layout(shapes)
    if layout is None:
        raise UserValueError(f"the backbone misses its stem or first block; there are {_list(list(shapes))}")
    expected = expected_shapes(layout)
    problems = []
    unknown = unknown + [name for name in shapes if name not in expected]
    if unknown:
        problems.append(f"{len(unknown)} unknown tensors: {_list(unknown)}")
    missing = [name for name in expected if name not in shapes]
    if missing:
        problems.append(f"{len(missing)} missing tensors: {_list(missing)}")
    wrong = [
        f"{name} {shape} instead of {expected[name]}"
        for name, shape in shapes.items()
        if name in expected and shape != expected[name]
    ]
    if wrong:
        problems.append(f"{len(wrong)} tensors of the wrong shape: {_list(wrong)}")
    if not problems and layout.depth is None and not layout.is_res2net:
        problems.append(f"a ResNet with {layout.blocks_per_stage} blocks has no MODEL.RESNETS.DEPTH")
    if problems:
        raise UserValueError(f"the weights look like a {layout.title}, but there are " + "; ".join(problems))
    return layout


def _list(names: list[str]) -> str:
    more = f", ... and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more
