"""Saving checkpoints: from time to time, and the best."""

from __future__ import annotations

import logging
import math
import operator
from collections.abc import Mapping
from typing import Any

from fvcore.common.checkpoint import Checkpointer

from detectron2.checkpoint.periodic import PeriodicCheckpointer as _PeriodicCheckpointer
from detectron2.engine.train_loop.base import HookBase
from detectron2.utils.user_errors import UserValueError

logger = logging.getLogger(__name__)


class PeriodicCheckpointer(_PeriodicCheckpointer, HookBase):
    """`detectron2.checkpoint.PeriodicCheckpointer` as a hook, with the `max_iter` of the trainer.

    Register it behind the hooks whose state it saves, the learning rate schedule above all.
    """

    def before_train(self) -> None:
        self.max_iter = self.trainer.max_iter
        self.adopt_earlier(self.trainer.start_iter)

    def after_step(self) -> None:
        self.step(self.trainer.iter)


class BestCheckpointer(HookBase):
    """Save a checkpoint whenever an evaluation metric is better than ever before.

    Register it behind the hook that puts the metric into the storage, usually `EvalHook`.
    """

    def __init__(
        self,
        eval_period: int,
        checkpointer: Checkpointer,
        val_metric: str,
        mode: str = "max",
        file_prefix: str = "model_best",
    ) -> None:
        """
        Args:
            eval_period: the period of the evaluation, in iterations; 0 looks at the end only.
            checkpointer: saves the checkpoint.
            val_metric: name of the metric in the storage, e.g. "bbox/AP50".
            mode: "max" where larger is better, "min" where smaller is.
            file_prefix: name of the checkpoint without suffix.
        """
        if mode not in ("max", "min"):
            raise UserValueError(f"mode must be 'max' or 'min', got {mode!r}")
        self._period = eval_period
        self._checkpointer = checkpointer
        self._val_metric = val_metric
        self._is_better = operator.gt if mode == "max" else operator.lt
        self._file_prefix = file_prefix
        self.best_metric: float | None = None
        self.best_iter: int | None = None

    def after_step(self) -> None:
        next_iter = self.trainer.iter + 1
        # The last iteration is evaluated after training, see EvalHook.
        if self._period > 0 and next_iter % self._period == 0 and next_iter != self.trainer.max_iter:
            self._save_if_best()

    def after_train(self) -> None:
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            self._save_if_best()

    def _save_if_best(self) -> None:
        latest = self.trainer.storage.latest().get(self._val_metric)
        if latest is None:
            logger.warning(
                "BestCheckpointer finds no metric %r in the storage and saves nothing. The evaluation must "
                "run before it, with the same period, and give that metric.",
                self._val_metric,
            )
            return
        metric, iteration = latest
        if iteration == self.best_iter or not math.isfinite(metric):
            return
        if self.best_metric is not None and not self._is_better(metric, self.best_metric):
            logger.info(
                "%s is %.5f; the best checkpoint stays the one of iteration %s with %.5f.",
                self._val_metric,
                metric,
                self.best_iter,
                self.best_metric,
            )
            return
        # Before saving, so that the checkpoint knows that it is the best one.
        self.best_metric, self.best_iter = metric, iteration
        self._checkpointer.save(self._file_prefix, iteration=iteration)
        logger.info("%s is %.5f, the best so far: saved %s.", self._val_metric, metric, self._file_prefix)

    def state_dict(self) -> dict[str, Any]:
        if self.best_metric is None:
            return {}
        return {"best_metric": self.best_metric, "best_iter": self.best_iter}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Remember the best metric of the run that is continued."""
        self.best_metric = state_dict["best_metric"]
        self.best_iter = state_dict["best_iter"]
