"""Samplers for training streams without end, and for one pass of inference, shared out among workers.

A training sampler is a function of its arguments alone: all workers draw the same stream of indices, and
worker r of w takes the elements r, r + w, r + 2w, ... To continue a stream where an earlier run stopped, set
`start` to the number of elements that this worker has consumed before iterating.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data.sampler import Sampler

from detectron2.utils import comm
from detectron2.utils.user_errors import UserTypeError, UserValueError

logger = logging.getLogger(__name__)

__all__ = [
    "InferenceSampler",
    "RandomSubsetTrainingSampler",
    "RepeatFactorTrainingSampler",
    "TrainingSampler",
]


class _EndlessSampler(Sampler[int]):
    """Repeats epochs for ever; a subclass says what an epoch is."""

    start: int = 0
    """Number of elements of this worker's share that the next iteration skips."""

    def __init__(self, seed: int | None) -> None:
        # Sampler.__init__ takes no arguments in some versions of PyTorch and a deprecated one in others.
        self._seed = int(comm.shared_random_seed() if seed is None else seed)
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()

    def _epoch(self, generator: torch.Generator) -> list[int]:
        raise NotImplementedError

    def _endless_indices(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self._seed)
        while True:
            yield from self._epoch(generator)

    def __iter__(self) -> Iterator[int]:
        first = self._rank + self.start * self._world_size
        yield from itertools.islice(self._endless_indices(), first, None, self._world_size)


def _shuffled(indices: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return indices[torch.randperm(len(indices), generator=generator)]


def _check_size(size: Any) -> None:
    if not isinstance(size, int):
        raise UserTypeError(f"The size of a data set must be an int, got {type(size).__name__}.")
    if size <= 0:
        raise UserValueError(f"A training sampler needs at least one element, got a data set of size {size}.")


class TrainingSampler(_EndlessSampler):
    """Every element once per epoch, in another random order each time."""

    def __init__(self, size: int, shuffle: bool = True, seed: int | None = None) -> None:
        """
        Args:
            size: number of elements of the data set.
            shuffle: whether the order is random; without it it is 0, 1, ...
            seed: of the order, equal on all workers. By default a random one that all workers share.
        """
        _check_size(size)
        super().__init__(seed)
        self._size = size
        self._shuffle = shuffle
        logger.debug("%s over %d elements", type(self).__name__, size)

    def _epoch(self, generator: torch.Generator) -> list[int]:
        indices = torch.arange(self._size)
        return (_shuffled(indices, generator) if self._shuffle else indices).tolist()


class RandomSubsetTrainingSampler(TrainingSampler):
    """Like `TrainingSampler`, on a random subset that stays the same."""

    def __init__(
        self,
        size: int,
        subset_ratio: float,
        shuffle: bool = True,
        seed_shuffle: int | None = None,
        seed_subset: int | None = None,
    ) -> None:
        """
        Args:
            size: number of elements of the data set.
            subset_ratio: share of them that is used, in (0, 1].
            shuffle: whether the order is random.
            seed_shuffle: of the order; equal on all workers.
            seed_subset: of the choice; equal on all workers.
        """
        super().__init__(size=size, shuffle=shuffle, seed=seed_shuffle)
        if not 0 < subset_ratio <= 1:
            raise UserValueError(f"subset_ratio must lie in (0, 1], got {subset_ratio}.")
        self._size_subset = int(size * subset_ratio)
        if self._size_subset == 0:
            raise UserValueError(f"subset_ratio {subset_ratio} of {size} elements leaves none.")
        generator = torch.Generator()
        generator.manual_seed(int(comm.shared_random_seed() if seed_subset is None else seed_subset))
        self._indexes_subset = torch.randperm(size, generator=generator)[: self._size_subset]
        logger.info("Training on a subset of %d of %d elements", self._size_subset, size)

    def _epoch(self, generator: torch.Generator) -> list[int]:
        subset = self._indexes_subset
        return (_shuffled(subset, generator) if self._shuffle else subset).tolist()


class RepeatFactorTrainingSampler(_EndlessSampler):
    """Repeat elements of rare categories, as LVIS baselines do (https://arxiv.org/abs/1908.03195).

    An element of factor 2.3 occurs twice in each epoch, and a third time in about three of ten.
    """

    def __init__(
        self, repeat_factors: torch.Tensor, *, shuffle: bool = True, seed: int | None = None
    ) -> None:
        """
        Args:
            repeat_factors: (size,) float, how often each element occurs per epoch on average.
            shuffle: whether the order is random.
            seed: equal on all workers.
        """
        super().__init__(seed)
        self._shuffle = shuffle
        self._whole = torch.trunc(repeat_factors)
        self._fraction = repeat_factors - self._whole

    @staticmethod
    def repeat_factors_from_category_frequency(
        dataset_dicts: Sequence[dict[str, Any]], repeat_thresh: float, sqrt: bool = True
    ) -> torch.Tensor:
        """Factor of each image: that of its rarest category.

        Args:
            dataset_dicts: with `annotations`.
            repeat_thresh: categories that occur in a smaller share of the images are repeated.
            sqrt: whether the factor of a category of frequency f is sqrt(thresh / f), or thresh / f.

        Returns:
            (number of images,) float tensor; 1 for images without annotations.
        """
        categories_per_image = [
            {anno["category_id"] for anno in record["annotations"]} for record in dataset_dicts
        ]
        num_images_with: dict[int, int] = defaultdict(int)
        for categories in categories_per_image:
            for category in categories:
                num_images_with[category] += 1
        factor_of = {}
        for category, count in num_images_with.items():
            ratio = repeat_thresh / (count / len(dataset_dicts))
            factor_of[category] = max(1.0, math.sqrt(ratio) if sqrt else ratio)
        factors = [
            max((factor_of[c] for c in categories), default=1.0) for categories in categories_per_image
        ]
        return torch.tensor(factors, dtype=torch.float32)

    def _get_epoch_indices(self, generator: torch.Generator) -> torch.Tensor:
        """Indices of one epoch, in order, each as often as this epoch repeats it."""
        is_rounded_up = torch.rand(len(self._fraction), generator=generator) < self._fraction
        repeats = (self._whole + is_rounded_up.float()).long()
        return torch.repeat_interleave(torch.arange(len(repeats)), repeats)

    def _epoch(self, generator: torch.Generator) -> list[int]:
        indices = self._get_epoch_indices(generator)
        return (_shuffled(indices, generator) if self._shuffle else indices).tolist()


class InferenceSampler(Sampler[int]):
    """Every element once, over all workers together; worker r takes the r-th stretch of the data set."""

    def __init__(self, size: int) -> None:
        """
        Args:
            size: number of elements of the data set.
        """
        if size < 0:
            raise UserValueError(f"The size of a data set cannot be negative, got {size}.")
        self._size = size
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()
        self._local_indices = self._get_local_indices(size, self._world_size, self._rank)

    @staticmethod
    def _get_local_indices(total_size: int, world_size: int, rank: int) -> range:
        """Stretch of worker `rank`; the first `total_size % world_size` workers get one element more."""
        size, num_longer = divmod(total_size, world_size)
        begin = rank * size + min(rank, num_longer)
        return range(begin, begin + size + (rank < num_longer))

    def __iter__(self) -> Iterator[int]:
        yield from self._local_indices

    def __len__(self) -> int:
        return len(self._local_indices)
