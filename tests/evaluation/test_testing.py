"""Printing and verifying results."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from detectron2.evaluation import print_csv_format, verify_results
from detectron2.evaluation.testing import flatten_results_dict


def _cfg(expected: list[Any]) -> Any:
    return SimpleNamespace(TEST=SimpleNamespace(EXPECTED_RESULTS=expected))


def test_main_metrics_are_logged_as_csv(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    print_csv_format({"bbox": {"AP": 12.34567, "AP50": float("nan"), "AP-cat": 1.0}, "speed": 3})
    assert [record.getMessage() for record in caplog.records] == [
        "copypaste: Task: bbox",
        "copypaste: AP,AP50",
        "copypaste: 12.3457,nan",
        "copypaste: speed=3",
    ]


def test_results_within_tolerance_pass() -> None:
    assert verify_results(_cfg([]), {})
    assert verify_results(_cfg([["bbox", "AP", 38.5, 0.2]]), {"bbox": {"AP": 38.35}})


@pytest.mark.parametrize(
    "results", [{}, {"bbox": {"AP50": 1.0}}, {"bbox": {"AP": 38.0}}, {"bbox": {"AP": float("nan")}}]
)
def test_results_out_of_tolerance_end_the_program(results: Any, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit) as error:
        verify_results(_cfg([["bbox", "AP", 38.5, 0.2]]), results)
    assert error.value.code == 1
    assert "bbox/AP" in caplog.text


def test_nested_results_become_flat() -> None:
    assert flatten_results_dict({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a/b": 1, "a/c/d": 2, "e": 3}
    assert flatten_results_dict({}) == {}
