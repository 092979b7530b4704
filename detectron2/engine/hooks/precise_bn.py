"""Exact statistics for batch normalisation.

Shapes: C channels of one normalisation layer.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detectron2.engine.train_loop.base import HookBase
from detectron2.utils import comm
from detectron2.utils.events.storage import EventStorage

logger = logging.getLogger(__name__)


def find_training_batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """List the batch normalisation layers that are in training mode and keep running statistics."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
    ]


class PreciseBN(HookBase):
    """Replace running averages by the mean and variance over many batches with the present weights.

    Running averages lag behind the weights. Register the hook before what uses the statistics: checkpoints
    and evaluation. It runs the model in training mode, without gradients.
    """

    def __init__(self, period: int, model: nn.Module, data_loader: Iterable[Any], num_iter: int) -> None:
        """
        Args:
            period: iterations between two updates; 0 updates after the last iteration only, which is
                always done.
            model: the model; its layers in training mode are updated.
            data_loader: training batches; the loader must not end.
            num_iter: number of batches to average over.
        """
        self._period = period
        self._model = model
        self._data_loader = data_loader
        self._num_iter = num_iter
        self._data_iter: Iterator[Any] | None = None
        if not find_training_batch_norms(model):
            logger.info("PreciseBN does nothing: the model has no batch normalisation in training mode.")

    def after_step(self) -> None:
        next_iter = self.trainer.iter + 1
        if next_iter == self.trainer.max_iter or (self._period > 0 and next_iter % self._period == 0):
            self.update_stats()

    def update_stats(self) -> None:
        """Update the statistics of the model's layers now."""
        layers = find_training_batch_norms(self._model)
        if not layers:
            return
        if self._data_iter is None:
            self._data_iter = iter(self._data_loader)
        logger.info("PreciseBN: %d batches for the statistics of %d layers", self._num_iter, len(layers))
        # The losses of these forward passes are none of the training's: they go into a storage of their own.
        with EventStorage(), torch.no_grad():
            batches = itertools.islice(self._data_iter, self._num_iter)
            _set_population_statistics(self._model, layers, batches)


def _set_population_statistics(model: nn.Module, layers: list[_BatchNorm], batches: Iterable[Any]) -> None:
    """Average E[x] and E[x^2] over batches of all processes, and set mean and variance from them."""
    momenta = [layer.momentum for layer in layers]
    moments = [_Moments(layer) for layer in layers]
    try:
        for layer in layers:
            layer.momentum = 1.0  # running statistics are then those of the batch alone
        for batch in batches:
            model(batch)
            for moment in moments:
                moment.add_batch()
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    for moment in moments:
        moment.write_back()


class _Moments:
    """Sums over batches of one layer's first two moments."""

    def __init__(self, layer: _BatchNorm) -> None:
        assert layer.running_mean is not None
        self.layer = layer
        self.sums = layer.running_mean.new_zeros(2, layer.num_features)  # (2, C): of x and of x^2
        self.num_batches = 0

    def add_batch(self) -> None:
        mean, var = self.layer.running_mean, self.layer.running_var
        assert mean is not None and var is not None
        self.sums += torch.stack([mean, var + mean.square()])  # (2, C)
        self.num_batches += 1

    def write_back(self) -> None:
        first, second = _mean_over_processes(self.sums / self.num_batches)
        assert self.layer.running_mean is not None and self.layer.running_var is not None
        self.layer.running_mean.copy_(first)
        self.layer.running_var.copy_(second - first.square())


def _mean_over_processes(values: Tensor) -> Tensor:
    if comm.get_world_size() == 1:
        return values
    torch.distributed.all_reduce(values)
    return values / comm.get_world_size()
