"""What each hook does, and when."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fvcore.common.checkpoint import Checkpointer
from fvcore.common.param_scheduler import LinearParamScheduler
from torch import nn

from detectron2.engine import HookBase, SimpleTrainer, TrainerBase, hooks
from detectron2.utils.events import EventWriter, JSONWriter, get_event_storage

from .tiny import EndlessBatches, TinyModel, make_optimizer, make_samples


class IdleTrainer(TrainerBase):
    """Runs empty steps; `fail_at` makes one fail."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.fail_at = fail_at

    def run_step(self) -> None:
        if self.iter == self.fail_at:
            raise ValueError("failed as asked")


def run(hook_list: list[HookBase], start: int, end: int, fail_at: int | None = None) -> IdleTrainer:
    trainer = IdleTrainer(fail_at)
    trainer.register_hooks(hook_list)  # type: ignore[arg-type]
    trainer.train(start, end)
    return trainer


class PutMetric(HookBase):
    """Puts a value per iteration, as an evaluation would."""

    def __init__(self, values: dict[int, float], name: str = "bbox/AP") -> None:
        self.values = values
        self.name = name

    def after_step(self) -> None:
        if self.trainer.iter in self.values:
            value = self.values[self.trainer.iter]
            get_event_storage().put_scalar(self.name, value, smoothing_hint=False)


class FakeCheckpointer:
    def __init__(self) -> None:
        self.saved: list[tuple[str, int]] = []

    def save(self, name: str, iteration: int) -> None:
        self.saved.append((name, iteration))


def test_callbacks_get_the_trainer() -> None:
    calls: list[tuple[str, int]] = []

    def note(point: str) -> Callable[[Any], None]:
        return lambda trainer: calls.append((point, trainer.iter))

    points = ("before_train", "after_train", "before_step", "after_step")
    run([hooks.CallbackHook(**{point: note(point) for point in points}), hooks.CallbackHook()], 0, 1)
    assert calls == [("before_train", 0), ("before_step", 0), ("after_step", 0), ("after_train", 1)]


def test_timer_leaves_out_warmup_and_later_hooks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [0.0]
    monkeypatch.setattr("detectron2.engine.hooks.timing.time.perf_counter", lambda: clock[0])

    class Advance(HookBase):
        """The step takes 2 seconds and the hooks behind the timer 60."""

        def before_step(self) -> None:
            clock[0] += 2

        def after_step(self) -> None:
            clock[0] += 60

    with caplog.at_level(logging.INFO):
        trainer = run([hooks.IterationTimer(warmup_iter=2), Advance()], 5, 8)
    assert trainer.storage.history("time").values() == [(2.0, 6), (2.0, 7)]
    assert "2 iterations took 0:00:04" in caplog.text
    assert "with hooks 0:03:04" in caplog.text  # 60 s after each of the three steps


def test_timer_says_nothing_about_a_run_shorter_than_its_warmup(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run([hooks.IterationTimer()], 0, 2)
    assert "iterations took" not in caplog.text


def test_a_line_a_second_shows_that_a_run_has_begun(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [100.0]
    monkeypatch.setattr("detectron2.engine.hooks.writing.time.perf_counter", lambda: clock[0])

    class Advance(HookBase):
        def after_step(self) -> None:
            clock[0] += 0.5

    with caplog.at_level(logging.INFO):
        run([Advance(), hooks.PeriodicWriter([], period=6)], 0, 20)
    lines = [message for message in caplog.messages if "first report" in message]
    assert lines == [
        "Step 2 is done; the first report follows step 6",
        "Step 4 is done; the first report follows step 6",
    ]


class RecordingWriter(EventWriter):
    def __init__(self) -> None:
        self.written: list[int] = []
        self.closed = False

    def write(self) -> None:
        self.written.append(get_event_storage().iter)

    def close(self) -> None:
        self.closed = True


def test_writers_write_periodically_in_the_last_iteration_and_after_training() -> None:
    writer = RecordingWriter()
    run([hooks.PeriodicWriter([writer], period=3)], 0, 7)
    assert writer.written == [2, 5, 6, 7]
    assert writer.closed


def test_writers_flush_when_training_fails(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    with pytest.raises(ValueError, match="failed as asked"):
        run([PutMetric({1: 5.0}), hooks.PeriodicWriter([JSONWriter(str(path))])], 0, 10, fail_at=3)
    assert json.loads(path.read_text()) == {"iteration": 1, "bbox/AP": 5.0}


def test_pictures_do_not_pile_up_without_a_writer_that_shows_them() -> None:
    class Draw(HookBase):
        def after_step(self) -> None:
            get_event_storage().put_image("scene", torch.zeros(3, 2, 2))

    trainer = run([Draw(), hooks.PeriodicWriter([RecordingWriter()], period=2)], 0, 3)
    assert trainer.storage._vis_data == []


def test_periodic_writer_wants_writers() -> None:
    with pytest.raises(TypeError, match="EventWriter"):
        hooks.PeriodicWriter(["metrics.json"])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        (2, ["model_0000001", "model_0000003", "model_final"]),
        (100, ["model_final"]),
        (0, ["model_final"]),
    ],
)
def test_checkpoints_are_saved_periodically_and_at_the_end(
    tmp_path: Path, period: int, expected: list[str]
) -> None:
    checkpointer = Checkpointer(nn.Linear(1, 1), str(tmp_path))
    run([hooks.PeriodicCheckpointer(checkpointer, period)], 0, 5)
    assert sorted(path.stem for path in tmp_path.glob("*.pth")) == expected


@pytest.mark.parametrize(
    ("mode", "expected"), [("max", [("model_best", 1), ("model_best", 5)]), ("min", [("model_best", 1)])]
)
def test_best_checkpoint_is_saved_when_the_metric_improves(mode: str, expected: list[Any]) -> None:
    checkpointer = FakeCheckpointer()
    metric = PutMetric({1: 10.0, 3: 10.0, 5: 30.0, 7: float("nan")})
    run([metric, hooks.BestCheckpointer(2, checkpointer, "bbox/AP", mode)], 0, 8)  # type: ignore[arg-type]
    assert checkpointer.saved == expected


def test_best_checkpoint_survives_a_restart() -> None:
    checkpointer = FakeCheckpointer()
    first = hooks.BestCheckpointer(1, checkpointer, "bbox/AP")  # type: ignore[arg-type]
    assert first.state_dict() == {}
    run([PutMetric({0: 50.0}), first], 0, 2)
    second = hooks.BestCheckpointer(1, checkpointer, "bbox/AP")  # type: ignore[arg-type]
    second.load_state_dict(first.state_dict())
    run([PutMetric({2: 40.0, 3: 60.0}), second], 2, 5)
    assert checkpointer.saved == [("model_best", 0), ("model_best", 3)]


def test_best_checkpoint_without_the_metric_warns(caplog: pytest.LogCaptureFixture) -> None:
    checkpointer = FakeCheckpointer()
    run([hooks.BestCheckpointer(0, checkpointer, "segm/AP")], 0, 2)  # type: ignore[arg-type]
    assert "segm/AP" in caplog.text
    assert checkpointer.saved == []
    with pytest.raises(ValueError, match="'max' or 'min'"):
        hooks.BestCheckpointer(0, checkpointer, "segm/AP", "best")  # type: ignore[arg-type]


class Update(HookBase):
    """Steps an optimizer before the schedule: torch warns about the other order."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def before_step(self) -> None:
        self.optimizer.step()


def test_schedule_writes_the_rate_of_the_step_and_goes_on() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=8.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    trainer = run([Update(optimizer), hooks.LRScheduler(optimizer, scheduler)], 0, 3)
    assert trainer.storage.history("lr").values() == [(8.0, 0), (4.0, 1), (2.0, 2)]


def test_schedule_given_as_a_function_of_progress() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=8.0)
    hook = hooks.LRScheduler(optimizer, LinearParamScheduler(1.0, 0.0))
    trainer = run([Update(optimizer), hook], 0, 4)
    assert [value for value, _ in trainer.storage.history("lr").values()] == [8.0, 6.0, 4.0, 2.0]


def test_schedule_state_restores_the_place() -> None:
    def build() -> hooks.LRScheduler:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=8.0)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        optimizer.step()
        return hooks.LRScheduler(optimizer, scheduler)

    first, second = build(), build()
    run([first], 0, 2)
    second.load_state_dict(first.state_dict())
    assert second.scheduler.last_epoch == 2


@pytest.mark.parametrize(
    ("group_sizes", "rates", "expected"),
    [((2, 5, 3), (1.0, 2.0, 3.0), 1), ((1, 1, 1, 1), (1.0, 2.0, 3.0, 2.0), 1), ((1,), (1.0,), 0)],
)
def test_the_rate_that_stands_for_all(
    group_sizes: tuple[int, ...], rates: tuple[float, ...], expected: int
) -> None:
    groups: list[dict[str, Any]] = [
        {"params": [nn.Parameter(torch.zeros(1)) for _ in range(size)], "lr": rate}
        for size, rate in zip(group_sizes, rates)
    ]
    assert hooks.LRScheduler.get_best_param_group_id(torch.optim.SGD(groups, lr=9.0)) == expected


@pytest.mark.parametrize(("after_train", "expected"), [(True, [1, 3, 6]), (False, [1, 3])])
def test_evaluation_is_periodic_and_last_once(after_train: bool, expected: list[int]) -> None:
    evaluated: list[int] = []
    trainer = IdleTrainer()

    def evaluate() -> dict[str, Any]:
        evaluated.append(trainer.iter)
        return {"bbox": {"AP": 10.0 + trainer.iter, "APs": float("nan")}, "count": torch.tensor(3)}

    trainer.register_hooks([hooks.EvalHook(2, evaluate, eval_after_train=after_train)])
    trainer.train(0, 6)
    assert evaluated == expected
    assert trainer.storage.latest()["bbox/AP"] == (10.0 + expected[-1], expected[-1])
    assert trainer.storage.latest()["count"][0] == 3.0


def test_evaluation_is_left_out_after_a_failure() -> None:
    evaluated: list[int] = []
    with pytest.raises(ValueError, match="failed as asked"):
        run([hooks.EvalHook(0, lambda: evaluated.append(1))], 0, 5, fail_at=2)  # type: ignore[func-returns-value]
    assert evaluated == []


@pytest.mark.parametrize("result", [{"bbox": {"AP": "good"}}, {"AP": [1, 2]}])
def test_evaluation_results_must_be_numbers(result: Any) -> None:
    with pytest.raises(ValueError, match="AP"):
        run([hooks.EvalHook(0, lambda: result)], 0, 1)


def test_evaluation_result_must_be_a_dict() -> None:
    with pytest.raises(TypeError, match="dict of numbers"):
        run([hooks.EvalHook(0, lambda: 3.5)], 0, 1)  # type: ignore[arg-type,return-value]


def test_hooks_behind_the_evaluation_see_its_results() -> None:
    checkpointer = FakeCheckpointer()
    run(
        [hooks.EvalHook(2, lambda: {"AP": 1.0}), hooks.BestCheckpointer(2, checkpointer, "AP")],  # type: ignore[arg-type]
        0,
        4,
    )
    assert checkpointer.saved == [("model_best", 1)]


class NormModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.frozen = nn.BatchNorm1d(2).eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        get_event_storage().put_scalar("forward_passes", 1)
        return self.norm(x)

    def train(self, mode: bool = True) -> NormModel:
        self.training = mode
        self.norm.train(mode)
        return self


def test_precise_bn_averages_moments_over_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(6, 2, generator=generator) * (i + 1) + i for i in range(4)]
    model = NormModel()

    def endless() -> Iterator[torch.Tensor]:
        while True:
            yield from batches

    hook = hooks.PreciseBN(0, model, endless(), num_iter=4)
    trainer = run([hook], 0, 1)
    means = torch.stack([batch.double().mean(0) for batch in batches])
    variances = torch.stack([batch.double().var(0) for batch in batches])
    expected_mean = means.mean(0)
    # Law of total variance: variance within batches and between their means.
    expected_var = variances.mean(0) + means.var(0, unbiased=False)
    torch.testing.assert_close(model.norm.running_mean, expected_mean.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.norm.running_var, expected_var.float(), rtol=1e-4, atol=1e-4)
    assert model.norm.momentum == 0.1
    assert torch.equal(model.frozen.running_mean, torch.zeros(2))  # type: ignore[arg-type]
    assert "forward_passes" not in trainer.storage.latest()


def test_precise_bn_runs_periodically_and_in_the_last_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    updates: list[int] = []
    hook = hooks.PreciseBN(2, NormModel(), [], num_iter=1)
    monkeypatch.setattr(hook, "update_stats", lambda: updates.append(hook.trainer.iter))
    run([hook], 0, 5)
    assert updates == [1, 3, 4]


def test_precise_bn_without_layers_does_nothing() -> None:
    run([hooks.PreciseBN(1, nn.Linear(1, 1), [], num_iter=1)], 0, 2)


@pytest.mark.parametrize("kind", ["torch", "autograd"])
def test_profilers_write_traces_of_the_picked_iterations(tmp_path: Path, kind: str) -> None:
    def picked(trainer: Any) -> bool:
        return trainer.iter == 1

    hook = (
        hooks.TorchProfiler(
            picked, str(tmp_path), activities=[torch.profiler.ProfilerActivity.CPU], save_tensorboard=False
        )
        if kind == "torch"
        else hooks.AutogradProfiler(picked, str(tmp_path), use_cuda=False)
    )
    model = TinyModel()
    trainer = SimpleTrainer(model, EndlessBatches(make_samples(4)), make_optimizer(model))
    trainer.register_hooks([hook])
    trainer.train(0, 3)
    (trace,) = tmp_path.glob("*.json")
    assert "iter1" in trace.name
    assert "aten::addmm" in trace.read_text()


def test_memory_stats_do_nothing_without_a_gpu(caplog: pytest.LogCaptureFixture) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    run([hooks.TorchMemoryStats(period=1)], 0, 2)
    assert "allocated" not in caplog.text


@pytest.mark.gpu
def test_memory_stats_are_logged_a_few_times(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run([hooks.TorchMemoryStats(period=1, max_runs=2)], 0, 5)
    assert sum("allocated" in message for message in caplog.messages) == 2
