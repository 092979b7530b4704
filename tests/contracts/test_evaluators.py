"""What every evaluator does with everything, with nothing, and with a second run."""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator

from . import registered
from .compare import assert_same
from .datasets import CASES, NAME, Case, Predictions

# Classes that are made through others of the table, with the reason.
BASES = {"CityscapesEvaluator": "what the two evaluators of Cityscapes share"}

names = pytest.mark.parametrize("name", CASES)


def test_every_evaluator_has_a_row() -> None:
    assert sorted(registered.subclasses(DatasetEvaluator)) == sorted([*CASES, *BASES])


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], Case]]:
    """Make the evaluator of a name with its data set, which is gone after the test."""

    def make_case(name: str) -> Case:
        if name.startswith("Cityscapes") and importlib.util.find_spec("cityscapesscripts") is None:
            pytest.skip("cityscapesscripts is optional and not installed")
        case = CASES[name](tmp_path)
        assert type(case.evaluator).__name__ == name
        return case

    yield make_case
    for catalog in (DatasetCatalog, MetadataCatalog):
        if NAME in catalog.list():
            catalog.remove(NAME)


def run(case: Case, predictions: Predictions, *, at_once: bool = False) -> dict[str, Any]:
    """One life of an evaluator: image by image in order, or all in one batch."""
    case.evaluator.reset()
    if at_once:
        case.evaluator.process(case.inputs, predictions)
    else:
        for image, prediction in zip(case.inputs, predictions, strict=True):
            case.evaluator.process([image], [prediction])
    results = case.evaluator.evaluate()
    assert results
    for task, scores in results.items():
        assert isinstance(task, str) and scores
        assert all(isinstance(key, str) and isinstance(float(value), float) for key, value in scores.items())
    return copy.deepcopy(results)


@names
def test_ground_truth_as_prediction_is_perfect(name: str, make: Callable[[str], Case]) -> None:
    case = make(name)
    results = run(case, case.truth)
    assert list(results) == list(case.perfect)
    for task, scores in case.perfect.items():
        for key, value in scores.items():
            assert results[task][key] == pytest.approx(value, abs=1e-6), f"{task} {key}"
        assert all(math.isnan(value) or value <= 100 + 1e-6 for value in results[task].values())


@names
def test_no_predictions_score_less_and_are_no_error(name: str, make: Callable[[str], Case]) -> None:
    case = make(name)
    results = run(case, case.nothing)
    for task, scores in case.perfect.items():
        for key, value in scores.items():
            found = results[task][key]
            assert math.isnan(found) or found < value - 10, f"{task} {key}: {found}"


@names
def test_reset_forgets_and_a_second_evaluation_is_equal(name: str, make: Callable[[str], Case]) -> None:
    case = make(name)
    first = run(case, case.truth)
    nothing = run(case, case.nothing)
    assert_same(first, run(case, case.truth))
    assert_same(nothing, run(case, case.nothing))


@names
def test_batches_do_not_matter(name: str, make: Callable[[str], Case]) -> None:
    case = make(name)
    half = [case.truth[0], case.nothing[1]]
    assert_same(run(case, half), run(case, half, at_once=True))


@names
def test_predictions_are_left_alone(name: str, make: Callable[[str], Case]) -> None:
    case = make(name)
    inputs, truth = copy.deepcopy(case.inputs), copy.deepcopy(case.truth)
    run(case, case.truth)
    assert_same(inputs, case.inputs)
    assert_same(truth, case.truth)
