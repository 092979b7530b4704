"""Saving checkpoints from time to time, and keeping the newest."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from fvcore.common.checkpoint import Checkpointer
from fvcore.common.checkpoint import PeriodicCheckpointer as _PeriodicCheckpointer

from detectron2.utils.user_errors import UserValueError

__all__ = ["PeriodicCheckpointer"]


class PeriodicCheckpointer(_PeriodicCheckpointer):  # type: ignore[misc]  # fvcore has no types
    """Save `model_0004999` and so on every `period` iterations, and `model_final` at the end.

    Loops call `step` after every iteration, and `adopt_earlier` before the first one. With `max_to_keep`
    older files go; `model_final` stays.
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
        """
        Args:
            checkpointer: saves them.
            period: iterations from one to the next; 0 saves at the end only.
            max_iter: the end; None for a training without one.
            max_to_keep: how many to keep, not counting `model_final`; None keeps all.
            file_prefix: stands in their names for "model".
        """
        if max_to_keep is not None and max_to_keep < 1:
            raise UserValueError(f"max_to_keep must be 1 or more, or None for all, got {max_to_keep}")
        super().__init__(
            checkpointer, period if period > 0 else sys.maxsize, max_iter, max_to_keep, file_prefix
        )

    def adopt_earlier(self, start_iter: int) -> None:
        """Count what a run has saved before it was resumed among the files that `max_to_keep` is about.

        Args:
            start_iter: the iteration that it goes on with; 0 for a run that starts anew.
        """
        if self.max_to_keep and start_iter > 0 and os.path.isdir(self.checkpointer.save_dir):
            self.recent_checkpoints = self._find_before(start_iter) + self.recent_checkpoints

    def _find_before(self, start_iter: int) -> list[str]:
        """Paths of checkpoints, oldest first."""
        name = re.compile(re.escape(self.file_prefix) + r"_(\d{7,})\.pth")
        numbers = {}
        for path in self.checkpointer.get_all_checkpoint_files():
            found = name.fullmatch(os.path.basename(path))
            if found and int(found[1]) < start_iter and path not in self.recent_checkpoints:
                numbers[path] = int(found[1])
        return sorted(numbers, key=numbers.__getitem__)

    def step(self, iteration: int, **kwargs: Any) -> None:
        """Save if it is time to, and remove what is too much.

        Args:
            iteration: the one that is done.
            kwargs: further data to save.
        """
        super().step(iteration, **kwargs)
        # fvcore's class removes one file for one that it writes; a run may be resumed with a smaller number.
        while self.max_to_keep and len(self.recent_checkpoints) > self.max_to_keep:
            path = self.recent_checkpoints.pop(0)
            if self.path_manager.isfile(path):
                self.path_manager.rm(path)
