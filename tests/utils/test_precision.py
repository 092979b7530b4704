"""The choice of precision."""

import pytest

from detectron2.utils import precision


@pytest.mark.parametrize(("bfloat16_seconds", "expected"), [(0.5, True), (1.0, False), (3.0, False)])
def test_the_faster_precision_wins(
    monkeypatch: pytest.MonkeyPatch, bfloat16_seconds: float, expected: bool
) -> None:
    def seconds(*_: object, bfloat16: bool) -> float:
        return bfloat16_seconds if bfloat16 else 1.0

    monkeypatch.setattr(precision, "_seconds_per_step", seconds)
    assert precision.prefers_bfloat16() is expected


def test_the_measurement_runs_here() -> None:
    assert precision.prefers_bfloat16() in (True, False)
