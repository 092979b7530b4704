"""Publishing what the event storage holds."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from contextlib import ExitStack

from detectron2.engine.train_loop.base import HookBase
from detectron2.utils.events.storage import get_event_storage
from detectron2.utils.events.writers import EventWriter
from detectron2.utils.user_errors import UserTypeError

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 1.0


class PeriodicWriter(HookBase):
    """Let writers publish the events of the storage every so many iterations, and at the end.

    Until the first time it logs how far the run is, once a second at most.

    Register it last, so that what other hooks put into the storage in an iteration is written in that
    iteration.
    """

    def __init__(self, writers: Iterable[EventWriter], period: int = 20) -> None:
        """
        Args:
            writers: called in this order.
            period: iterations between two calls.
        """
        self._writers = list(writers)
        for writer in self._writers:
            if not isinstance(writer, EventWriter):
                raise UserTypeError(f"PeriodicWriter needs EventWriter objects, got {type(writer).__name__}")
        self._period = period
        self._has_written = False
        self._last_line = 0.0

    def before_train(self) -> None:
        self._last_line = time.perf_counter()

    def after_step(self) -> None:
        next_iter = self.trainer.iter + 1
        if next_iter % self._period == 0 or next_iter == self.trainer.max_iter:
            self._write()
        elif not self._has_written:
            self._show_that_it_runs(next_iter)

    def _show_that_it_runs(self, next_iter: int) -> None:
        now = time.perf_counter()
        if now - self._last_line < _SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        report = min(next_iter + self._period - next_iter % self._period, self.trainer.max_iter)
        logger.info("Step %d is done; the first report follows step %d", next_iter, report)

    def _write(self) -> None:
        self._has_written = True
        for writer in self._writers:
            writer.write()
        # Every writer has seen them now. Without this they would pile up where no writer shows pictures.
        storage = get_event_storage()
        storage.clear_images()
        storage.clear_histograms()

    def after_train(self) -> None:
        with ExitStack() as stack:
            for writer in self._writers:
                stack.callback(writer.close)
            # Hooks before this one, such as the last evaluation, may have added something.
            self._write()
