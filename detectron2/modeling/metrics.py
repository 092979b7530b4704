"""Training metrics: sent to the event storage in groups, because every group makes a GPU wait once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from detectron2.utils.events.storage import get_event_storage, has_event_storage


def put_metrics(values: Mapping[str, Tensor | float]) -> None:
    """Put scalars into the current event storage; do nothing outside of a training loop, where nobody asks.

    Args:
        values: numbers or one-element tensors, of one device, by metric name.
    """
    if not has_event_storage():
        return
    tensors = [v.detach().float().reshape(()) for v in values.values() if isinstance(v, Tensor)]
    numbers = iter(torch.stack(tensors).tolist() if tensors else [])  # the one transfer
    storage = get_event_storage()
    for name, value in values.items():
        storage.put_scalar(name, next(numbers) if isinstance(value, Tensor) else value)
