"""A trainer that builds everything from a config."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from detectron2.checkpoint.detection_checkpoint import DetectionCheckpointer
from detectron2.config.config.node import CfgNode
from detectron2.data.build.class_ids import fill_class_counts
from detectron2.data.build.loaders import build_detection_test_loader, build_detection_train_loader
from detectron2.engine.defaults.evaluation import evaluate_test_sets
from detectron2.engine.defaults.evaluation_checks import check_test_sets
from detectron2.engine.defaults.run_notes import describe_run
from detectron2.engine.defaults.scaling import scale_to_processes
from detectron2.engine.defaults.setup import create_ddp_model, default_writers
from detectron2.engine.defaults.step_trainer import (
    PartOfStepTrainer,
    make_step_trainer,
    warn_of_random_frozen_norms,
)
from detectron2.engine.evaluators import build_evaluator
from detectron2.engine.hooks.checkpoints import PeriodicCheckpointer
from detectron2.engine.hooks.evaluation import EvalHook
from detectron2.engine.hooks.precise_bn import PreciseBN, find_training_batch_norms
from detectron2.engine.hooks.schedule import LRScheduler
from detectron2.engine.hooks.timing import IterationTimer
from detectron2.engine.hooks.writing import PeriodicWriter
from detectron2.engine.train_loop.base import HookBase, TrainerBase
from detectron2.engine.train_loop.simple_trainer import SimpleTrainer
from detectron2.evaluation.evaluator import DatasetEvaluator
from detectron2.evaluation.testing import verify_results
from detectron2.modeling.meta_arch.build import build_model
from detectron2.solver.build import build_lr_scheduler, build_optimizer
from detectron2.utils import comm
from detectron2.utils.env import setup_environment
from detectron2.utils.events.writers import EventWriter
from detectron2.utils.logger import DETAILS, setup_logger

__all__ = ["DefaultTrainer"]

logger = logging.getLogger(__name__)


class DefaultTrainer(TrainerBase):
    """Train as a config says: model, optimizer, data, schedule, checkpoints, evaluation and logs.

    A subclass usually overrides one of the `build_*` methods. The step itself is that of an inner
    `SimpleTrainer` or `AMPTrainer`, `self._trainer`. A subclass with another `__init__` calls that of
    `TrainerBase`, sets the attributes below that it needs, and registers its hooks; one without an inner
    trainer writes `run_step` itself.

    Attributes:
        cfg: the config, scaled to the number of processes.
        scheduler: the learning rate schedule.
        checkpointer: saves the model and this trainer.
        model, data_loader, optimizer: those of the inner trainer, where there is one; they may be replaced.

    Example:
        trainer = DefaultTrainer(cfg)
        trainer.resume_or_load()  # MODEL.WEIGHTS, or the last checkpoint
        trainer.train()
    """

    model = PartOfStepTrainer()
    data_loader = PartOfStepTrainer()
    optimizer = PartOfStepTrainer()
    _last_eval_results: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, cfg: CfgNode) -> None:
        """
        Args:
            cfg: the config of the run; it is not changed.
        """
        super().__init__()
        setup_environment()
        # Scripts that call no default_setup still want to see progress.
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        cfg = fill_class_counts(cfg)

        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        check_test_sets(cfg, has_own_evaluators=not _is_default(type(self).build_evaluator))
        # Frozen statistics do not change, and those of NaiveSyncBatchNorm are equal everywhere anyway.
        model = create_ddp_model(model, broadcast_buffers=False)
        self._trainer: TrainerBase = make_step_trainer(cfg, model, data_loader, optimizer)

        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = DetectionCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.checkpointer.notes = describe_run(cfg)
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    @staticmethod
    def auto_scale_workers(cfg: CfgNode, num_workers: int) -> CfgNode:
        """Fit a config that was written for `SOLVER.REFERENCE_WORLD_SIZE` processes to another number.

        Args:
            cfg: the config; one with `REFERENCE_WORLD_SIZE: 0` is returned as it is.
            num_workers: number of processes; images per process stay, and the batch, the learning rate and
                all lengths in iterations follow.

        Returns:
            A new config, with `REFERENCE_WORLD_SIZE` equal to `num_workers`.
        """
        return scale_to_processes(cfg, num_workers)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Make the model on its device, with random weights."""
        model = build_model(cfg)
        logger.info("Model:\n%s", model, extra=DETAILS)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """Make the optimizer."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        """Make the learning rate schedule."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[Any]:
        """Make the endless loader of training batches."""
        loader: Iterable[Any] = build_detection_train_loader(cfg)
        return loader

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[Any]:
        """Make the loader of one test set."""
        return build_detection_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """Make the evaluator of one test set, by default the one that its metadata names."""
        return build_evaluator(cfg, dataset_name)

    def build_hooks(self) -> list[HookBase | None]:
        """Make the hooks of a run, in the order in which they are called.

        The order has reasons: the timer comes first, to measure the step without the hooks; the schedule
        steps before a checkpoint stores it; PreciseBN changes what is saved and evaluated; the checkpoint is
        safe on disk before an evaluation that may fail; the writers come last and see what all others have
        put.
        """
        cfg = self.cfg
        return [
            IterationTimer(),
            LRScheduler(),
            self._build_precise_bn(),
            # Processes hold the same weights: one of them saves.
            PeriodicCheckpointer(
                self.checkpointer,
                cfg.SOLVER.CHECKPOINT_PERIOD,
                max_to_keep=cfg.SOLVER.CHECKPOINT_KEEP or None,
            )
            if comm.is_main_process()
            else None,
            EvalHook(cfg.TEST.EVAL_PERIOD, self._test_and_keep_results),
            PeriodicWriter(self.build_writers()) if comm.is_main_process() else None,
        ]

    def _build_precise_bn(self) -> HookBase | None:
        cfg = self.cfg
        if not cfg.TEST.PRECISE_BN.ENABLED or not find_training_batch_norms(self.model):
            return None
        cfg = cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0  # a second set of workers would idle for most of the run
        loader = self.build_train_loader(cfg)
        return PreciseBN(cfg.TEST.EVAL_PERIOD, self.model, loader, cfg.TEST.PRECISE_BN.NUM_ITER)

    def _test_and_keep_results(self) -> Mapping[str, Any]:
        self._last_eval_results = self.test(self.cfg, self.model)
        return self._last_eval_results

    def build_writers(self) -> list[EventWriter]:
        """Make the writers that publish metrics: those of `default_writers`."""
        return default_writers(self.cfg.OUTPUT_DIR, self.max_iter)

    def resume_or_load(self, resume: bool = True) -> None:
        """Load weights, and with `resume` continue the run whose last checkpoint lies in the output folder.

        Args:
            resume: whether to look for such a checkpoint. Without one, as with False, only the weights of
                `MODEL.WEIGHTS` are loaded, and training starts at iteration 0.
        """
        has_checkpoint = self.checkpointer.has_checkpoint()
        if resume and not has_checkpoint:
            logger.info("No checkpoint in %s to resume from: starting at iteration 0.", self.cfg.OUTPUT_DIR)
        elif has_checkpoint and not resume:
            logger.info(
                "There is a checkpoint of an earlier run in %s. This run starts anew; --resume would "
                "continue.",
                self.cfg.OUTPUT_DIR,
            )
        if not (self.cfg.MODEL.WEIGHTS or (resume and has_checkpoint)):
            warn_of_random_frozen_norms(self.cfg, self.model)
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resume and has_checkpoint:
            # The stored iteration was finished.
            self.start_iter = self.iter + 1

    def train(self) -> Mapping[str, Any]:  # type: ignore[override]  # the iterations are those of the config
        """Train up to `SOLVER.MAX_ITER`.

        Returns:
            The results of the last evaluation; empty where there was none, and in other processes than the
            main one.
        """
        self.train_loop(self.start_iter, self.max_iter)
        if self.cfg.TEST.EXPECTED_RESULTS and comm.is_main_process():
            verify_results(self.cfg, self._last_eval_results)
        return self._last_eval_results

    def train_loop(self, start_iter: int, max_iter: int) -> None:
        """Train from `start_iter` to before `max_iter`; programs with a loop of their own override it."""
        super().train(start_iter, max_iter)

    def _describe_empty_run(self) -> str:
        return (
            f"Nothing is trained: the checkpoint in {self.cfg.OUTPUT_DIR} has finished iteration "
            f"{self.start_iter - 1}, and SOLVER.MAX_ITER is {self.max_iter}. The model is evaluated as it "
            "is. Set SOLVER.MAX_ITER higher to train on, or leave out --resume (or change OUTPUT_DIR) to "
            "start anew."
        )

    def before_train(self) -> None:
        # Here and not in __init__: a subclass may have replaced the inner trainer, or have none.
        if "_trainer" in self.__dict__:
            self._trainer.outer = weakref.proxy(self)
        super().before_train()

    def run_step(self) -> None:
        if "_trainer" not in self.__dict__:  # the step of another base class of a subclass
            super().run_step()
            return
        self._trainer.iter = self.iter
        self._trainer.run_step()

    def after_train(self) -> None:
        try:
            inner = self.__dict__.get("_trainer")
            if isinstance(inner, SimpleTrainer):
                inner.flush_metrics()
        finally:
            super().after_train()

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
    ) -> Mapping[str, Any]:
        """Evaluate a model on all of `DATASETS.TEST`. All processes must call it.

        Args:
            cfg: the config.
            model: is put into evaluation mode, and back.
            evaluators: one per test set; None builds them by `build_evaluator`.

        Returns:
            Results by task; with several test sets, such a dict by the name of the set.
        """
        return evaluate_test_sets(cls, cfg, model, evaluators)

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        if "_trainer" in self.__dict__:
            state["_trainer"] = self._trainer.state_dict()
        elif "optimizer" in self.__dict__:
            state["optimizer"] = self.optimizer.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if "_trainer" in self.__dict__:
            self._trainer.load_state_dict(state_dict["_trainer"])
        elif "optimizer" in self.__dict__:
            self.optimizer.load_state_dict(state_dict["optimizer"])


def _is_default(build_evaluator: Callable[..., Any]) -> bool:
    """Whether a subclass has left `build_evaluator` as it is here."""
    function = getattr(build_evaluator, "__func__", None)
    return function is getattr(DefaultTrainer.build_evaluator, "__func__")  # noqa: B009  # mypy sees a function
