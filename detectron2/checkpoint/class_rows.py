"""Rows of predictors by class: which belong to which class, and moving them to where a model has the class.

Shapes: K classes, D rows a class (4 or 5 of a box, 1 of a mask or a score), A anchors a position. A predictor
is a linear layer or a convolution, whose first axis is that of its outputs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Classes", "move_rows", "predicted_kinds"]

Classes = Mapping[str, Sequence[str]]
"""Names by kind, "thing_classes" and "stuff_classes"; a kind that is not known is absent."""

_BOX_SIZES = (4, 5)  # XYXY, and rotated


class _Rows(NamedTuple):
    """Rows of a predictor.

    Attributes:
        of_classes: (K, D) int64.
        shared: (S,) int64, those of no class, such as the background.
    """

    of_classes: Tensor
    shared: Tensor


def _scores_and_background(num_rows: int, num_classes: int) -> _Rows | None:
    if num_rows != num_classes + 1:
        return None
    rows = torch.arange(num_rows)
    return _Rows(rows[:-1].unsqueeze(1), rows[-1:])


def _class_by_class(num_rows: int, num_classes: int) -> _Rows | None:
    if num_rows % num_classes:
        return None
    return _Rows(torch.arange(num_rows).unflatten(0, (num_classes, -1)), torch.arange(0))


def _boxes(num_rows: int, num_classes: int) -> _Rows | None:
    return _class_by_class(num_rows, num_classes) if num_rows // num_classes in _BOX_SIZES else None


def _anchor_by_anchor(num_rows: int, num_classes: int) -> _Rows | None:
    if num_rows % num_classes:
        return None
    return _Rows(
        torch.arange(num_rows).unflatten(0, (-1, num_classes)).T, torch.arange(0)
    )  # (A, K) -> (K, A)


_Layout = Callable[[int, int], _Rows | None]
# Names of predictors, which checkpoints have made a contract.
_PREDICTORS: list[tuple[re.Pattern[str], str, _Layout]] = [
    (re.compile(rf"{name}\.(weight|bias)"), kind, layout)
    for name, kind, layout in (
        (r"roi_heads\.box_predictor(\.\d+)?\.cls_score", "thing_classes", _scores_and_background),
        (r"roi_heads\.box_predictor(\.\d+)?\.bbox_pred", "thing_classes", _boxes),
        (r"roi_heads\.mask_head(\.point_head)?\.predictor", "thing_classes", _class_by_class),
        (r"roi_heads\.mask_head\.coarse_head\.prediction", "thing_classes", _class_by_class),
        (r"sem_seg_head(\.point_head)?\.predictor", "stuff_classes", _class_by_class),
        (r"head\.cls_score", "thing_classes", _anchor_by_anchor),
    )
]


def _find(name: str) -> tuple[str, _Layout] | None:
    return next(((kind, layout) for pattern, kind, layout in _PREDICTORS if pattern.fullmatch(name)), None)


def predicted_kinds(names: Iterable[str]) -> list[str]:
    """Return the kinds of classes that a model predicts.

    Args:
        names: of its tensors.
    """
    found = (_find(name) for name in names)
    return list(dict.fromkeys(kind for kind, _ in filter(None, found)))


def move_rows(
    weights: dict[str, Tensor], initial: Mapping[str, Tensor], source: Classes, target: Classes
) -> list[str]:
    """Give each class of a model the rows that a file has for the class of its name.

    Classes that the file does not know keep their initial rows. A predictor is left as it is where its
    classes are the same in the same order, are not known, share no name, or have no rows of their own.

    Args:
        weights: those of a file, by the model's names; changed in place.
        initial: those of the model.
        source: classes of the file.
        target: classes of the model.

    Returns:
        The kinds of classes whose rows were moved.
    """
    moved = []
    for name, value in weights.items():
        kind, layout = _find(name) or ("", None)
        if layout is None or name not in initial or kind not in source or kind not in target:
            continue
        result = _move(value, initial[name], layout, source[kind], target[kind])
        if result is not None:
            weights[name] = result
            if kind not in moved:
                moved.append(kind)
    return moved


def _move(
    value: Tensor, initial: Tensor, layout: _Layout, source: Sequence[str], target: Sequence[str]
) -> Tensor | None:
    common = [name for name in target if name in set(source)]
    if list(source) == list(target) or not common or value.shape[1:] != initial.shape[1:]:
        return None
    if len(set(source)) < len(source) or len(set(target)) < len(target):
        return None
    theirs, ours = layout(value.shape[0], len(source)), layout(initial.shape[0], len(target))
    if theirs is None or ours is None or theirs.of_classes.shape[1] != ours.of_classes.shape[1]:
        return None
    result = initial.detach().to("cpu", value.dtype, copy=True)
    from_rows = theirs.of_classes[[source.index(name) for name in common]]  # (C, D) of C common classes
    to_rows = ours.of_classes[[target.index(name) for name in common]]
    result[to_rows.flatten()] = value[from_rows.flatten()]
    result[ours.shared] = value[theirs.shared]
    return result
