"""Draw a balanced training subset of labelled candidates."""

from __future__ import annotations

import torch
from torch import Tensor


def subsample_labels(
    labels: Tensor, num_samples: int, positive_fraction: float, bg_label: int
) -> tuple[Tensor, Tensor]:
    """Draw random positive and negative candidates.

    At most `num_samples * positive_fraction` are positive; negatives fill up the rest.

    Args:
        labels: (P,) integers: -1 is ignored, `bg_label` is negative, anything else positive.
        num_samples: how many to draw together.
        positive_fraction: the largest share of positives.
        bg_label: the label of negatives.

    Returns:
        int64 indices of the drawn positives and of the drawn negatives, each in random order.
    """
    is_negative = labels == bg_label
    is_positive = ~is_negative & (labels != -1)
    positive = _draw(is_positive, int(num_samples * positive_fraction))
    return positive, _draw(is_negative, num_samples - len(positive))


def _draw(candidates: Tensor, limit: int) -> Tensor:
    """Indices of at most `limit` random True entries."""
    indices = candidates.nonzero().flatten()
    return indices[torch.randperm(len(indices), device=indices.device)[:limit]]
