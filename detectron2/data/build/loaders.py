"""Data loaders for training (an endless stream of batches) and testing (one pass)."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import data as torchdata

from detectron2.config.config.construction import configurable
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.user_errors import UserValueError

from ..common import AspectRatioGroupedDataset, DatasetFromList, MapDataset, ToIterableDataset
from ..dataset_mapper import DatasetMapper
from ..samplers.distributed_sampler import (
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from .annotation_kinds import check_annotation_kinds
from .class_ids import check_class_ids, fill_class_counts
from .dataset_dicts import get_detection_dataset_dicts

logger = logging.getLogger(__name__)


def trivial_batch_collator(batch: list[Any]) -> list[Any]:
    """A batch is the list of its elements."""
    return batch


def worker_init_reset_seed(worker_id: int) -> None:
    """Give each worker process random numbers of its own, that follow from the data loader's seed."""
    seed_all_rng(torch.initial_seed() % 2**31 + worker_id)


def _local_batch_size(total_batch_size: int, single_gpu_batch_size: int | None) -> int:
    world_size = comm.get_world_size()
    if single_gpu_batch_size:
        if total_batch_size:
            raise UserValueError(
                f"Give either total_batch_size or single_gpu_batch_size, not both "
                f"({total_batch_size} and {single_gpu_batch_size})."
            )
        return single_gpu_batch_size
    if total_batch_size <= 0 or total_batch_size % world_size:
        raise UserValueError(
            "The total batch size must be a positive multiple of the number of processes: "
            f"SOLVER.IMS_PER_BATCH is {total_batch_size}, and there are {world_size} processes."
        )
    return total_batch_size // world_size


def _worker_options(
    num_workers: int, prefetch_factor: int | None, persistent_workers: bool, seed: int | None
) -> dict[str, Any]:
    """Arguments of `DataLoader`, which takes some only where there are workers."""
    return {
        "num_workers": num_workers,
        "worker_init_fn": worker_init_reset_seed,
        "persistent_workers": persistent_workers and num_workers > 0,
        "prefetch_factor": prefetch_factor if num_workers > 0 else None,
        "generator": None if seed is None else torch.Generator().manual_seed(seed),
    }


def build_batch_data_loader(
    dataset: Any,
    sampler: Any,
    total_batch_size: int,
    *,
    aspect_ratio_grouping: bool = False,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    drop_last: bool = True,
    single_gpu_batch_size: int | None = None,
    prefetch_factor: int | None = 2,
    persistent_workers: bool = False,
    pin_memory: bool = False,
    seed: int | None = None,
    **kwargs: Any,
) -> Any:
    """Make a loader of batches out of a data set and an order.

    Args:
        dataset: with indices, or iterable.
        sampler: yields indices; must be None for an iterable data set.
        total_batch_size: number of images per batch over all processes.
        aspect_ratio_grouping: whether the images of a batch are all wider than high or all not. Elements must
            be dicts with `width` and `height` then.
        num_workers: number of worker processes; 0 loads in this one.
        collate_fn: list of elements -> batch; by default the list itself.
        drop_last: whether a last incomplete batch is left out.
        single_gpu_batch_size: number of images per process, instead of `total_batch_size` (which is 0
            then).
        prefetch_factor, persistent_workers, pin_memory: as for `torch.utils.data.DataLoader`.
        seed: of the workers' random numbers.
        **kwargs: further arguments of `DataLoader`.

    Returns:
        An iterable of batches.
    """
    batch_size = _local_batch_size(total_batch_size, single_gpu_batch_size)
    if isinstance(dataset, torchdata.IterableDataset):
        if sampler is not None:
            raise UserValueError("An iterable data set has its own order: sampler must be None.")
    else:
        dataset = ToIterableDataset(dataset, sampler, shard_chunk_size=batch_size)

    options = {
        **_worker_options(num_workers, prefetch_factor, persistent_workers, seed),
        "pin_memory": pin_memory,
        **kwargs,
    }
    if not aspect_ratio_grouping:
        return torchdata.DataLoader(
            dataset,
            batch_size=batch_size,
            drop_last=drop_last,
            collate_fn=trivial_batch_collator if collate_fn is None else collate_fn,
            **options,
        )
    # Workers send single images; the grouping happens here, over the images of all workers.
    images = torchdata.DataLoader(dataset, collate_fn=operator.itemgetter(0), **options)
    batches = AspectRatioGroupedDataset(images, batch_size)
    return batches if collate_fn is None else MapDataset(batches, collate_fn)


def _map_and_order(
    dataset: Any, mapper: Callable[[Any], Any] | None, sampler: Any, make_sampler: Callable[[int], Any]
) -> tuple[Any, Any]:
    """The mapped data set, and `sampler` or the default one; None for a stream."""
    wrapped = DatasetFromList(dataset, copy=False) if isinstance(dataset, list) else dataset
    mapped = wrapped if mapper is None else MapDataset(wrapped, mapper)
    if not isinstance(mapped, torchdata.IterableDataset):
        return mapped, make_sampler(len(mapped)) if sampler is None else sampler
    if sampler is not None:
        raise UserValueError("An iterable data set has its own order: sampler must be None.")
    return mapped, None


def _build_train_sampler(cfg: Any, dataset: Any) -> Any:
    name = cfg.DATALOADER.SAMPLER_TRAIN
    logger.info("Training sampler: %s", name)
    if name == "TrainingSampler":
        return TrainingSampler(len(dataset))
    if name == "RepeatFactorTrainingSampler":
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            dataset, cfg.DATALOADER.REPEAT_THRESHOLD, sqrt=cfg.DATALOADER.REPEAT_SQRT
        )
        return RepeatFactorTrainingSampler(factors)
    if name == "RandomSubsetTrainingSampler":
        return RandomSubsetTrainingSampler(len(dataset), cfg.DATALOADER.RANDOM_SUBSET_RATIO)
    raise UserValueError(
        f"DATALOADER.SAMPLER_TRAIN must be TrainingSampler, RepeatFactorTrainingSampler or "
        f"RandomSubsetTrainingSampler, got {name!r}."
    )


def train_loader_from_config(
    cfg: Any, mapper: Any = None, *, dataset: Any = None, sampler: Any = None
) -> dict[str, Any]:
    if dataset is None:
        needs_keypoints = cfg.MODEL.KEYPOINT_ON
        dataset = get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN,
            filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            min_keypoints=cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if needs_keypoints else 0,
            proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
        )
        if isinstance(dataset, list):
            check_class_ids(fill_class_counts(cfg), dataset)
            if mapper is None:
                check_annotation_kinds(cfg, dataset)
    if mapper is None:
        mapper = DatasetMapper(cfg, True)
    if sampler is None and not isinstance(dataset, torchdata.IterableDataset):
        sampler = _build_train_sampler(cfg, dataset)
    options = cfg.DATALOADER
    return {
        "dataset": dataset,
        "mapper": mapper,
        "sampler": sampler,
        "num_workers": options.NUM_WORKERS,
        "aspect_ratio_grouping": options.ASPECT_RATIO_GROUPING,
        "total_batch_size": cfg.SOLVER.IMS_PER_BATCH,
    }


@configurable(from_config=train_loader_from_config)
def build_detection_train_loader(
    dataset: Any,
    *,
    mapper: Callable[[dict[str, Any]], Any] | None,
    sampler: Any = None,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Make the endless loader of training batches. Takes these arguments, or a config.

    Args:
        dataset: list of dicts, or a torch data set.
        mapper: dict -> what a model takes, such as `DatasetMapper`; None if the data set yields that
            already.
        sampler: order; `TrainingSampler` by default. Must be None for an iterable data set.
        total_batch_size: number of images per batch over all processes.
        aspect_ratio_grouping: see `build_batch_data_loader`.
        num_workers: number of worker processes; 0 loads in this one.
        collate_fn: list of elements -> batch; by default the list itself.
        **kwargs: further arguments of `build_batch_data_loader`.

    Returns:
        An iterable of batches, each a list of what `mapper` returns.
    """
    mapped, order = _map_and_order(dataset, mapper, sampler, TrainingSampler)
    kwargs |= {"num_workers": num_workers, "aspect_ratio_grouping": aspect_ratio_grouping}
    return build_batch_data_loader(mapped, order, total_batch_size, collate_fn=collate_fn, **kwargs)


def test_loader_from_config(cfg: Any, dataset_name: str | list[str], mapper: Any = None) -> dict[str, Any]:
    names = [dataset_name] if isinstance(dataset_name, str) else list(dataset_name)
    proposal_files = None
    if cfg.MODEL.LOAD_PROPOSALS:
        file_of = dict(zip(cfg.DATASETS.TEST, cfg.DATASETS.PROPOSAL_FILES_TEST))
        missing = [name for name in names if name not in file_of]
        if missing:
            raise UserValueError(
                f"MODEL.LOAD_PROPOSALS needs a file for each data set: {', '.join(missing)} has none in "
                "DATASETS.TEST and DATASETS.PROPOSAL_FILES_TEST."
            )
        proposal_files = [file_of[name] for name in names]
    dataset = get_detection_dataset_dicts(names, filter_empty=False, proposal_files=proposal_files)
    return {
        "dataset": dataset,
        "mapper": DatasetMapper(cfg, False) if mapper is None else mapper,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
        "sampler": None if isinstance(dataset, torchdata.IterableDataset) else InferenceSampler(len(dataset)),
    }


@configurable(from_config=test_loader_from_config)
def build_detection_test_loader(
    dataset: list[Any] | torchdata.Dataset[Any],
    *,
    mapper: Callable[[dict[str, Any]], Any] | None,
    sampler: torchdata.Sampler[Any] | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> torchdata.DataLoader[Any]:
    """Make the loader of one pass over a data set. Takes these arguments, or a config and the data set's
    name.

    Args:
        dataset: list of dicts, or a torch data set.
        mapper: dict -> what a model takes; None if the data set yields that already.
        sampler: order; `InferenceSampler` by default. Must be None for an iterable data set.
        batch_size: number of images per batch in each process.
        num_workers: number of worker processes; 0 loads in this one.
        collate_fn: list of elements -> batch; by default the list itself.

    Returns:
        A loader of batches; the last one may be smaller.
    """
    mapped, order = _map_and_order(dataset, mapper, sampler, InferenceSampler)
    return torchdata.DataLoader(
        mapped,
        batch_size,
        sampler=order,
        num_workers=num_workers,
        collate_fn=collate_fn or trivial_batch_collator,
    )
