"""A hook made of plain functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.engine.train_loop.base import HookBase

Callback = Callable[[Any], Any]


class CallbackHook(HookBase):
    """Call functions at the points of the training loop; each is given the trainer."""

    def __init__(
        self,
        *,
        before_train: Callback | None = None,
        after_train: Callback | None = None,
        before_step: Callback | None = None,
        after_step: Callback | None = None,
    ) -> None:
        """
        Args:
            before_train: called before the first iteration.
            after_train: called after the last one.
            before_step: called before every iteration.
            after_step: called after every iteration.
        """
        self._callbacks: dict[str, Callback | None] = {
            "before_train": before_train,
            "after_train": after_train,
            "before_step": before_step,
            "after_step": after_step,
        }

    def _call(self, point: str) -> None:
        callback = self._callbacks.get(point)
        if callback is not None:
            callback(self.trainer)

    def before_train(self) -> None:
        self._call("before_train")

    def after_train(self) -> None:
        self._call("after_train")
        # Closures often hold the trainer, and with it the model; nothing calls them again.
        self._callbacks.clear()

    def before_step(self) -> None:
        self._call("before_step")

    def after_step(self) -> None:
        self._call("after_step")
