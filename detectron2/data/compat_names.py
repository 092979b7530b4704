"""Names that other people's code takes from modules of this package, and that nothing of ours uses.

Those of `detectron2.data.datasets` stand in a file of their own there.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils import data as torchdata

from detectron2.config.config.construction import configurable
from detectron2.structures.boxes import Boxes, BoxMode, pairwise_iou
from detectron2.structures.instances import Instances
from detectron2.structures.keypoints import Keypoints
from detectron2.structures.masks import BitMasks, PolygonMasks
from detectron2.structures.polygons import polygons_to_bitmask
from detectron2.structures.rotated_boxes import RotatedBoxes
from detectron2.utils.comm import get_world_size
from detectron2.utils.compat_names import log_api_usage
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import log_first_n
from detectron2.utils.offer import offer
from detectron2.utils.user_errors import UserValueError

from . import transforms as T
from .build.dataset_dicts import get_detection_dataset_dicts
from .catalog import DatasetCatalog, MetadataCatalog
from .common import AspectRatioGroupedDataset, DatasetFromList, MapDataset, ToIterableDataset
from .dataset_mapper import DatasetMapper
from .detection_utils.image_io import make_upright
from .detection_utils.metadata_queries import check_metadata_consistency
from .samplers.distributed_sampler import (
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from .transforms.augmentation import Augmentation, transform_to_aug
from .transforms.build import build_augmentation
from .transforms.transform import ExtentTransform, ResizeTransform, RotationTransform

logger = logging.getLogger(__name__)


class _EmptyMapDataset(torchdata.Dataset[list[int]]):
    """As long as another data set, with next to nothing in each place."""

    def __init__(self, dataset: Any) -> None:
        self.ds = dataset

    def __len__(self) -> int:
        return len(self.ds)

    def __getitem__(self, idx: int) -> list[int]:
        self.ds[idx]
        return [0]


def _roundrobin(*iterables: Iterable[Any]) -> Iterator[Any]:
    """Take one element from each in turn, and go on with those that have more."""
    iterators = [iter(iterable) for iterable in iterables]
    while iterators:
        remaining = []
        for iterator in iterators:
            for element in itertools.islice(iterator, 1):
                remaining.append(iterator)
                yield element
        iterators = remaining


def _get_train_datasets_repeat_factors(cfg: Any) -> dict[str, float]:
    """How often each data set of `DATASETS.TRAIN` is seen, from `DATASETS.TRAIN_REPEAT_FACTOR`.

    That key is the caller's own: a list of (name, factor). The others are seen once.
    """
    given = dict(cfg.DATASETS.TRAIN_REPEAT_FACTOR)
    unknown = sorted(given.keys() - set(cfg.DATASETS.TRAIN))
    if unknown:
        raise UserValueError(
            f"DATASETS.TRAIN_REPEAT_FACTOR names {', '.join(unknown)}, which DATASETS.TRAIN does not have"
        )
    return {name: float(given.get(name, 1.0)) for name in cfg.DATASETS.TRAIN}


def _build_weighted_sampler(cfg: Any, enable_category_balance: bool = False) -> RepeatFactorTrainingSampler:
    """A sampler that sees each data set as often as `_get_train_datasets_repeat_factors` says.

    Args:
        cfg: a config with the caller's key `DATASETS.TRAIN_REPEAT_FACTOR`.
        enable_category_balance: whether images of rare classes are repeated besides, by `REPEAT_THRESHOLD`.
    """
    factors = []
    for name, factor in _get_train_datasets_repeat_factors(cfg).items():
        records = get_detection_dataset_dicts(
            [name],
            filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            min_keypoints=cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0,
            proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
        )
        of_images = torch.full((len(records),), factor)
        if enable_category_balance:
            of_images = of_images * RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
                records, cfg.DATALOADER.REPEAT_THRESHOLD
            )
        factors.append(of_images)
    return RepeatFactorTrainingSampler(torch.cat(factors))


offer("detectron2.data.benchmark", _EmptyMapDataset)
offer(
    "detectron2.data.build",
    AspectRatioGroupedDataset,
    BoxMode,
    DatasetFromList,
    DatasetMapper,
    InferenceSampler,
    MapDataset,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    ToIterableDataset,
    TrainingSampler,
    _build_weighted_sampler,
    _get_train_datasets_repeat_factors,
    check_metadata_consistency,
    configurable,
    get_world_size,
    log_first_n,
    seed_all_rng,
    DatasetCatalog=DatasetCatalog,
    MetadataCatalog=MetadataCatalog,
    _log_api_usage=log_api_usage,
)
offer("detectron2.data.catalog", log_first_n)
offer("detectron2.data.common", _roundrobin)
offer("detectron2.data.dataset_mapper", T=T, lazily={"utils": "detectron2.data.detection_utils"})
offer(
    "detectron2.data.detection_utils",
    BitMasks,
    BoxMode,
    Boxes,
    Instances,
    Keypoints,
    PolygonMasks,
    RotatedBoxes,
    polygons_to_bitmask,
    MetadataCatalog=MetadataCatalog,
    T=T,
    _apply_exif_orientation=make_upright,
    build_transform_gen=build_augmentation,
)
offer(
    "detectron2.data.transforms.augmentation_impl",
    Augmentation,
    Boxes,
    ExtentTransform,
    ResizeTransform,
    RotationTransform,
    pairwise_iou,
    _transform_to_aug=transform_to_aug,
)
