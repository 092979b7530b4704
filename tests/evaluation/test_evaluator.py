"""The evaluation loop."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn

from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, inference_context, inference_on_dataset


class _Recorder(DatasetEvaluator):
    def __init__(self, task: str = "task") -> None:
        self.task = task
        self.calls: list[Any] = []

    def reset(self) -> None:
        self.calls = ["reset"]

    def process(self, inputs: Any, outputs: Any) -> None:
        self.calls.append((inputs, outputs))

    def evaluate(self) -> dict[str, Any]:
        return {self.task: {"count": len(self.calls) - 1}}


def _double(batch: list[int]) -> list[int]:
    return [2 * value for value in batch]


def test_every_batch_reaches_every_evaluator_in_order() -> None:
    first, second = _Recorder("a"), _Recorder("b")
    results = inference_on_dataset(_double, [[1, 2], [3]], [first, second])
    assert first.calls == second.calls == ["reset", ([1, 2], [2, 4]), ([3], [6])]
    assert results == {"a": {"count": 2}, "b": {"count": 2}}


def test_loader_without_length_and_without_evaluator() -> None:
    assert inference_on_dataset(_double, iter([[1]]), None) == {}


def test_empty_loader_is_evaluated_and_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    assert inference_on_dataset(_double, [], _Recorder()) == {"task": {"count": 0}}
    assert "no batch" in caplog.text


def test_callbacks_come_around_every_batch() -> None:
    stages: list[str] = []
    names = ("on_start", "before_inference", "after_inference", "on_end")
    callbacks = {name: lambda name=name: stages.append(name) for name in names}
    inference_on_dataset(_double, [[1], [2]], None, callbacks)
    assert stages == ["on_start", *("before_inference", "after_inference") * 2, "on_end"]


def test_speed_is_logged_by_stage(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    inference_on_dataset(_double, [[1]] * 8, _Recorder())
    assert "Data loading:" in caplog.text and "Eval:" in caplog.text and "ETA=" in caplog.text


def test_modes_of_a_model_come_back_one_by_one_also_after_an_error() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Linear(2, 2)))
    model[1].eval()
    with pytest.raises(KeyError), inference_context(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == [True, True, False, False]


def test_model_runs_without_gradients() -> None:
    model = nn.Linear(2, 2)
    seen: list[bool] = []
    model.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    inference_on_dataset(model, [torch.zeros(1, 2)], None)
    assert seen == [False] and model.training


def test_two_evaluators_of_one_task_are_refused() -> None:
    evaluators = DatasetEvaluators([_Recorder(), _Recorder()])
    evaluators.reset()
    with pytest.raises(ValueError, match="same task"):
        evaluators.evaluate()
