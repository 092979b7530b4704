"""Data set wrappers."""

from __future__ import annotations

import itertools
import pickle

import pytest
from torch.utils.data import DataLoader, Dataset, IterableDataset

from detectron2.data import common
from detectron2.data.common import AspectRatioGroupedDataset, DatasetFromList, MapDataset, ToIterableDataset
from detectron2.data.samplers import TrainingSampler


def _halve(number: int) -> int | None:
    return number // 2 if number % 2 == 0 else None


class _Numbers(IterableDataset):
    def __iter__(self):
        yield from range(6)


def test_map_replaces_what_maps_to_none() -> None:
    mapped = MapDataset(list(range(10)), _halve)
    assert len(mapped) == 10
    assert mapped[4] == 2
    assert all(mapped[i] in range(5) for i in range(10))


def test_map_that_never_succeeds_raises() -> None:
    with pytest.raises(RuntimeError, match="all 3 elements"):
        MapDataset([1, 3, 5], _halve)[0]


def test_map_of_a_stream_skips_none() -> None:
    assert list(MapDataset(_Numbers(), _halve)) == [0, 1, 2]


@pytest.mark.parametrize("dataset", [list(range(4)), DatasetFromList([0, 1, 2, 3]), _Numbers()])
def test_wrappers_survive_pickling(dataset) -> None:
    copy = pickle.loads(pickle.dumps(MapDataset(dataset, _halve)))
    first = next(iter(copy)) if isinstance(dataset, IterableDataset) else copy[2]
    assert first in (0, 1)


@pytest.mark.parametrize("serialize", [True, False])
def test_elements_can_be_changed_without_harm(serialize: bool) -> None:
    data = DatasetFromList([{"a": [1]}, {"b": [2]}], serialize=serialize)
    data[0]["a"].append(3)
    assert data[0] == {"a": [1]} and data[-1] == {"b": [2]} and len(data) == 2


def test_uncopied_elements_are_the_same_objects() -> None:
    element = {"a": 1}
    assert DatasetFromList([element], copy=False, serialize=False)[0] is element


@pytest.mark.parametrize("index", [2, -3])
def test_index_out_of_range(index: int) -> None:
    with pytest.raises(IndexError):
        DatasetFromList(["a", "b"])[index]


def test_empty_list() -> None:
    assert list(DatasetFromList([])) == []


def test_storage_can_be_replaced() -> None:
    calls = []

    def store(items):
        calls.append(len(items))
        return list(items)

    with common.set_default_dataset_from_list_serialize_method(store):
        DatasetFromList([1, 2])
    DatasetFromList([1])
    assert DatasetFromList([1, 2, 3], serialize=store)[2] == 3
    assert calls == [2, 3]


class _Squares(Dataset):
    def __getitem__(self, index: int) -> int:
        return index * index

    def __len__(self) -> int:
        return 10


def test_stream_follows_the_sampler() -> None:
    stream = ToIterableDataset(_Squares(), TrainingSampler(10, shuffle=False))
    assert list(itertools.islice(stream, 4)) == [0, 1, 4, 9]
    with pytest.raises(TypeError, match="iterable"):
        ToIterableDataset(_Numbers(), TrainingSampler(10))
    with pytest.raises(TypeError, match="sampler"):
        ToIterableDataset(_Squares(), [1, 2])


@pytest.mark.parametrize("chunk", [1, 2])
def test_loader_workers_share_the_stream(chunk: int) -> None:
    stream = ToIterableDataset(_Squares(), TrainingSampler(10, shuffle=False), shard_chunk_size=chunk)
    loader = DataLoader(stream, batch_size=chunk, num_workers=2)
    first = [int(x) for batch in itertools.islice(loader, 10 // chunk) for x in batch]
    assert first == [i * i for i in range(10)]


def test_batches_are_all_wide_or_all_high() -> None:
    sizes = [(4, 3), (3, 4), (5, 2), (3, 3), (9, 1), (2, 8)]
    elements = [{"width": w, "height": h, "id": i} for i, (w, h) in enumerate(sizes)]
    batches = [[e["id"] for e in batch] for batch in AspectRatioGroupedDataset(elements, 2)]
    assert batches == [[0, 2], [1, 3]]
