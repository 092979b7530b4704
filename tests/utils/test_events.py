"""The event storage and its writers."""

from __future__ import annotations

import json
import logging
import math
import statistics
import sys
from pathlib import Path

import pytest
import torch

from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
    has_event_storage,
)


def read_lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_current_storage_follows_nesting() -> None:
    assert not has_event_storage()
    with EventStorage() as outer:
        with EventStorage() as inner:
            assert get_event_storage() is inner
        assert get_event_storage() is outer
    assert not has_event_storage()


def test_storage_is_closed_when_its_block_raises() -> None:
    with pytest.raises(ZeroDivisionError), EventStorage():
        1 / 0  # noqa: B018
    assert not has_event_storage()


def test_get_outside_of_a_block_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="with EventStorage"):
        get_event_storage()


def test_scalars_belong_to_the_iteration_they_are_put_in() -> None:
    with EventStorage(start_iter=7) as storage:
        storage.put_scalar("loss", torch.tensor(2.0))
        storage.step()
        storage.put_scalars(loss=4, lr=0.5)
        storage.put_scalar("late", 1.0, cur_iter=7)
    assert storage.iter == storage.iteration == 8
    assert storage.latest() == {"loss": (4.0, 8), "lr": (0.5, 8), "late": (1.0, 7)}
    assert storage.history("loss").values() == [(2.0, 7), (4.0, 8)]


def test_name_scope_prefixes_and_ends_after_an_error() -> None:
    with EventStorage() as storage:
        with pytest.raises(KeyError), storage.name_scope("roi/"):
            storage.put_scalar("a", 1)
            raise KeyError
        storage.put_scalar("a", 2)
    assert set(storage.latest()) == {"roi/a", "a"}


def test_one_scalar_keeps_one_smoothing_hint() -> None:
    with EventStorage() as storage:
        storage.put_scalar("ap", 1.0, smoothing_hint=False)
        with pytest.raises(ValueError, match="smoothing_hint"):
            storage.put_scalar("ap", 1.0)
    assert storage.smoothing_hints() == {"ap": False}


def test_smoothing_is_a_median_over_the_window_of_iterations() -> None:
    values = [5.0, 1.0, 9.0, 2.0, 7.0, 3.0]
    with EventStorage() as storage:
        for value in values:
            storage.put_scalar("loss", value)
            storage.put_scalar("lr", value, smoothing_hint=False)
            storage.step()
    smoothed = storage.latest_with_smoothing_hint(window_size=3)
    assert smoothed == {"loss": (statistics.median(values[-3:]), 5), "lr": (3.0, 5)}


def test_samples_are_counted_by_iteration_and_not_by_number() -> None:
    with EventStorage() as storage:
        for iteration in (0, 10, 20, 30):
            storage.put_scalar("ap", 0.0, cur_iter=iteration)
        for _ in range(3):  # several values in one iteration
            storage.put_scalar("acc", 0.0, cur_iter=5)
    assert storage.count_samples("ap", window_size=20) == 2
    assert storage.count_samples("ap", window_size=100) == 4
    assert storage.count_samples("acc", window_size=1) == 3


def test_unknown_scalar_is_an_error_with_the_known_names() -> None:
    with EventStorage() as storage:
        storage.put_scalar("loss_cls", 1.0)
        with pytest.raises(KeyError, match="loss_cls"):
            storage.history("loss")


@pytest.mark.parametrize("values", [[1.0, 2.0, 2.0, 4.0], [3.0]])
def test_histogram_has_the_moments_and_counts_of_the_values(values: list[float]) -> None:
    with EventStorage(start_iter=3) as storage:
        storage.put_histogram("weights", torch.tensor(values), bins=3)
    (histogram,) = storage._histograms
    assert histogram["sum"] == pytest.approx(sum(values))
    assert histogram["sum_squares"] == pytest.approx(sum(v * v for v in values))
    assert (histogram["min"], histogram["max"], histogram["num"]) == (min(values), max(values), len(values))
    assert sum(histogram["bucket_counts"]) == len(values)
    assert len(histogram["bucket_limits"]) == 3
    assert histogram["global_step"] == 3
    storage.clear_histograms()
    assert storage._histograms == []


def test_json_writer_writes_one_line_per_iteration_and_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    writer = JSONWriter(str(path))
    with EventStorage() as storage:
        storage.put_scalar("lr", 0.5, smoothing_hint=False)
        writer.write()
        writer.write()
        storage.iter = 4
        storage.put_scalar("lr", 0.25, smoothing_hint=False)
        storage.put_scalar("loss", 3.0, cur_iter=3)
        storage.put_scalar("ap", math.nan, smoothing_hint=False)
        storage.put_scalar("gap", -math.inf, smoothing_hint=False)
        writer.write()
    writer.close()
    first, second, third = read_lines(path)
    assert first == {"iteration": 0, "lr": 0.5}
    assert second == {"iteration": 3, "loss": 3.0}
    assert third == {"iteration": 4, "lr": 0.25, "ap": None, "gap": None}
    assert "NaN" not in path.read_text() and "Infinity" not in path.read_text()


def test_metrics_of_an_earlier_run_are_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.json"
    for run in range(3):
        writer = JSONWriter(str(path))
        with EventStorage() as storage:
            for _ in range(2):
                storage.put_scalar("run", run)
                writer.write()
                storage.step()
        writer.close()
    runs = {file.name: [line["run"] for line in read_lines(file)] for file in tmp_path.iterdir()}
    assert runs == {"metrics_1.json": [0, 0], "metrics_2.json": [1, 1], "metrics.json": [2, 2]}
    assert "metrics_2.json" in caplog.messages[-1]


@pytest.mark.parametrize("left_behind", ["", '{"iteration": 1}\n', '{"iteration": 1}\n{"iterat'])
def test_json_writer_continues_the_file_of_a_killed_run(tmp_path: Path, left_behind: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(left_behind)
    writer = JSONWriter(str(path))
    with EventStorage(start_iter=2) as storage:
        storage.put_scalar("lr", 1.0, smoothing_hint=False)
        writer.write()
    writer.close()
    *before, last = path.read_text().splitlines()
    assert before == left_behind.splitlines()
    assert json.loads(last) == {"iteration": 2, "lr": 1.0}


def test_printer_shows_eta_losses_times_and_rate(caplog: pytest.LogCaptureFixture) -> None:
    printer = CommonMetricPrinter(max_iter=101)
    with caplog.at_level(logging.INFO), EventStorage() as storage:
        for _ in range(3):
            storage.put_scalars(total_loss=2.5, loss_cls=1.25, time=2.0, data_time=0.5)
            storage.put_scalar("lr", 0.001, smoothing_hint=False)
            storage.step()
        storage.iter = 10
        storage.put_scalar("[metric]accuracy", 0.125)
        storage.put_scalar("accuracy", 0.5)
        printer.write()
    line = caplog.messages[-1]
    assert line.startswith(
        " eta: 0:03:00  iter: 10  total_loss: 2.5  loss_cls: 1.25  [metric]accuracy: 0.125  "
    )
    # 101 - 10 - 1 iterations are left, 2 seconds each.
    for part in (
        "eta: 0:03:00",
        "iter: 10",
        "total_loss: 2.5",
        "loss_cls: 1.25",
        "time: 2.0000",
        "lr: 0.001",
    ):
        assert part in line
    assert storage.latest()["eta_seconds"] == (180.0, 10)


def test_printer_estimates_from_its_own_clock_without_a_timer(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([100.0, 130.0])
    monkeypatch.setattr("detectron2.utils.events.writers.time.perf_counter", lambda: next(seconds))
    printer = CommonMetricPrinter(max_iter=21)
    with caplog.at_level(logging.INFO), EventStorage() as storage:
        printer.write()
        storage.iter = 10
        printer.write()
    first, second = caplog.messages
    assert "eta" not in first
    assert "lr: N/A" in first
    assert "eta: 0:00:30" in second  # 3 s/it and 10 left


def test_printer_says_nothing_after_the_last_iteration(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), EventStorage(start_iter=5):
        CommonMetricPrinter(max_iter=5).write()
    assert not caplog.messages


def test_a_subclass_may_tell_the_time_left_itself(caplog: pytest.LogCaptureFixture) -> None:
    class Patient(CommonMetricPrinter):
        def _get_eta(self, storage: EventStorage) -> str | None:
            return f"after {storage.iter}"

    with caplog.at_level(logging.INFO), EventStorage(3):
        Patient(max_iter=5).write()
    assert caplog.messages[-1].startswith(" eta: after 3  iter: 3")


def test_tensorboard_writer_without_the_package_warns_once_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    writer = TensorboardXWriter(str(tmp_path))
    with EventStorage() as storage:
        for _ in range(2):
            storage.put_scalar("lr", 1.0)
            writer.write()
    writer.close()
    (message,) = caplog.messages
    assert "pip install tensorboard" in message
    assert list(tmp_path.iterdir()) == []


class FakeSummaryWriter:
    """Stands in for the class of torch.utils.tensorboard."""

    made: list[dict[str, object]] = []

    def __init__(self, log_dir: str, **kwargs: object) -> None:
        self.made.append(kwargs)
        self.calls: list[tuple[object, ...]] = []

    def add_scalar(self, *args: object) -> None:
        self.calls.append(args)

    def add_image(self, name: str, image: torch.Tensor, iteration: int) -> None:
        self.calls.append((name, tuple(image.shape), iteration))

    def add_histogram_raw(self, tag: str, **kwargs: object) -> None:
        self.calls.append((tag, kwargs["global_step"]))

    def close(self) -> None:
        self.calls.append(("close",))


def test_tensorboard_writer_writes_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = type(sys)("torch.utils.tensorboard")
    module.SummaryWriter = FakeSummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    TensorboardXWriter(str(tmp_path)).close()
    assert FakeSummaryWriter.made == []
    writer = TensorboardXWriter(str(tmp_path), comment="c")
    with EventStorage(start_iter=1) as storage:
        writer.write()
        assert FakeSummaryWriter.made == []
        storage.put_scalar("lr", 0.5, smoothing_hint=False)
        storage.put_image("scene", torch.zeros(3, 4, 5))
        storage.put_histogram("weights", torch.ones(2))
        writer.write()
        writer.write()
    writer.close()
    assert FakeSummaryWriter.made == [{"comment": "c"}]
    assert writer._writer.calls == [("lr", 0.5, 1), ("scene", (3, 4, 5), 1), ("weights", 1), ("close",)]


def test_tensorboard_file_appears_with_the_first_write(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="`make install` brings it")
    writer = TensorboardXWriter(str(tmp_path / "events"))
    with EventStorage() as storage:
        writer.write()
        assert not (tmp_path / "events").exists()
        storage.put_scalar("lr", 0.5)
        writer.write()
    writer.close()
    (file,) = (tmp_path / "events").iterdir()
    assert file.name.startswith("events.out.tfevents") and b"lr" in file.read_bytes()


def test_a_writer_must_implement_write() -> None:
    with pytest.raises(NotImplementedError, match="EventWriter"):
        EventWriter().write()
