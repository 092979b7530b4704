"""Saving checkpoints: from time to time, and the best."""

from __future__ import annotations

import logging
import math
import operator
import os
import re
from collections.abc import Mapping
from typing import Any

from fvcore.common.checkpoint import Checkpointer
from fvcore.common.checkpoint import PeriodicCheckpointer as _PeriodicCheckpointer

from detectron2.engine.train_loop.base import HookBase
from detectron2.utils.user_errors import UserValueError

logger = logging.getLogger(__name__)


class PeriodicCheckpointer(_PeriodicCheckpointer, HookBase):  # type: ignore[misc]  # fvcore has no types
    """Save `model_0004999` and so on every `period` iterations, and `model_final` at the end.

    Register it behind the hooks whose state it saves, the learning rate schedule above all. It takes the
    arguments of fvcore's class (`checkpointer`, `period`, `max_iter`, `max_to_keep`, `file_prefix`); a period
    of 0 saves at the end only. With `max_to_keep` older files go, those from before a run was resumed too;
    `model_final` stays.
    """

    checkpointer: Checkpointer
    path_manager: Any
    period: int
    file_prefix: str
    max_to_keep: int | None
    recent_checkpoints: list[str]

    def __init__(
        self,
        checkpointer: Checkpointer,
        period: int,
        max_iter: int | None = None,
        max_to_keep: int | None = None,
        file_prefix: str = "model",
    ) -> None:
        if max_to_keep is not None and max_to_keep < 1:
            raise UserValueError(f"max_to_keep must be 1 or more, or None for all, got {max_to_keep}")
        super().__init__(checkpointer, period, max_iter, max_to_keep, file_prefix)

    def before_train(self) -> None:
        self.max_iter = self.trainer.max_iter
        if self.period < 1:
            self.period = self.max_iter + 1
        if self.max_to_keep and self.trainer.start_iter > 0 and os.path.isdir(self.checkpointer.save_dir):
            self.recent_checkpoints = self._find_earlier() + self.recent_checkpoints

    def _find_earlier(self) -> list[str]:
        """The checkpoints that the resumed run has written before, oldest first."""
        name = re.compile(re.escape(self.file_prefix) + r"_(\d{7,})\.pth")
        numbers = {}
        for path in self.checkpointer.get_all_checkpoint_files():
            found = name.fullmatch(os.path.basename(path))
            if found and int(found[1]) < self.trainer.start_iter and path not in self.recent_checkpoints:
                numbers[path] = int(found[1])
        return sorted(numbers, key=numbers.__getitem__)

    def after_step(self) -> None:
        self.step(self.trainer.iter)
        # `step` removes one file for one that it writes; a run may be resumed with a smaller number.
        while self.max_to_keep and len(self.recent_checkpoints) > self.max_to_keep:
            path = self.recent_checkpoints.pop(0)
            if self.path_manager.isfile(path):
                self.path_manager.rm(path)


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
