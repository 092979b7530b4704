"""What one training step reports, on its way to the storage: averaged over processes, checked, named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from detectron2.utils import comm
from detectron2.utils.events.storage import get_event_storage
from detectron2.utils.user_errors import UserFloatingPointError

__all__ = ["StepRecord", "name_images"]


class StepRecord:
    """The losses of one step, the names of its images and the time it waited for them.

    The losses start on their way to the host when the record is made; `write` waits for the rest of the way
    only, so that a record written one step later never waits.
    """

    def __init__(
        self,
        iteration: int,
        losses: Mapping[str, Tensor],
        data_time: float,
        *,
        prefix: str = "",
        image_names: Sequence[str] = (),
    ) -> None:
        """
        Args:
            iteration: the iteration that the losses belong to.
            losses: scalar losses of this process, by name.
            data_time: seconds that this process waited for the batch.
            prefix: put in front of the name of the summed loss.
            image_names: the images of this process in the batch, for error messages.
        """
        self.iteration = iteration
        self.data_time = data_time
        self.prefix = prefix
        self.image_names = image_names
        self._losses = {name: loss.detach().to("cpu", non_blocking=True) for name, loss in losses.items()}
        self._arrived: torch.cuda.Event | None = None
        if any(loss.is_cuda for loss in losses.values()):
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def write(self) -> None:
        """Average the losses over all processes and put them into the storage. All processes must call it.

        The main process gets the averages; "rank_data_time" is what every process waited itself.

        Raises:
            FloatingPointError: a loss is NaN or infinite, in any process. It is raised in all of them, so
                that none waits for another.
        """
        storage = get_event_storage()
        storage.put_scalar("rank_data_time", self.data_time, cur_iter=self.iteration)
        per_rank: list[tuple[dict[str, float], float]] = comm.all_gather((self._numbers(), self.data_time))
        losses_per_rank = [losses for losses, _ in per_rank]
        losses = _mean_over_ranks(losses_per_rank)
        total = sum(losses.values())
        if not math.isfinite(total):
            raise UserFloatingPointError(self._describe_non_finite(losses_per_rank))
        if not comm.is_main_process():
            return
        slowest = max(seconds for _, seconds in per_rank)
        storage.put_scalar("data_time", slowest, cur_iter=self.iteration)
        storage.put_scalar(f"{self.prefix}total_loss", total, cur_iter=self.iteration)
        for name, value in losses.items():
            if name != f"{self.prefix}total_loss":
                storage.put_scalar(name, value, cur_iter=self.iteration)

    def _numbers(self) -> dict[str, float]:
        if self._arrived is not None:
            self._arrived.synchronize()
        return {name: loss.reshape(()).float().item() for name, loss in self._losses.items()}

    def _describe_non_finite(self, losses_per_rank: list[dict[str, float]]) -> str:
        culprits = [
            f"rank {rank}: " + ", ".join(f"{name} = {value:.4g}" for name, value in losses.items())
            for rank, losses in enumerate(losses_per_rank)
            if not math.isfinite(sum(losses.values()))
        ]
        sentences = [
            f"Loss is not finite in iteration {self.iteration} ({'; '.join(culprits)}).",
            "The usual causes are a learning rate that is too high for the batch size (SOLVER.BASE_LR, "
            "SOLVER.WARMUP_ITERS) and broken annotations.",
        ]
        if self.image_names:
            sentences.append(f"Images of this process in that batch: {', '.join(self.image_names)}.")
        return " ".join(sentences)


def name_images(batch: Any) -> list[str]:
    """Name the images of a batch of dataset dicts for messages; other kinds of batch have no names."""
    if not isinstance(batch, (list, tuple)):
        return []
    dicts = [sample for sample in batch if isinstance(sample, Mapping)]
    return [str(sample.get("image_id", sample.get("file_name", "unnamed"))) for sample in dicts]


def _mean_over_ranks(losses_per_rank: list[dict[str, float]]) -> dict[str, float]:
    """Average each loss over the processes that have it: a batch may lack the data for some loss."""
    names = dict.fromkeys(name for losses in losses_per_rank for name in losses)
    values_per_name = {name: [losses[name] for losses in losses_per_rank if name in losses] for name in names}
    return {name: sum(values) / len(values) for name, values in values_per_name.items()}
