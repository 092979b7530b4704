"""The inner trainer of `DefaultTrainer`: which one a config asks for, and what of it the outer one shows."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from detectron2.config.config.node import CfgNode
from detectron2.engine.train_loop.amp_trainer import AMPTrainer
from detectron2.engine.train_loop.simple_trainer import SimpleTrainer
from detectron2.layers.batch_norm import FrozenBatchNorm2d
from detectron2.utils.user_errors import UserValueError

__all__ = ["PartOfStepTrainer", "make_step_trainer", "warn_of_random_frozen_norms"]

logger = logging.getLogger(__name__)

_AMP_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class PartOfStepTrainer:
    """An attribute that lives in the inner trainer `_trainer`, and in the object itself where it has none."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        inner = instance.__dict__.get("_trainer")
        if inner is not None:
            return getattr(inner, self._name)
        if self._name not in instance.__dict__:
            raise AttributeError(f"{owner.__name__} has no {self._name}, and no inner trainer to ask for it")
        return instance.__dict__[self._name]

    def __set__(self, instance: Any, value: Any) -> None:
        inner = instance.__dict__.get("_trainer")
        if inner is None:
            instance.__dict__[self._name] = value
        elif self._name == "data_loader" and hasattr(inner, "reset_data_loader"):
            inner.reset_data_loader(lambda: value)  # it would go on with the batches of the old one
        else:
            setattr(inner, self._name, value)


def make_step_trainer(
    cfg: CfgNode, model: nn.Module, data_loader: Iterable[Any], optimizer: torch.optim.Optimizer
) -> SimpleTrainer:
    """Make the trainer of the precision that `SOLVER.AMP` asks for.

    Raises:
        ValueError: `SOLVER.AMP.DTYPE` is none of those that there are.
    """
    if not cfg.SOLVER.AMP.ENABLED:
        return SimpleTrainer(model, data_loader, optimizer)
    name = cfg.SOLVER.AMP.DTYPE
    if name not in _AMP_DTYPES:
        raise UserValueError(f"SOLVER.AMP.DTYPE must be one of {', '.join(_AMP_DTYPES)}, got {name!r}.")
    return AMPTrainer(model, data_loader, optimizer, precision=_AMP_DTYPES[name])


def warn_of_random_frozen_norms(cfg: CfgNode, model: nn.Module) -> None:
    """Say that random weights behind constant norms, which rescale nothing, all but surely diverge."""
    if cfg.MODEL.RESNETS.NORM == "FrozenBN" and any(
        isinstance(module, FrozenBatchNorm2d) for module in model.modules()
    ):
        logger.warning(
            "MODEL.WEIGHTS is empty, so training starts from random weights, and MODEL.RESNETS.NORM FrozenBN "
            "keeps their activations as large as they are: expect a diverging loss. Give pre-trained "
            "weights, or set MODEL.RESNETS.NORM BN and MODEL.BACKBONE.FREEZE_AT 0."
        )
