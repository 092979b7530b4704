"""How fast each stage of a data loader is: reading, mapping, worker processes, passing between processes."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from torch.utils import data

from detectron2.utils import comm

from .build.loaders import build_batch_data_loader
from .common import DatasetFromList, MapDataset
from .samplers.distributed_sampler import TrainingSampler

logger = logging.getLogger(__name__)

__all__ = ["DataLoaderBenchmark", "iter_benchmark"]


def iter_benchmark(
    iterator: Iterator[Any], num_iter: int, warmup: int = 5, max_time_seconds: float = 60
) -> tuple[float, list[float]]:
    """Time the steps of an iterator.

    Args:
        iterator: an endless one, or long enough.
        num_iter: number of steps to time.
        warmup: number of steps before these.
        max_time_seconds: stop early after this time.

    Returns:
        Average seconds per step, and the seconds of each.
    """
    for _ in itertools.islice(iterator, warmup):
        pass
    seconds: list[float] = []
    start = last = time.perf_counter()
    for _ in range(num_iter):
        next(iterator)
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
        if now - start > max_time_seconds:
            break
    return sum(seconds) / max(len(seconds), 1), seconds


class _FixedElements(data.IterableDataset[Any]):
    """Yields the same few elements for ever, so that only passing them on takes time."""

    def __init__(self, elements: list[Any]) -> None:
        self.elements = elements

    def __iter__(self) -> Iterator[Any]:
        return itertools.cycle(self.elements)


class DataLoaderBenchmark:
    """Time the stages of a training loader one by one. Each method logs what it measured."""

    def __init__(
        self,
        dataset: Any,
        *,
        mapper: Callable[[Any], Any],
        sampler: Any = None,
        total_batch_size: int,
        num_workers: int = 0,
        max_time_seconds: int = 90,
    ) -> None:
        """
        Args:
            dataset: list of dicts, or a torch data set with indices.
            mapper: dict -> what a model takes.
            sampler: order; `TrainingSampler` by default.
            total_batch_size: number of images per batch over all processes.
            num_workers: number of worker processes.
            max_time_seconds: limit of each benchmark.
        """
        self.dataset = DatasetFromList(dataset, copy=False) if isinstance(dataset, list) else dataset
        self.mapper = mapper
        self.sampler = (
            TrainingSampler(len(self.dataset), shuffle=True, seed=0) if sampler is None else sampler
        )
        self.total_batch_size = total_batch_size
        self.num_workers = num_workers
        self.per_gpu_batch_size = total_batch_size // comm.get_world_size()
        self.max_time_seconds = max_time_seconds

    def _measure(
        self, iterable: Iterable[Any], num_iter: int, warmup: int, what: str, batch_size: int = 1
    ) -> float:
        average, seconds = iter_benchmark(iter(iterable), num_iter, warmup, self.max_time_seconds)
        rate = batch_size / average if average > 0 else float("inf")
        slowest = np.percentile(seconds, 99) if seconds else 0.0
        logger.info(
            "%s: %.1f images/s; %.1f ms per step on average, %.1f ms in the slowest hundredth",
            what, rate, average * 1e3, slowest * 1e3,
        )  # fmt: skip
        return average

    def _loader(self, dataset: Any, sampler: Any, num_workers: int) -> Any:
        return build_batch_data_loader(dataset, sampler, self.total_batch_size, num_workers=num_workers)

    def benchmark_dataset(self, num_iter: int, warmup: int = 5) -> None:
        """Time taking dicts out of the data set."""
        self._measure((self.dataset[i] for i in self.sampler), num_iter, warmup, "Data set")

    def benchmark_mapper(self, num_iter: int, warmup: int = 5) -> None:
        """Time taking and mapping dicts, in this process."""
        self._measure((self.mapper(self.dataset[i]) for i in self.sampler), num_iter, warmup, "Mapper")

    def benchmark_workers(self, num_iter: int, warmup: int = 10) -> None:
        """Time the loader with no worker process, with one, and with as many as asked for."""
        mapped = MapDataset(self.dataset, self.mapper)
        for num_workers in sorted({0, 1, self.num_workers}):
            loader = self._loader(mapped, self.sampler, num_workers)
            what = f"Loader with {num_workers} workers"
            self._measure(loader, num_iter, warmup, what, self.per_gpu_batch_size)

    def benchmark_IPC(self, num_iter: int, warmup: int = 10) -> None:
        """Time passing mapped elements from workers to this process, without reading or mapping."""
        elements = [
            self.mapper(self.dataset[i]) for i in itertools.islice(self.sampler, self.per_gpu_batch_size)
        ]
        loader = self._loader(_FixedElements(elements), None, self.num_workers)
        self._measure(loader, num_iter, warmup, "Passing between processes", self.per_gpu_batch_size)

    def benchmark_distributed(self, num_iter: int, warmup: int = 10) -> None:
        """Time the loader in all processes of a distributed job at once."""
        mapped = MapDataset(self.dataset, self.mapper)
        comm.synchronize()
        loader = self._loader(mapped, self.sampler, self.num_workers)
        average = self._measure(loader, num_iter, warmup, "Loader", self.per_gpu_batch_size)
        slowest = max(comm.all_gather(average))
        logger.info("Slowest of %d processes: %.1f ms per step", comm.get_world_size(), slowest * 1e3)
