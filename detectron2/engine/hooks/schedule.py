"""Following a learning rate schedule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from fvcore.common.param_scheduler import ParamScheduler

from detectron2.engine.train_loop.base import HookBase
from detectron2.solver.lr_scheduler import LRMultiplier

_TorchScheduler = torch.optim.lr_scheduler.LRScheduler


class LRScheduler(HookBase):
    """Step a learning rate scheduler after every iteration, and write the rate as scalar "lr"."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: _TorchScheduler | ParamScheduler | None = None,
    ) -> None:
        """
        Args:
            optimizer: the trainer's where None.
            scheduler: the trainer's where None. A `ParamScheduler` gives the factor on the optimizer's
                initial rates.
        """
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._best_param_group_id = 0

    def before_train(self) -> None:
        self._optimizer = self._optimizer or self.trainer.optimizer  # type: ignore[attr-defined]
        if isinstance(self.scheduler, ParamScheduler):
            self._scheduler = LRMultiplier(
                self._optimizer, self.scheduler, self.trainer.max_iter, last_iter=self.trainer.iter - 1
            )
        self._best_param_group_id = self.get_best_param_group_id(self._optimizer)

    @staticmethod
    def get_best_param_group_id(optimizer: torch.optim.Optimizer) -> int:
        """Return the index of the parameter group whose learning rate stands for all of them.

        This is the group with most parameter tensors. Where each tensor has its own group, it is the first
        one with the most common initial rate.
        """
        groups = optimizer.param_groups
        sizes = [len(group["params"]) for group in groups]
        if max(sizes) > 1:
            return sizes.index(max(sizes))
        rates = [group["lr"] for group in groups]
        most_common, _ = Counter(rates).most_common(1)[0]
        return rates.index(most_common)

    def after_step(self) -> None:
        assert self._optimizer is not None, "after_step before before_train"
        rate = self._optimizer.param_groups[self._best_param_group_id]["lr"]
        self.trainer.storage.put_scalar("lr", rate, smoothing_hint=False)
        self.scheduler.step()

    @property
    def scheduler(self) -> Any:
        """The scheduler in use: the hook's own, or the trainer's."""
        return self._scheduler or self.trainer.scheduler  # type: ignore[attr-defined]  # not all have one

    def state_dict(self) -> dict[str, Any]:
        if isinstance(self.scheduler, _TorchScheduler):
            return self.scheduler.state_dict()
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Put the schedule where the run that is continued had left it."""
        if isinstance(self.scheduler, _TorchScheduler):
            self.scheduler.load_state_dict(dict(state_dict))
