"""Data set wrappers: mapping, compact storage of lists, streams, and batches of like aspect ratio."""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import pickle
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils import data
from torch.utils.data.sampler import Sampler

from detectron2.utils.serialize import PicklableWrapper
from detectron2.utils.user_errors import UserTypeError

logger = logging.getLogger(__name__)

__all__ = [
    "AspectRatioGroupedDataset",
    "DatasetFromList",
    "MapDataset",
    "ToIterableDataset",
    "set_default_dataset_from_list_serialize_method",
]


class _MapIterableDataset(data.IterableDataset[Any]):
    """The elements of an iterable data set, mapped; those that map to None are left out."""

    def __init__(self, dataset: data.IterableDataset[Any], map_func: Callable[[Any], Any]) -> None:
        self._dataset = dataset
        self._map_func = PicklableWrapper(map_func)

    def __len__(self) -> int:
        return len(self._dataset)  # type: ignore[arg-type]  # raises where the stream has no length

    def __iter__(self) -> Iterator[Any]:
        return (mapped for mapped in map(self._map_func, self._dataset) if mapped is not None)


class MapDataset(data.Dataset[Any]):
    """Apply a function to the elements of a data set.

    Where the function returns None, another element is drawn at random from those that have not done so.
    """

    def __new__(cls, dataset: Any, map_func: Callable[[Any], Any]) -> Any:
        if isinstance(dataset, data.IterableDataset):
            return _MapIterableDataset(dataset, map_func)
        return super().__new__(cls)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self._dataset, self._map_func

    def __init__(self, dataset: Any, map_func: Callable[[Any], Any]) -> None:
        """
        Args:
            dataset: with `__getitem__` and `__len__`, or an iterable data set.
            map_func: element -> mapped element, or None to skip it.
        """
        self._dataset = dataset
        self._map_func = PicklableWrapper(map_func)
        self._rng = random.Random(42)
        self._fallback_candidates = set(range(len(dataset)))

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, idx: int) -> Any:  # noqa: RET503  # the loop has no end
        index = int(idx)
        for num_failures in itertools.count(1):
            mapped = self._map_func(self._dataset[index])
            if mapped is not None:
                self._fallback_candidates.add(index)
                return mapped
            self._fallback_candidates.discard(index)
            if not self._fallback_candidates:
                raise RuntimeError(f"The map function returned None for all {len(self)} elements.")
            if num_failures >= 3:
                logger.warning(
                    "No mapped element in %d attempts; the last was index %d.", num_failures, index
                )
            index = self._rng.choice(sorted(self._fallback_candidates))


class _TorchSerializedList:
    """A list pickled into one tensor, which worker processes share instead of copying page by page."""

    def __init__(self, items: Sequence[Any]) -> None:
        pickled = [np.frombuffer(pickle.dumps(item, protocol=-1), dtype=np.uint8) for item in items]
        self._ends = torch.from_numpy(np.cumsum([len(p) for p in pickled], dtype=np.int64))
        self._bytes = torch.from_numpy(np.concatenate(pickled) if pickled else np.zeros(0, dtype=np.uint8))
        logger.info("%d data set dicts take %.1f MiB serialized", len(pickled), len(self._bytes) / 2**20)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, idx: int) -> Any:
        if not -len(self) <= idx < len(self):
            raise IndexError(f"index {idx} is out of range for {len(self)} elements")
        idx = int(idx) % len(self)
        start = self._ends[idx - 1].item() if idx > 0 else 0
        return pickle.loads(self._bytes[int(start) : int(self._ends[idx].item())].numpy().data)


_DEFAULT_DATASET_FROM_LIST_SERIALIZE_METHOD: Callable[[Sequence[Any]], Any] = _TorchSerializedList


@contextlib.contextmanager
def set_default_dataset_from_list_serialize_method(new: Callable[[Sequence[Any]], Any]) -> Iterator[None]:
    """Within the context, `DatasetFromList(serialize=True)` stores lists through `new`."""
    global _DEFAULT_DATASET_FROM_LIST_SERIALIZE_METHOD
    before = _DEFAULT_DATASET_FROM_LIST_SERIALIZE_METHOD
    _DEFAULT_DATASET_FROM_LIST_SERIALIZE_METHOD = new
    try:
        yield
    finally:
        _DEFAULT_DATASET_FROM_LIST_SERIALIZE_METHOD = before


class DatasetFromList(data.Dataset[Any]):
    """A list as a data set."""

    def __init__(
        self, lst: list[Any], copy: bool = True, serialize: bool | Callable[[list[Any]], Any] = True
    ) -> None:
        """
        Args:
            lst: the elements.
            copy: whether elements are copied when they are taken, so that a mapper may change them.
                Serialized elements are always new.
            serialize: whether the elements are stored pickled, which keeps memory low with many workers; or a
                function from the list to a list-like object that stores them.
        """
        if not isinstance(serialize, (bool, Callable)):  # type: ignore[arg-type]
            raise UserTypeError(f"serialize must be a bool or a function, got {type(serialize).__name__}.")
        self._copy = copy
        self._serialize = bool(serialize)
        store = serialize if callable(serialize) else _DEFAULT_DATASET_FROM_LIST_SERIALIZE_METHOD
        self._lst = store(lst) if serialize else lst

    def __len__(self) -> int:
        return len(self._lst)

    def __getitem__(self, idx: int) -> Any:
        item = self._lst[idx]
        return copy.deepcopy(item) if self._copy and not self._serialize else item


class ToIterableDataset(data.IterableDataset[Any]):
    """The stream of elements in a sampler's order."""

    def __init__(
        self,
        dataset: data.Dataset[Any],
        sampler: Sampler[int],
        shard_sampler: bool = True,
        shard_chunk_size: int = 1,
    ) -> None:
        """
        Args:
            dataset: with `__getitem__`.
            sampler: yields indices.
            shard_sampler: whether the workers of a data loader share the sampler out among themselves. Set
                False when the sampler does so itself.
            shard_chunk_size: how many indices in a row a worker takes.
        """
        if isinstance(dataset, data.IterableDataset):
            raise UserTypeError("ToIterableDataset needs a data set with indices, got an iterable one.")
        if not isinstance(sampler, Sampler):
            raise UserTypeError(f"sampler must be a torch.utils.data.Sampler, got {type(sampler).__name__}.")
        self.dataset = dataset
        self.sampler = sampler
        self.shard_sampler = shard_sampler
        self.shard_chunk_size = shard_chunk_size

    def __iter__(self) -> Iterator[Any]:
        indices: Iterator[int] = iter(self.sampler)
        if self.shard_sampler:
            indices = _shard_iterator_dataloader_worker(indices, self.shard_chunk_size)
        for index in indices:
            yield self.dataset[index]

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]  # raises where the sampler is endless


def _shard_iterator_dataloader_worker(iterable: Iterable[int], chunk_size: int = 1) -> Iterator[int]:
    """In worker k of n of a data loader: the chunks k, k + n, k + 2n, ...; elsewhere all."""
    worker = data.get_worker_info()
    if worker is None or worker.num_workers == 1:
        return iter(iterable)
    return (
        index for place, index in enumerate(iterable) if place // chunk_size % worker.num_workers == worker.id
    )


class AspectRatioGroupedDataset(data.IterableDataset[Any]):
    """Batches of images that are all wider than high, or all not, so that little of a batch is padding.

    Batches come in the order in which they fill up, so which images are in the k-th one follows from the
    stream alone.
    """

    def __init__(self, dataset: Any, batch_size: int) -> None:
        """
        Args:
            dataset: an iterable of dicts with `width` and `height`.
            batch_size: number of dicts per batch.
        """
        self.dataset = dataset
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        filling: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        for element in self.dataset:
            is_landscape = element["width"] > element["height"]
            filling[is_landscape].append(element)
            if len(filling[is_landscape]) == self.batch_size:
                batch, filling[is_landscape] = filling[is_landscape], []
                yield batch
