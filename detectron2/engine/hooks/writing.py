"""Publishing what the event storage holds."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

from detectron2.engine.train_loop.base import HookBase
from detectron2.utils.events.storage import get_event_storage
from detectron2.utils.events.writers import EventWriter
from detectron2.utils.user_errors import UserTypeError


class PeriodicWriter(HookBase):
    """Let writers publish the events of the storage every so many iterations, and at the end.

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

    def after_step(self) -> None:
        next_iter = self.trainer.iter + 1
        if next_iter % self._period == 0 or next_iter == self.trainer.max_iter:
            self._write()

    def _write(self) -> None:
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
