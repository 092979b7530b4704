"""The loop, one step in float32 and in mixed precision, and what happens when training fails."""

from __future__ import annotations

import contextlib
import gc
import logging
import weakref
from typing import Any

import pytest
import torch
from torch import nn

from detectron2.engine import AMPTrainer, HookBase, SimpleTrainer, TrainerBase
from detectron2.utils.events import EventStorage

from .tiny import EndlessBatches, TinyModel, equal_weights, make_optimizer, make_samples, weights_of


class RecordingHook(HookBase):
    """Writes down when it is called."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name = name
        self.calls = calls

    def _record(self, point: str) -> None:
        self.calls.append(f"{self.name}.{point}@{self.trainer.iter}")

    def before_train(self) -> None:
        self._record("before_train")

    def after_train(self) -> None:
        self._record("after_train")

    def before_step(self) -> None:
        self._record("before_step")

    def after_backward(self) -> None:
        self._record("after_backward")

    def after_step(self) -> None:
        self._record("after_step")


def make_trainer(**kwargs: Any) -> SimpleTrainer:
    model = TinyModel()
    return SimpleTrainer(model, EndlessBatches(make_samples(8)), make_optimizer(model), **kwargs)


def test_hooks_are_called_in_the_order_of_registration() -> None:
    calls: list[str] = []
    trainer = make_trainer()
    trainer.register_hooks([RecordingHook("a", calls), None, RecordingHook("b", calls)])
    trainer.train(4, 6)
    points = ["before_step", "after_backward", "after_step"]
    steps = [f"{name}.{point}@{it}" for it in (4, 5) for point in points for name in "ab"]
    assert calls == ["a.before_train@4", "b.before_train@4", *steps, "a.after_train@6", "b.after_train@6"]


def test_a_hook_does_not_keep_its_trainer_alive() -> None:
    trainer = make_trainer()
    hook = HookBase()
    trainer.register_hooks([hook])
    alive = weakref.ref(trainer)
    del trainer
    gc.collect()
    assert alive() is None


def test_only_hooks_can_be_registered() -> None:
    with pytest.raises(TypeError, match="HookBase"):
        make_trainer().register_hooks([print])  # type: ignore[list-item]


def test_every_hook_ends_when_training_fails() -> None:
    calls: list[str] = []

    class FailsAtTheEnd(HookBase):
        def after_train(self) -> None:
            raise OSError("disk full")

    class Failing(TrainerBase):
        def run_step(self) -> None:
            if self.iter == 1:
                raise ValueError("no such step")

    trainer = Failing()
    trainer.register_hooks([RecordingHook("a", calls), FailsAtTheEnd(), RecordingHook("b", calls)])
    with pytest.raises(OSError, match="disk full") as info:
        trainer.train(0, 5)
    assert isinstance(info.value.__context__, ValueError)
    assert calls[-2:] == ["a.after_train@1", "b.after_train@1"]


def test_storage_follows_the_iteration() -> None:
    trainer = make_trainer()
    trainer.train(3, 6)
    assert trainer.storage.iter == 6
    assert [iteration for _, iteration in trainer.storage.history("total_loss").values()] == [3, 4, 5]


def test_empty_run_says_so(caplog: pytest.LogCaptureFixture) -> None:
    trainer = make_trainer()
    before = weights_of(trainer.model)
    with caplog.at_level(logging.WARNING):
        trainer.train(6, 6)
    assert "Nothing is trained" in caplog.text
    assert equal_weights(before, weights_of(trainer.model))
    assert trainer.iter == 6


@contextlib.contextmanager
def bfloat16_autocast() -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("zero_grad_before_forward", [False, True])
def test_five_steps_equal_a_loop_written_by_hand(mixed: bool, zero_grad_before_forward: bool) -> None:
    model, samples = TinyModel(), make_samples(6)
    optimizer = make_optimizer(model)
    expected_losses = []
    for step in range(5):
        batch = [samples[(2 * step + i) % 6] for i in range(2)]
        with bfloat16_autocast() if mixed else contextlib.nullcontext():
            losses = model(batch)
            total = losses["loss_fit"] + losses["loss_size"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        expected_losses.append(losses["loss_fit"].item())

    trained = TinyModel()
    options: dict[str, Any] = {"zero_grad_before_forward": zero_grad_before_forward}
    cls: type[SimpleTrainer] = SimpleTrainer
    if mixed:
        cls, options = AMPTrainer, {**options, "precision": torch.bfloat16}
    trainer = cls(trained, EndlessBatches(samples), make_optimizer(trained), **options)
    trainer.train(0, 5)
    assert equal_weights(weights_of(model), weights_of(trained))
    assert [value for value, _ in trainer.storage.history("loss_fit").values()] == expected_losses


def test_losses_are_written_with_their_sum() -> None:
    trainer = make_trainer()
    trainer.train(0, 3)
    latest = {name: value for name, (value, _) in trainer.storage.latest().items()}
    assert latest["total_loss"] == pytest.approx(latest["loss_fit"] + latest["loss_size"])
    assert latest["data_time"] >= 0


def test_losses_are_gathered_only_as_often_as_asked() -> None:
    trainer = make_trainer(gather_metric_period=3)
    trainer.train(0, 7)
    assert [iteration for _, iteration in trainer.storage.history("loss_fit").values()] == [2, 5]


def test_delayed_writing_gives_the_same_history() -> None:
    direct, delayed = make_trainer(), make_trainer(async_write_metrics=True)
    direct.train(0, 4)
    delayed.train(0, 4)
    assert direct.storage.history("loss_fit").values() == delayed.storage.history("loss_fit").values()


class SingleLoss(TinyModel):
    def forward(self, batch: Any) -> Any:
        return sum(super().forward(batch).values())


def test_a_model_may_return_one_loss() -> None:
    model = SingleLoss()
    trainer = SimpleTrainer(model, EndlessBatches(make_samples(4)), make_optimizer(model))
    trainer.train(0, 2)
    assert set(trainer.storage.latest()) == {"total_loss", "data_time", "rank_data_time"}


@pytest.mark.parametrize("output", [{}, [], None])
def test_a_model_without_losses_is_an_error(output: Any) -> None:
    class NoLoss(TinyModel):
        def forward(self, batch: Any) -> Any:
            return output

    model = NoLoss()
    trainer = SimpleTrainer(model, EndlessBatches(make_samples(4)), make_optimizer(model))
    with pytest.raises(TypeError, match="at least one scalar loss"):
        trainer.train(0, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_loss_names_term_iteration_and_images_and_spares_the_weights(value: float) -> None:
    model, samples = TinyModel(), make_samples(8)
    samples[5] = {**samples[5], "y": torch.tensor(value)}
    trainer = SimpleTrainer(model, EndlessBatches(samples), make_optimizer(model))
    seen: list[Any] = []

    class Watch(HookBase):
        def before_step(self) -> None:
            seen[:] = weights_of(model)

    trainer.register_hooks([Watch()])
    with pytest.raises(FloatingPointError, match=r"iteration 2.*loss_fit = (nan|inf).*: 4, 5\."):
        trainer.train(0, 5)
    assert equal_weights(seen, weights_of(model))


def test_delayed_writing_still_finds_a_non_finite_loss_in_the_last_iteration() -> None:
    samples = make_samples(4)
    samples[3] = {**samples[3], "y": torch.tensor(float("nan"))}
    model = TinyModel()
    trainer = SimpleTrainer(model, EndlessBatches(samples), make_optimizer(model), async_write_metrics=True)
    with pytest.raises(FloatingPointError, match="iteration 1"):
        trainer.train(0, 2)


def test_a_loader_that_ends_is_an_error_with_a_sentence() -> None:
    model = TinyModel()
    trainer = SimpleTrainer(model, [make_samples(2)], make_optimizer(model))
    with pytest.raises(RuntimeError, match="ended in iteration 1"):
        trainer.train(0, 2)


def test_evaluation_mode_in_training_is_an_error() -> None:
    trainer = make_trainer()
    trainer.model.eval()
    with pytest.raises(RuntimeError, match=r"model.train\(\)"):
        trainer.train(0, 1)


def test_data_loader_can_be_replaced() -> None:
    trainer = make_trainer()
    trainer.train(0, 1)
    trainer.reset_data_loader(lambda: EndlessBatches(make_samples(2, seed=9)))
    batch, _ = trainer._next_batch()
    assert torch.equal(batch[0]["x"], make_samples(2, seed=9)[0]["x"])


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_state_continues_a_run_bitwise(precision: torch.dtype | None) -> None:
    samples = make_samples(10)

    def build(start: int) -> SimpleTrainer:
        model = TinyModel()
        data, optimizer = EndlessBatches(samples, start=start), make_optimizer(model)
        if precision is None:
            return SimpleTrainer(model, data, optimizer)
        return AMPTrainer(model, data, optimizer, precision=precision)

    whole = build(0)
    whole.train(0, 6)

    first, second = build(0), build(4)
    first.train(0, 4)
    first.iter = 3  # what a checkpoint in the last iteration sees
    second.load_state_dict(first.state_dict())
    second.model.load_state_dict(first.model.state_dict())
    second.train(second.iter + 1, 6)
    assert equal_weights(weights_of(whole.model), weights_of(second.model))


def test_hook_state_is_kept_by_class_name(caplog: pytest.LogCaptureFixture) -> None:
    class Counter(HookBase):
        count = 0

        def after_step(self) -> None:
            self.count += 1

        def state_dict(self) -> dict[str, Any]:
            return {"count": self.count}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.count = state["count"]

    trainer = make_trainer()
    trainer.register_hooks([Counter(), RecordingHook("stateless", [])])
    trainer.train(0, 3)
    state = trainer.state_dict()
    assert state["hooks"] == {Counter.__qualname__: {"count": 3}}

    continued, counter = make_trainer(), Counter()
    continued.register_hooks([counter])
    continued.load_state_dict(state)
    assert counter.count == 3
    with caplog.at_level(logging.WARNING):
        make_trainer().load_state_dict(state)
    assert "Counter" in caplog.text


class KnowsItsPrecision(TinyModel):
    seen: torch.dtype | None = None

    def forward(self, batch: Any) -> Any:
        self.seen = self.linear(torch.stack([sample["x"] for sample in batch])).dtype
        return super().forward(batch)


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_weights() -> None:
    model = KnowsItsPrecision()
    trainer = AMPTrainer(
        model,
        EndlessBatches(make_samples(4)),
        make_optimizer(model),
        precision=torch.bfloat16,
        log_grad_scaler=True,
    )
    trainer.train(0, 2)
    assert model.seen == torch.bfloat16
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert trainer.storage.latest()["[metric]grad_scaler"] == (1.0, 1)


def test_float16_on_the_cpu_says_what_to_use() -> None:
    model = TinyModel()
    with pytest.raises(ValueError, match="bfloat16"):
        AMPTrainer(model, EndlessBatches(make_samples(4)), make_optimizer(model))


def test_mixed_precision_refuses_other_types_and_several_devices_per_process() -> None:
    model = TinyModel()
    with pytest.raises(ValueError, match="precision"):
        AMPTrainer(model, [], make_optimizer(model), precision=torch.float64)
    with pytest.raises(ValueError, match="one process per device"):
        AMPTrainer(nn.DataParallel(model), [], make_optimizer(model), precision=torch.bfloat16)


@pytest.mark.gpu
def test_float16_scales_and_saves_the_scale() -> None:
    model = TinyModel().cuda()
    samples = [{name: torch.as_tensor(value).cuda() for name, value in s.items()} for s in make_samples(4)]
    trainer = AMPTrainer(model, EndlessBatches(samples), make_optimizer(model))
    trainer.train(0, 3)
    assert trainer.state_dict()["grad_scaler"]["scale"] > 1
    trainer.load_state_dict(trainer.state_dict())


def test_write_metrics_can_be_called_by_other_loops() -> None:
    with EventStorage(start_iter=5) as storage:
        SimpleTrainer.write_metrics(
            {"loss_a": torch.tensor(1.0), "loss_b": torch.tensor([2.0])}, 0.5, 4, "val_"
        )
    assert storage.latest() == {
        "rank_data_time": (0.5, 4),
        "data_time": (0.5, 4),
        "val_total_loss": (3.0, 4),
        "loss_a": (1.0, 4),
        "loss_b": (2.0, 4),
    }
