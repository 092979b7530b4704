"""What the classes of a model are called: by its data, by the checkpoint that it was loaded from.

Models are known here by identity, so that nothing has to stand in them. Whoever builds a model says which
classes it is trained for (`expect_classes`), loading a checkpoint says which it has learned
(`remember_learned`), and an evaluation compares these with its data set (`require_same_classes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from detectron2.utils.user_errors import UserValueError

from .class_rows import Classes, predicted_kinds

__all__ = [
    "KINDS",
    "MIXED_KEY",
    "classes_in_notes",
    "describe_difference",
    "expect_classes",
    "expected_classes",
    "learned_classes",
    "remember_learned",
    "require_same_classes",
]

KINDS = ("thing_classes", "stuff_classes")
MIXED_KEY = "mixed_classes"
"""Key in the notes of a checkpoint whose training sets disagree about names; its metadata is that of one."""
_MAX_LISTED = 5


@dataclass
class _Known:
    expected: Callable[[], Classes] | None = None
    is_checked: bool = True
    learned: Classes | None = None
    source: str = ""


_models: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def _known(model: nn.Module) -> _Known:
    return _models.setdefault(model, _Known())


def expect_classes(model: nn.Module, classes: Callable[[], Classes], *, is_checked: bool = True) -> None:
    """Say which classes a model is trained for.

    Args:
        model: without a wrapper.
        classes: looks them up when they are needed, since data sets may learn them late.
        is_checked: whether `require_same_classes` refuses others.
    """
    known = _known(model)
    known.expected, known.is_checked = classes, is_checked


def expected_classes(model: nn.Module) -> Classes:
    """Return what `expect_classes` was told; empty where nobody did."""
    known = _models.get(model)
    return known.expected() if known and known.expected else {}


def remember_learned(model: nn.Module, classes: Classes | None, source: str) -> None:
    """Say which classes the weights of a model predict.

    Args:
        model: without a wrapper.
        classes: None where the file does not say.
        source: the file, for messages.
    """
    known = _known(model)
    known.learned, known.source = classes, source


def learned_classes(model: nn.Module) -> Classes | None:
    """Return the classes that the weights of a model predict, as far as its checkpoint said so."""
    known = _models.get(model)
    return known.learned if known else None


def classes_in_notes(notes: Any) -> Classes | None:
    """Read the classes off the notes of a checkpoint (`detectron2.checkpoint.notes`)."""
    metadata = notes.get("metadata") if isinstance(notes, Mapping) else None
    if not isinstance(metadata, Mapping) or notes.get(MIXED_KEY):
        return None
    found = {kind: metadata[kind] for kind in KINDS if _are_names(metadata.get(kind))}
    return found or None


def _are_names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(name, str) for name in value)


def require_same_classes(model: Any, dataset_name: str, classes: Mapping[str, Any]) -> None:
    """Compare the classes that a model has learned with those of a data set, order included.

    Args:
        model: wrapped or not; one of which no classes are known fits all.
        dataset_name: for the message.
        classes: of the data set, by kind; kinds that are absent or None are not compared.

    Raises:
        ValueError: they differ; the message says in which classes.
    """
    model = getattr(model, "module", model)
    known = _models.get(model) if isinstance(model, nn.Module) else None
    if known is None or known.learned is None or not known.is_checked:
        return
    for kind in predicted_kinds(model.state_dict()):
        ours, theirs = known.learned.get(kind), classes.get(kind)
        difference = describe_difference(ours, theirs) if ours and theirs else ""
        if difference:
            raise UserValueError(
                f"The {kind} of the data set {dataset_name} are not those that the model has learned"
                f" ({known.source}): {difference}. Its predictions would be scored against other classes."
                f" Register the data set with the {kind} of the model, in their order. If only the names"
                " differ, set TEST.CHECK_CLASS_NAMES False (of a Python config, train.check_class_names):"
                " classes then count by their position."
            )


def describe_difference(learned: Sequence[str], others: Sequence[str]) -> str:
    """Say how the names of a data set differ from those that a model has learned; "" where they do not."""
    if list(learned) == list(others):
        return ""
    unknown = [name for name in others if name not in learned]
    absent = [name for name in learned if name not in others]
    if not unknown and not absent and len(learned) == len(others):
        first = next(i for i in range(len(learned)) if learned[i] != others[i])
        return (
            f"the same classes stand in another order, class {first} is {learned[first]!r} for the model and"
            f" {others[first]!r} in the data set"
        )
    parts = [f"the model does not know {_list(unknown)}"] if unknown else []
    parts += [f"the data set does not have {_list(absent)}"] if absent else []
    return " and ".join(parts) or f"the model has {len(learned)} classes and the data set {len(others)}"


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(map(repr, names[:_MAX_LISTED])) + more
