"""Which floating-point type trains faster on the machine at hand."""

from __future__ import annotations

import time

import torch
from torch import nn

_SPEED_UP_WORTH_IT = 1.15


def _seconds_per_step(conv: nn.Module, inputs: torch.Tensor, *, bfloat16: bool, num_rounds: int = 4) -> float:
    """Best time of one forward and backward pass."""
    best = float("inf")
    for _ in range(num_rounds):
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            outputs = conv(inputs)
        outputs.float().sum().backward()
        best = min(best, time.perf_counter() - start)
    return best


def prefers_bfloat16() -> bool:
    """Measure whether convolutions on this CPU train faster in bfloat16 than in float32.

    Processors without bfloat16 instructions emulate them, slowly: only a measurement tells. It takes a few
    tenths of a second.
    """
    conv = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1))
    inputs = torch.zeros(4, 64, 32, 32)
    single = _seconds_per_step(conv, inputs, bfloat16=False)
    return single > _SPEED_UP_WORTH_IT * _seconds_per_step(conv, inputs, bfloat16=True)
