"""Losses on their way from the step to the event storage: averaged over processes, checked, named."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from detectron2.utils.user_errors import UserFloatingPointError


def write_losses(loss_dict: Mapping[str, Tensor], data_time: float, cur_iter: int, prefix: str) -> None:
    """Do the work of `SimpleTrainer.write_metrics`, which see."""
    # One transfer to the host for all losses.
    values = torch.stack([loss.detach().reshape(()).float() for loss in loss_dict.values()]).tolist()
    local = dict(zip(loss_dict, values))
    per_rank: list[tuple[dict[str, float], float]] = comm.all_gather((local, data_time))
    losses = _mean_over_ranks([rank_losses for rank_losses, _ in per_rank])
    total = sum(losses.values())
    if not math.isfinite(total):
        raise UserFloatingPointError(_describe_non_finite([losses for losses, _ in per_rank], cur_iter))
    if not comm.is_main_process():
        return
    storage = get_event_storage()
    storage.put_scalar("data_time", max(seconds for _, seconds in per_rank), cur_iter=cur_iter)
    storage.put_scalar(f"{prefix}total_loss", total, cur_iter=cur_iter)
    for name, value in losses.items():
        if name != f"{prefix}total_loss":
            storage.put_scalar(name, value, cur_iter=cur_iter)


class LossRecord:
    """The losses of one iteration on their way to the host; `write` waits for the rest of the way only."""

    def __init__(
        self,
        loss_dict: Mapping[str, Tensor],
        data_time: float,
        iteration: int,
        prefix: str,
        image_names: list[str],
    ) -> None:
        self.losses = {name: loss.detach().to("cpu", non_blocking=True) for name, loss in loss_dict.items()}
        self.copied = None
        if any(loss.is_cuda for loss in loss_dict.values()):
            self.copied = torch.cuda.Event()
            self.copied.record()
        self.data_time = data_time
        self.iteration = iteration
        self.prefix = prefix
        self.image_names = image_names

    def write(self, write_metrics: Callable[..., None]) -> None:
        if self.copied is not None:
            self.copied.synchronize()
        try:
            write_metrics(self.losses, self.data_time, self.iteration, self.prefix)
        except FloatingPointError as error:
            names = ", ".join(self.image_names) or "unknown"
            raise UserFloatingPointError(f"{error} Images of this process in that batch: {names}.") from None


def name_images(batch: Any) -> list[str]:
    """Name the images of a batch of dataset dicts for messages; other kinds of batch have no names."""
    if not isinstance(batch, (list, tuple)):
        return []
    dicts = [sample for sample in batch if isinstance(sample, Mapping)]
    return [str(sample.get("image_id", sample.get("file_name", "unnamed"))) for sample in dicts]


def _mean_over_ranks(per_rank: list[dict[str, float]]) -> dict[str, float]:
    """Average each loss over the processes that have it: a batch may lack the data for some loss."""
    names = dict.fromkeys(name for losses in per_rank for name in losses)
    values_per_name = {name: [losses[name] for losses in per_rank if name in losses] for name in names}
    return {name: sum(values) / len(values) for name, values in values_per_name.items()}


def _describe_non_finite(per_rank: list[dict[str, float]], iteration: int) -> str:
    culprits = [
        f"rank {rank}: " + ", ".join(f"{name} = {value:.4g}" for name, value in losses.items())
        for rank, losses in enumerate(per_rank)
        if not math.isfinite(sum(losses.values()))
    ]
    return (
        f"Loss is not finite in iteration {iteration} ({'; '.join(culprits)}). The usual causes are a "
        "learning rate that is too high for the batch size (SOLVER.BASE_LR, SOLVER.WARMUP_ITERS) and broken "
        "annotations."
    )
