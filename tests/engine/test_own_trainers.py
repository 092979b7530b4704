"""Trainers as projects write them: another `__init__`, another loop, parts that are exchanged."""

from __future__ import annotations

import json
import os
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, DefaultTrainer, SimpleTrainer, TrainerBase, hooks
from detectron2.utils.events import EventStorage

from .tiny import EndlessBatches, TinyModel, equal_weights, make_optimizer, make_samples, weights_of
from .tiny_run import TinyTrainer
from .tiny_run import tiny_cfg as tiny_cfg  # a fixture


class WithInnerTrainer(TinyTrainer):
    """Skips `DefaultTrainer.__init__`, and makes the inner trainer itself."""

    def __init__(self, cfg: CfgNode) -> None:
        TrainerBase.__init__(self)
        self.cfg = DefaultTrainer.auto_scale_workers(cfg, 1)
        torch.manual_seed(0)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        kind = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = kind(model, self.build_train_loader(cfg), optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = DetectionCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())


class WithFieldsOfItsOwn(TinyTrainer):
    """Has no inner trainer: model, optimizer and step are its own, and so is the loop."""

    def __init__(self, cfg: CfgNode) -> None:
        TrainerBase.__init__(self)
        self.cfg = cfg
        torch.manual_seed(0)
        self.model = self.build_model(cfg)
        self.optimizer = self.build_optimizer(cfg, self.model)
        self.data_loader = self.build_train_loader(cfg)
        self._batches = iter(self.data_loader)
        self.scheduler = self.build_lr_scheduler(cfg, self.optimizer)
        self.checkpointer = DetectionCheckpointer(self.model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())

    def run_step(self) -> None:
        loss = sum(self.model(next(self._batches)).values())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class WithTheStepOfABase(TinyTrainer, SimpleTrainer):
    """Is a `SimpleTrainer` itself."""

    def __init__(self, cfg: CfgNode) -> None:
        torch.manual_seed(0)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        SimpleTrainer.__init__(self, model, self.build_train_loader(cfg), optimizer)
        self.cfg = cfg
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = DetectionCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())


class WithALoopOfItsOwn(WithFieldsOfItsOwn):
    def train(self) -> None:  # type: ignore[override]  # as projects write it
        self.train_loop(self.start_iter, self.max_iter)

    def train_loop(self, start_iter: int, max_iter: int) -> None:
        self.iter = self.start_iter = start_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                for self.iter in range(start_iter, max_iter):
                    self.before_step()
                    self.run_step()
                    self.after_step()
            finally:
                self.after_train()


@pytest.mark.parametrize("cls", [WithInnerTrainer, WithFieldsOfItsOwn, WithTheStepOfABase, WithALoopOfItsOwn])
def test_a_trainer_with_its_own_init_trains_evaluates_and_resumes(
    tiny_cfg: CfgNode, cls: type[TinyTrainer]
) -> None:
    cls.fixed_order = True
    usual = WithInnerTrainer(tiny_cfg)
    usual.train()

    whole = cls(tiny_cfg)
    whole.resume_or_load(resume=False)
    whole.train()
    assert equal_weights(weights_of(whole.model), weights_of(usual.model))
    assert whole.storage.latest()["number/count"][0] == 6
    first, *_ = Path(tiny_cfg.OUTPUT_DIR, "metrics.json").read_text().splitlines()
    assert {"lr", "time"} <= set(json.loads(first))

    Path(tiny_cfg.OUTPUT_DIR, "last_checkpoint").write_text("model_0000002.pth")
    cls.first_batch = 3
    try:
        resumed = cls(tiny_cfg)
        resumed.resume_or_load(resume=True)
        assert resumed.start_iter == 3
        resumed.train()
    finally:
        cls.first_batch = 0
    assert equal_weights(weights_of(whole.model), weights_of(resumed.model))


def test_a_trainer_without_evaluation_returns_no_results(tiny_cfg: CfgNode) -> None:
    class Silent(WithInnerTrainer):
        def build_hooks(self) -> list[Any]:
            return [hooks.IterationTimer()]

    assert Silent(tiny_cfg).train() == {}


def test_parts_of_a_trainer_can_be_exchanged(tiny_cfg: CfgNode) -> None:
    trainer = TinyTrainer(tiny_cfg)
    model = TinyModel()
    trainer.model, trainer.optimizer = model, make_optimizer(model)
    trainer.data_loader = EndlessBatches(make_samples(4))
    assert trainer._trainer.model is trainer.model is model
    assert trainer._trainer.optimizer is trainer.optimizer
    with EventStorage():
        trainer.run_step()
        trainer.data_loader = EndlessBatches([{**sample, "image_id": 99} for sample in make_samples(4)])
        trainer.run_step()
    assert trainer._trainer._image_names == ["99", "99"]  # batches of the new loader, at once


def test_a_part_that_was_never_set_is_an_attribute_error(tiny_cfg: CfgNode) -> None:
    class Bare(DefaultTrainer):
        def __init__(self) -> None:
            TrainerBase.__init__(self)

    assert not hasattr(Bare(), "model")
    with pytest.raises(AttributeError, match="Bare has no optimizer"):
        Bare().optimizer  # noqa: B018


def checkpoints_in(folder: str) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.endswith(".pth"))


def test_old_checkpoints_are_removed_those_of_before_resuming_too(tiny_cfg: CfgNode) -> None:
    tiny_cfg.SOLVER.CHECKPOINT_PERIOD, tiny_cfg.SOLVER.CHECKPOINT_KEEP = 1, 4
    TinyTrainer(tiny_cfg).train()
    kept = [f"model_000000{i}.pth" for i in (2, 3, 4, 5)]
    assert checkpoints_in(tiny_cfg.OUTPUT_DIR) == [*kept, "model_final.pth"]

    tiny_cfg.SOLVER.MAX_ITER, tiny_cfg.SOLVER.CHECKPOINT_KEEP = 8, 2
    resumed = TinyTrainer(tiny_cfg)
    resumed.resume_or_load(resume=True)
    resumed.train()
    kept = ["model_0000006.pth", "model_0000007.pth"]
    assert checkpoints_in(tiny_cfg.OUTPUT_DIR) == [*kept, "model_final.pth"]


def test_all_checkpoints_are_kept_where_nothing_is_said(tiny_cfg: CfgNode) -> None:
    tiny_cfg.SOLVER.CHECKPOINT_PERIOD = 1
    TinyTrainer(tiny_cfg).train()
    assert len(checkpoints_in(tiny_cfg.OUTPUT_DIR)) == 7
    tiny_cfg.SOLVER.CHECKPOINT_KEEP = -1
    with pytest.raises(ValueError, match="max_to_keep must be 1 or more.* -1"):
        TinyTrainer(tiny_cfg)


def test_an_evaluation_of_a_subclass_is_used() -> None:
    class Counts(hooks.EvalHook):
        count = 0

        def _do_eval(self) -> None:
            self.count += 1

    hook = Counts(1, lambda: {})
    trainer = SimpleTrainer(TinyModel(), EndlessBatches(make_samples(4)), make_optimizer(TinyModel()))
    trainer.register_hooks([hook])
    trainer.train(0, 3)
    assert hook.count == 3
