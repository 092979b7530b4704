"""Rows of predictors follow the names of classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detectron2.checkpoint.class_rows import move_rows, predicted_kinds

CLS = "roi_heads.box_predictor.cls_score.weight"
BOX = "roi_heads.box_predictor.2.bbox_pred.bias"
MASK = "roi_heads.mask_head.predictor.weight"
SEM = "sem_seg_head.predictor.bias"
DENSE = "head.cls_score.bias"


def rows(*values: float) -> Tensor:
    return torch.tensor(values)


def moved(name: str, value: Tensor, initial: Tensor, source: list[str], target: list[str]) -> Tensor:
    kind = "stuff_classes" if name == SEM else "thing_classes"
    weights = {name: value, "backbone.weight": torch.ones(1)}
    kinds = move_rows(weights, {name: initial}, {kind: source}, {kind: target})
    assert kinds == ([] if weights[name] is value else [kind])
    return weights[name]


@pytest.mark.parametrize(
    ("name", "value", "initial", "expected"),
    [
        # a, b -> b, new, a; the background is the last row
        (CLS, rows(1, 2, 9), rows(-1, -2, -3, -4), [2, -2, 1, 9]),
        (
            BOX,
            rows(1, 1.1, 1.2, 1.3, 2, 2.1, 2.2, 2.3),
            -torch.arange(12.0),
            [2, 2.1, 2.2, 2.3, -4, -5, -6, -7, 1, 1.1, 1.2, 1.3],
        ),
        (MASK, rows(1, 2).view(2, 1, 1, 1), rows(-1, -2, -3).view(3, 1, 1, 1), [2, -2, 1]),
        (SEM, rows(1, 2), rows(-1, -2, -3), [2, -2, 1]),
        # two anchors, each with all classes
        (DENSE, rows(1, 2, 11, 12), rows(-1, -2, -3, -4, -5, -6), [2, -2, 1, 12, -5, 11]),
    ],
)
def test_classes_of_both_keep_their_rows(name: str, value: Tensor, initial: Tensor, expected: list) -> None:
    before = initial.clone()
    result = moved(name, value, initial, ["a", "b"], ["b", "new", "a"])
    assert result.shape == initial.shape
    assert torch.equal(result.flatten(), rows(*expected))
    assert torch.equal(initial, before)


def test_another_order_is_a_permutation_of_rows() -> None:
    assert moved(CLS, rows(1, 2, 3, 9), rows(0, 0, 0, 0), ["a", "b", "c"], ["c", "a", "b"]).tolist() == [
        3,
        1,
        2,
        9,
    ]


@pytest.mark.parametrize(
    ("name", "value", "initial", "source", "target"),
    [
        (CLS, rows(1, 2, 9), rows(0, 0, 0), ["a", "b"], ["a", "b"]),  # the same
        (CLS, rows(1, 2, 9), rows(0, 0, 0), ["a", "b"], ["c", "d"]),  # nothing in common
        (CLS, rows(1, 2, 9), rows(0, 0, 0), ["a", "a"], ["a", "b"]),  # names that stand for two classes
        (CLS, rows(1, 2, 3, 9), rows(0, 0, 0), ["a", "b"], ["b", "a"]),  # another number than that of names
        (BOX, rows(1, 2, 3, 4), rows(0, 0, 0, 0), ["a", "b"], ["b", "a"]),  # boxes of all classes alike
        (MASK, torch.ones(2, 3), torch.zeros(2, 4), ["a", "b"], ["b", "a"]),  # another width
        ("other_head.cls_score.bias", rows(1, 2), rows(0, 0), ["a", "b"], ["b", "a"]),
    ],
)
def test_what_does_not_tell_its_classes_is_left_alone(
    name: str, value: Tensor, initial: Tensor, source: list[str], target: list[str]
) -> None:
    assert moved(name, value, initial, source, target) is value


def test_kinds_are_told_by_the_names_of_predictors() -> None:
    assert predicted_kinds(["backbone.x", SEM, CLS, BOX]) == ["stuff_classes", "thing_classes"]
    assert predicted_kinds(["backbone.x"]) == []
