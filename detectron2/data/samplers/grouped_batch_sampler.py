"""Batches whose elements share a group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from torch.utils.data.sampler import BatchSampler, Sampler

from detectron2.utils.user_errors import UserNotImplementedError, UserTypeError

__all__ = ["GroupedBatchSampler"]


class GroupedBatchSampler(BatchSampler):
    """Collect the indices of another sampler into batches of one group each, in the order in which batches
    fill up."""

    def __init__(self, sampler: Sampler[int], group_ids: Sequence[int], batch_size: int) -> None:
        """
        Args:
            sampler: an endless one; indices of batches that never fill up are not seen.
            group_ids: group of each element.
            batch_size: number of indices per batch.
        """
        if not isinstance(sampler, Sampler):
            raise UserTypeError(f"sampler must be a torch.utils.data.Sampler, got {type(sampler).__name__}.")
        self.sampler = sampler
        self.group_ids = [int(group) for group in group_ids]
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[int]]:
        filling: dict[int, list[int]] = defaultdict(list)
        for index in self.sampler:
            group = self.group_ids[index]
            filling[group].append(index)
            if len(filling[group]) == self.batch_size:
                yield filling.pop(group)

    def __len__(self) -> int:
        raise UserNotImplementedError(
            "The number of batches of a GroupedBatchSampler is not known in advance."
        )
