"""What every sampler does: the same order from the same seed, whole epochs, shares that make up the whole."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch.utils.data import Sampler

from detectron2.data.samplers import (
    GroupedBatchSampler,
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.utils import comm

from . import registered

SIZE = 11
FACTORS = torch.tensor([1.0, 2.0, 1.0, 3.0, 1.0])


@dataclass(frozen=True)
class Row:
    """A sampler of at most 11 elements from a seed, and what one epoch of it holds."""

    make: Callable[[int], Sampler]
    epoch: Counter[int] | int
    """How often each element comes, or how many different ones come."""
    is_endless: bool = True
    in_batches: bool = False

    @property
    def length(self) -> int:
        return self.epoch if isinstance(self.epoch, int) else self.epoch.total()


SAMPLERS = {
    "TrainingSampler": Row(lambda seed: TrainingSampler(SIZE, seed=seed), Counter(range(SIZE))),
    "RandomSubsetTrainingSampler": Row(
        lambda seed: RandomSubsetTrainingSampler(SIZE, 0.5, seed_shuffle=seed, seed_subset=3), SIZE // 2
    ),
    "RepeatFactorTrainingSampler": Row(
        lambda seed: RepeatFactorTrainingSampler(FACTORS, seed=seed), Counter([0, 1, 1, 2, 3, 3, 3, 4])
    ),
    "InferenceSampler": Row(lambda seed: InferenceSampler(SIZE), Counter(range(SIZE)), is_endless=False),
    "GroupedBatchSampler": Row(
        lambda seed: GroupedBatchSampler(TrainingSampler(12, seed=seed), [0, 1] * 6, 3),
        Counter(range(12)), in_batches=True,
    ),
}  # fmt: skip

names = pytest.mark.parametrize("name", SAMPLERS)
endless = pytest.mark.parametrize("name", [name for name, row in SAMPLERS.items() if row.is_endless])
shared = pytest.mark.parametrize("name", [name for name, row in SAMPLERS.items() if not row.in_batches])
# A stream of batches starts where the sampler inside does.
startable = pytest.mark.parametrize(
    "name", [name for name, row in SAMPLERS.items() if row.is_endless and not row.in_batches]
)


def test_every_sampler_has_a_row() -> None:
    assert list(registered.subclasses(Sampler)) == sorted(SAMPLERS)


def elements(name: str, sampler: Sampler, epochs: int = 3) -> list[int]:
    """The first elements, out of their batches."""
    stream: Iterator[int] = (
        itertools.chain.from_iterable(sampler) if SAMPLERS[name].in_batches else iter(sampler)
    )
    return list(itertools.islice(stream, epochs * SAMPLERS[name].length))


@names
def test_the_same_seed_gives_the_same_order_each_time(name: str) -> None:
    make = SAMPLERS[name].make
    sampler = make(7)
    order = elements(name, sampler)
    torch.manual_seed(5)  # the global generator has no part in it
    assert elements(name, sampler) == order == elements(name, make(7))
    assert elements(name, pickle.loads(pickle.dumps(sampler))) == order
    if SAMPLERS[name].is_endless:
        assert elements(name, make(8)) != order


@names
def test_an_epoch_is_complete(name: str) -> None:
    row = SAMPLERS[name]
    order = elements(name, row.make(7), epochs=1)
    if isinstance(row.epoch, int):
        assert len(set(order)) == row.epoch
    else:
        assert Counter(order) == row.epoch


@endless
def test_epochs_differ_in_order_and_not_in_content(name: str) -> None:
    row = SAMPLERS[name]
    order = elements(name, row.make(7), epochs=2)
    first, second = order[: row.length], order[row.length :]
    assert first != second
    assert Counter(first) == Counter(second)


@names
def test_length_is_right_or_refused(name: str) -> None:
    row = SAMPLERS[name]
    if row.is_endless:
        with pytest.raises((TypeError, NotImplementedError)):
            len(row.make(7))  # type: ignore[arg-type]  # that it has none is the point
    else:
        assert len(row.make(7)) == len(list(row.make(7))) == row.length  # type: ignore[arg-type]


@shared
@pytest.mark.parametrize("world_size", [2, 3, 20])
def test_shares_make_up_the_whole(name: str, world_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    row = SAMPLERS[name]
    whole = elements(name, row.make(7), epochs=world_size)
    monkeypatch.setattr(comm, "get_world_size", lambda: world_size)
    shares = []
    for rank in range(world_size):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        shares.append(elements(name, row.make(7), epochs=1))
    if row.is_endless:
        assert [element for turn in zip(*shares, strict=True) for element in turn] == whole
    else:
        assert [element for share in shares for element in share] == whole
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@startable
def test_a_later_start_continues_the_order(name: str) -> None:
    sampler = SAMPLERS[name].make(7)
    order = elements(name, sampler)
    sampler.start = 4  # type: ignore[attr-defined]  # of training samplers
    assert elements(name, sampler)[:-4] == order[4:]
