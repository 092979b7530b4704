"""Samplers against plain-Python references."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from detectron2.data.samplers import (
    GroupedBatchSampler,
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.utils import comm


def _take(sampler, count: int) -> list[int]:
    return list(itertools.islice(sampler, count))


@pytest.fixture
def as_worker(monkeypatch: pytest.MonkeyPatch):
    def pretend(rank: int, world_size: int) -> None:
        monkeypatch.setattr(comm, "get_rank", lambda: rank)
        monkeypatch.setattr(comm, "get_world_size", lambda: world_size)

    return pretend


def test_each_epoch_is_a_seeded_permutation() -> None:
    generator = torch.Generator()
    generator.manual_seed(42)
    expected = torch.cat([torch.randperm(7, generator=generator) for _ in range(3)]).tolist()
    assert _take(TrainingSampler(7, seed=42), 21) == expected
    assert _take(TrainingSampler(3, shuffle=False), 7) == [0, 1, 2, 0, 1, 2, 0]


def test_iterating_again_starts_again_and_start_continues() -> None:
    sampler = TrainingSampler(7, seed=1)
    stream = _take(sampler, 40)
    assert _take(sampler, 40) == stream
    sampler.start = 13
    assert _take(sampler, 27) == stream[13:]


@pytest.mark.parametrize("start", [0, 4])
def test_workers_share_one_stream(as_worker, start: int) -> None:
    whole = _take(TrainingSampler(7, seed=1), 60)
    shares = []
    for rank in range(3):
        as_worker(rank, 3)
        sampler = TrainingSampler(7, seed=1)
        sampler.start = start
        shares.append(_take(sampler, 10))
    interleaved = [index for step in zip(*shares) for index in step]
    assert interleaved == whole[3 * start : 3 * start + 30]


@pytest.mark.parametrize("size", [0, -1])
def test_empty_training_data_is_an_error(size: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        TrainingSampler(size)
    with pytest.raises(TypeError):
        TrainingSampler(2.5)


def test_one_element_repeats() -> None:
    assert _take(TrainingSampler(1), 3) == [0, 0, 0]


def test_subset_stays_the_same_over_epochs() -> None:
    sampler = RandomSubsetTrainingSampler(20, 0.25, seed_shuffle=3, seed_subset=4)
    generator = torch.Generator()
    generator.manual_seed(4)
    subset = torch.randperm(20, generator=generator)[:5]
    generator.manual_seed(3)
    expected = torch.cat([subset[torch.randperm(5, generator=generator)] for _ in range(3)]).tolist()
    assert _take(sampler, 15) == expected
    with pytest.raises(ValueError, match="0.0"):
        RandomSubsetTrainingSampler(20, 0.0)
    with pytest.raises(ValueError, match="leaves none"):
        RandomSubsetTrainingSampler(3, 0.1)


def _images(*categories: list[int]) -> list[dict]:
    return [{"annotations": [{"category_id": c} for c in cs]} for cs in categories]


def test_repeat_factors_follow_the_rarest_category() -> None:
    images = _images([0], [0, 1, 1], [0], [])
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency
    rare = math.sqrt(0.8 / 0.25)
    frequent = math.sqrt(0.8 / 0.75)
    torch.testing.assert_close(factors(images, 0.8), torch.tensor([frequent, rare, frequent, 1.0]))
    torch.testing.assert_close(factors(images, 0.8, sqrt=False)[1], torch.tensor(0.8 / 0.25))
    assert factors(images, 0.1).tolist() == [1, 1, 1, 1]


def test_repeat_factor_sampler_repeats_on_average() -> None:
    sampler = RepeatFactorTrainingSampler(torch.tensor([1.0, 2.3, 1.0]), seed=0)
    generator = torch.Generator()
    generator.manual_seed(0)
    counts = torch.stack(
        [torch.bincount(sampler._get_epoch_indices(generator), minlength=3) for _ in range(2000)]
    ).float()
    assert counts[:, [0, 2]].eq(1).all()
    assert set(counts[:, 1].tolist()) == {2, 3}
    assert counts[:, 1].mean().item() == pytest.approx(2.3, abs=0.05)
    assert _take(RepeatFactorTrainingSampler(torch.tensor([1.0, 3.0]), shuffle=False), 8) == [0, 1, 1, 1] * 2


@pytest.mark.parametrize(("size", "world"), [(10, 1), (10, 3), (2, 4), (0, 2), (7, 7)])
def test_inference_covers_everything_once_in_order(as_worker, size: int, world: int) -> None:
    parts = []
    for rank in range(world):
        as_worker(rank, world)
        sampler = InferenceSampler(size)
        assert len(sampler) == len(list(sampler))
        parts.append(list(sampler))
    assert [index for part in parts for index in part] == list(range(size))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_batches_hold_one_group() -> None:
    batches = _take(GroupedBatchSampler(TrainingSampler(6, shuffle=False), [0, 0, 1, 1, 1, 0], 2), 4)
    assert batches == [[0, 1], [2, 3], [5, 0], [4, 2]]
    with pytest.raises(TypeError):
        GroupedBatchSampler([0, 1], [0, 0], 2)
