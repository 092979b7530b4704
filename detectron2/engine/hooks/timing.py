"""How long iterations take."""

from __future__ import annotations

import datetime
import logging
import time

from detectron2.engine.train_loop.base import HookBase
from detectron2.utils.events.storage import get_event_storage

logger = logging.getLogger(__name__)


class IterationTimer(HookBase):
    """Write the seconds of every iteration as scalar "time", and log a summary at the end.

    Register it first: an iteration is measured from its `before_step` to its `after_step`, so what later
    hooks do after the step is not counted into it, and the summary can tell how much time went into hooks.
    """

    def __init__(self, warmup_iter: int = 3) -> None:
        """
        Args:
            warmup_iter: the iteration, counted from 1, that is the first to be timed: workers start and
                kernels are chosen before.
        """
        self._warmup_iter = warmup_iter
        self._train_start = time.perf_counter()
        self._step_start: float | None = None
        self._seconds_in_steps = 0.0
        self._num_timed = 0

    def before_train(self) -> None:
        self._train_start = time.perf_counter()
        self._seconds_in_steps = 0.0
        self._num_timed = 0

    def before_step(self) -> None:
        self._step_start = time.perf_counter()

    def after_step(self) -> None:
        assert self._step_start is not None, "after_step without before_step"
        now = time.perf_counter()
        if self.trainer.iter - self.trainer.start_iter + 1 < self._warmup_iter:
            self._train_start = now
            return
        seconds = now - self._step_start
        self._seconds_in_steps += seconds
        self._num_timed += 1
        get_event_storage().put_scalar("time", seconds)

    def after_train(self) -> None:
        if not self._num_timed:
            return
        total = time.perf_counter() - self._train_start
        logger.info(
            "%d iterations took %s, %.4f s each; with hooks %s, of which hooks %s.",
            self._num_timed,
            _duration(self._seconds_in_steps),
            self._seconds_in_steps / self._num_timed,
            _duration(total),
            _duration(total - self._seconds_in_steps),
        )


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=int(seconds)))
