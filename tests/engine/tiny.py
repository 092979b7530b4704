"""A model and data small enough to follow by hand, for tests of the engine.

Shapes: N images in a batch, 3 features each.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class TinyModel(nn.Module):
    """A linear regression with two loss terms, fed with dataset dicts as real models are."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, batch: list[dict[str, Any]]) -> Any:
        x = torch.stack([sample["x"] for sample in batch])  # (N, 3)
        y = torch.stack([sample["y"] for sample in batch])  # (N,)
        prediction = self.linear(x).squeeze(1)  # (N,)
        if not self.training:
            return [{"prediction": value} for value in prediction]
        return {"loss_fit": (prediction - y).square().mean(), "loss_size": 0.01 * prediction.abs().mean()}


def make_samples(num_samples: int, seed: int = 1) -> list[dict[str, Any]]:
    """Samples with ids from 0; the order of the list is the order of training."""
    generator = torch.Generator().manual_seed(seed)
    xs, ys = torch.randn(num_samples, 3, generator=generator), torch.randn(num_samples, generator=generator)
    return [{"image_id": i, "x": x, "y": y} for i, (x, y) in enumerate(zip(xs, ys))]


class EndlessBatches:
    """Batch k holds the samples k * size ... of an endless repetition, whatever was read before it."""

    def __init__(self, samples: list[dict[str, Any]], batch_size: int = 2, start: int = 0) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.start = start

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for batch in itertools.count(self.start):
            first = batch * self.batch_size
            yield [self.samples[i % len(self.samples)] for i in range(first, first + self.batch_size)]


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def weights_of(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def equal_weights(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
