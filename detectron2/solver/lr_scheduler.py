"""Learning rate schedules: a function of progress, with a warm-up before it, that multiplies the base
rate."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Any

import torch
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
)
from torch.optim.lr_scheduler import LRScheduler as LRScheduler

from detectron2.utils.user_errors import UserValueError

_WARMUP_METHODS = ("linear", "constant")


class WarmupParamScheduler(CompositeParamScheduler):  # type: ignore[misc]  # fvcore has no types
    """Put a warm-up in front of a schedule.

    Schedules are functions of progress, from 0 (start) to 1 (end of training).
    """

    def __init__(
        self,
        scheduler: ParamScheduler,
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
    ) -> None:
        """
        Args:
            scheduler: what follows the warm-up.
            warmup_factor: the warm-up starts at this part of the schedule's first value.
            warmup_length: the part of training, in [0, 1], that is warm-up.
            warmup_method: "linear" rises to where the schedule goes on, "constant" stays at its start.
            rescale_interval: True runs the whole schedule in what the warm-up leaves of training; False lets
                the warm-up hide the beginning of the schedule.
        """
        _check_warmup_method(warmup_method)
        if not 0 <= warmup_length <= 1:
            raise UserValueError(f"warmup_length is a part of training in [0, 1], got {warmup_length}")
        start = warmup_factor * scheduler(0.0)
        if warmup_method == "constant":
            warmup: ParamScheduler = ConstantParamScheduler(start)
        else:
            warmup = LinearParamScheduler(start, scheduler(0.0 if rescale_interval else warmup_length))
        # Nothing is left to rescale to where all of training is warm-up.
        rescale = rescale_interval and warmup_length < 1
        super().__init__(
            [warmup, scheduler],
            lengths=[warmup_length, 1 - warmup_length],
            interval_scaling=["rescaled", "rescaled" if rescale else "fixed"],
        )


class LRMultiplier(LRScheduler):
    """Multiply every parameter group's initial learning rate by a schedule over `max_iter` iterations.

    Step it once an iteration. Its state is the iteration and the base rates, not the schedule: a resumed run
    follows the schedule that it was started with.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        multiplier: ParamScheduler,
        max_iter: int,
        last_iter: int = -1,
    ) -> None:
        """
        Args:
            optimizer: its groups' learning rates are set.
            multiplier: a function of progress in [0, 1].
            max_iter: iterations of the whole training.
            last_iter: the last iteration that was done, -1 at the start.
        """
        if not isinstance(multiplier, ParamScheduler):
            raise UserValueError(
                "multiplier must be a ParamScheduler of fvcore.common.param_scheduler, "
                f"got {type(multiplier).__name__}"
            )
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self) -> dict[str, Any]:
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self) -> list[Any]:
        factor = self._multiplier(self.last_epoch / self._max_iter)
        return [base_lr * factor for base_lr in self.base_lrs]


class _WarmupLR(LRScheduler):
    """A learning rate as a function of the iteration, written by a subclass, with a warm-up in front.

    The two public subclasses are kept for code that names them; `LRMultiplier` with a `WarmupParamScheduler`
    does the same and more.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, last_epoch: int, *, method: str, iters: int, factor: float
    ) -> None:
        _check_warmup_method(method)
        self.warmup_method, self.warmup_iters, self.warmup_factor = method, iters, factor
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        factor = self._warmup() * self._after_warmup()
        return [base_lr * factor for base_lr in self.base_lrs]

    def _warmup(self) -> float:
        return _get_warmup_factor_at_iter(
            self.warmup_method, self.last_epoch, self.warmup_iters, self.warmup_factor
        )

    def _after_warmup(self) -> float:
        """Factor of the base rate at iteration `self.last_epoch`, before the warm-up is applied."""
        raise NotImplementedError


class WarmupMultiStepLR(_WarmupLR):
    """Warm-up, then a factor `gamma` at every milestone."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        milestones: list[int],
        gamma: float = 0.1,
        warmup_factor: float = 0.001,
        warmup_iters: int = 1000,
        warmup_method: str = "linear",
        last_epoch: int = -1,
    ) -> None:
        """
        Args:
            optimizer: its groups' learning rates are set.
            milestones: increasing iterations.
            gamma: factor at each of them.
            warmup_factor, warmup_iters, warmup_method: the first `warmup_iters` iterations start at
                `warmup_factor` and rise ("linear") or stay ("constant").
            last_epoch: the last iteration that was done, -1 at the start.
        """
        if sorted(milestones) != list(milestones):
            raise UserValueError(f"milestones must increase, got {milestones}")
        self.milestones = milestones
        self.gamma = gamma
        super().__init__(
            optimizer, last_epoch, method=warmup_method, iters=warmup_iters, factor=warmup_factor
        )

    def _after_warmup(self) -> float:
        return self.gamma ** bisect_right(self.milestones, self.last_epoch)


class WarmupCosineLR(_WarmupLR):
    """Warm-up, then half a cosine wave down to 0 at iteration `max_iters`."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        max_iters: int,
        warmup_factor: float = 0.001,
        warmup_iters: int = 1000,
        warmup_method: str = "linear",
        last_epoch: int = -1,
    ) -> None:
        """
        Args:
            optimizer: its groups' learning rates are set.
            max_iters: where the rate reaches 0.
            warmup_factor, warmup_iters, warmup_method: as in `WarmupMultiStepLR`.
            last_epoch: the last iteration that was done, -1 at the start.
        """
        self.max_iters = max_iters
        super().__init__(
            optimizer, last_epoch, method=warmup_method, iters=warmup_iters, factor=warmup_factor
        )

    def _after_warmup(self) -> float:
        return (1 + math.cos(math.pi * self.last_epoch / self.max_iters)) / 2


def _get_warmup_factor_at_iter(method: str, iter: int, warmup_iters: int, warmup_factor: float) -> float:
    """Factor of the learning rate at iteration `iter` of a warm-up; arguments are those of the schedules."""
    _check_warmup_method(method)
    if iter >= warmup_iters:
        return 1.0
    if method == "constant":
        return warmup_factor
    return warmup_factor + (1 - warmup_factor) * iter / warmup_iters


def _check_warmup_method(method: str) -> None:
    if method not in _WARMUP_METHODS:
        raise UserValueError(
            f"the warm-up method must be one of {', '.join(_WARMUP_METHODS)}, got {method!r}"
        )
