"""Attention by loops over heads and pixels, for comparison."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Score = Callable[[int, int, int, Tensor], Tensor | float]
"""(head, query pixel, key pixel, query) -> what is added to the logit."""


def attend(q: Tensor, k: Tensor, v: Tensor, add: Score, scale: float | None = None) -> Tensor:
    """(h, Q, D), (h, K, D) and (h, K, D) -> (h, Q, D)."""
    out = torch.zeros_like(q)
    scale = q.shape[2] ** -0.5 if scale is None else scale
    for head in range(len(q)):
        for i in range(q.shape[1]):
            logits = torch.stack(
                [scale * (q[head, i] @ k[head, j]) + add(head, i, j, q[head, i]) for j in range(k.shape[1])]
            )
            weights = logits.exp() / logits.exp().sum()
            out[head, i] = weights @ v[head]
    return out


def split_heads(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(P, 3 * h * D) -> three times (h, P, D)."""
    parts = qkv.chunk(3, dim=1)
    q, k, v = (torch.stack(part.chunk(num_heads, dim=1)) for part in parts)
    return q, k, v


def randomize(module: torch.nn.Module) -> None:
    """Give every parameter a random value, so that zeros hide nothing."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
