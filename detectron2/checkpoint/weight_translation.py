"""What backbones know about their weights: the names that others gave them, and what shapes tell.

A backbone registers a `WeightTranslator`. The checkpointer then reads files in the names of other packages,
refuses weights of another architecture with advice which config keys to change, and the converter writes
such files in our names. Nothing here knows a backbone by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from detectron2.utils.registry import Registry
from detectron2.utils.user_errors import UserValueError

__all__ = [
    "WEIGHT_TRANSLATOR_REGISTRY",
    "Array",
    "BackboneLayout",
    "ConvertedBackbone",
    "WeightTranslator",
    "convert_backbone",
    "explain_conflicts",
    "find_translator",
    "known_sources",
    "list_names",
    "read_layout",
    "require_whole",
]

Shape = tuple[int, ...]


class HasShape(Protocol):
    """A torch tensor, a NumPy array, or what else has a shape; nothing more of it is looked at."""

    @property
    def shape(self) -> Shape: ...


Array = TypeVar("Array", bound=HasShape)

_MAX_LISTED = 12

WEIGHT_TRANSLATOR_REGISTRY = Registry("WEIGHT_TRANSLATOR")
WEIGHT_TRANSLATOR_REGISTRY.__doc__ = """
Classes derived from `WeightTranslator`, by any name. They are asked in the opposite order of registration: a
variant, which imports the family that it varies, sees a file before the family does.
"""


class BackboneLayout(ABC):
    """The architecture of a backbone, as far as its weights tell it."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What a person would call it, such as "ResNet-50 (width 64)"."""

    @property
    @abstractmethod
    def builders(self) -> str:
        """The registered backbones that build it, as a pattern: "build_resnet_*"."""

    @property
    @abstractmethod
    def pyramid_builder(self) -> str:
        """The registered backbone that builds it with a feature pyramid."""

    @abstractmethod
    def config_values(self) -> dict[str, Any]:
        """Return full config keys and the values that build this architecture, but for those with several
        right answers."""

    @abstractmethod
    def expected_shapes(self) -> dict[str, Shape]:
        """Return the name and shape of every tensor that such a backbone has."""

    def flavour_values(self, *, is_caffe: bool) -> dict[str, Any]:
        """Return config keys that depend on where weights were trained, which names do not tell.

        Args:
            is_caffe: with Caffe (MSRA), not with torch.
        """
        return {}

    def values_to_change(self, model: BackboneLayout) -> dict[str, Any]:
        """Return the config keys to change, and how, so that a model takes weights of this architecture.

        Args:
            model: what the model's own weights tell.

        Returns:
            Empty if the model takes them as it is. A value may be a description.
        """
        if type(model) is not type(self):
            return {"MODEL.BACKBONE.NAME": f"a {self.builders} backbone"}
        theirs = model.config_values()
        return {key: value for key, value in self.config_values().items() if theirs.get(key) != value}


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


class WeightTranslator(ABC):
    """What one family of backbones knows about its weights. It has no state."""

    sources: str
    """Whose files it reads, for messages: "torchvision and timm ResNet"."""

    @abstractmethod
    def recognizes(self, names: Collection[str]) -> bool:
        """Tell whether these are weights of this family under the names of another package."""

    @abstractmethod
    def translate(self, weights: Mapping[str, Array]) -> ConvertedBackbone[Array]:
        """Give weights that it recognizes our names; the values are untouched.

        Raises:
            ValueError: tensors are unknown, missing or of the wrong shape; `require_whole` says which.
        """

    @abstractmethod
    def read_layout(self, shapes: Mapping[str, Shape]) -> BackboneLayout | None:
        """Read the architecture off the shapes of tensors under our names, with or without a common prefix.

        Returns:
            None if no backbone of this family is among them, or too little of it.
        """


def _translators() -> list[WeightTranslator]:
    return [translator() for _, translator in reversed(list(WEIGHT_TRANSLATOR_REGISTRY))]


def known_sources() -> str:
    """Say whose backbones can be read."""
    return ", ".join(sorted(translator.sources for translator in _translators()))


def find_translator(names: Collection[str]) -> WeightTranslator | None:
    """Return the translator for weights of these names, None if they are of no package that is known."""
    return next((translator for translator in _translators() if translator.recognizes(names)), None)


def convert_backbone(weights: Mapping[str, Array]) -> ConvertedBackbone[Array]:
    """Translate names to ours and check that the result is a whole backbone.

    Args:
        weights: tensors or arrays by name.

    Raises:
        ValueError: the names are of no known backbone, or tensors are unknown, missing or of the wrong
            shape; the message lists them.
    """
    translator = find_translator(weights)
    if translator is None:
        raise UserValueError(_describe_stranger(weights))
    return translator.translate(weights)


def _describe_stranger(weights: Mapping[str, HasShape]) -> str:
    if read_layout(weights) is not None:
        return "the weights have this package's names already, there is nothing to convert"
    return (
        f"the weights are of no backbone that is known here ({known_sources()}); "
        f"there are {list_names(weights)}"
    )


def read_layout(weights: Mapping[str, HasShape]) -> BackboneLayout | None:
    """Read the architecture of the backbone among weights under our names, None where there is none.

    Args:
        weights: tensors, or whatever else has a shape.
    """
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    layouts = (translator.read_layout(shapes) for translator in _translators())
    return next((layout for layout in layouts if layout is not None), None)


def explain_conflicts(file: BackboneLayout, model: BackboneLayout) -> str | None:
    """Say how a config must change so that its backbone takes the weights of a file.

    Returns:
        None if it takes them as it is.
    """
    advice = [f"{key} to {value}" for key, value in file.values_to_change(model).items()]
    if not advice:
        return None
    return f"the weights are of a {file.title}, the config describes a {model.title}: set " + " and ".join(
        advice
    )


def require_whole(
    layout: BackboneLayout, weights: Mapping[str, HasShape], *, unknown: Iterable[str] = ()
) -> None:
    """Compare weights with what their architecture demands, tensor by tensor.

    Args:
        layout: the architecture.
        weights: tensors or arrays under our names.
        unknown: names that could not be translated.

    Raises:
        ValueError: tensors are unknown, missing or of the wrong shape; the message lists them.
    """
    expected = layout.expected_shapes()
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    strangers = [*unknown, *(name for name in shapes if name not in expected)]
    missing = [name for name in expected if name not in shapes]
    wrong = [
        f"{name} {shape} instead of {expected[name]}"
        for name, shape in shapes.items()
        if name in expected and shape != expected[name]
    ]
    findings = [
        (strangers, "unknown tensors"),
        (missing, "missing tensors"),
        (wrong, "tensors of the wrong shape"),
    ]
    problems = [f"{len(names)} {what}: {list_names(names)}" for names, what in findings if names]
    if problems:
        raise UserValueError(f"the weights look like a {layout.title}, but there are " + "; ".join(problems))


def list_names(names: Iterable[str]) -> str:
    """Join names for a message, the first of them if there are many."""
    listed = list(names)
    more = f", ... and {len(listed) - _MAX_LISTED} more" if len(listed) > _MAX_LISTED else ""
    return ", ".join(listed[:_MAX_LISTED]) + more
