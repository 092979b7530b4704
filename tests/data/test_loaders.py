"""Training and test loaders."""

from __future__ import annotations

import itertools
import json
import logging
import operator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset

from detectron2.config import CfgNode, get_cfg
from detectron2.data import (
    DatasetMapper,
    MetadataCatalog,
    build_batch_data_loader,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.benchmark import DataLoaderBenchmark, iter_benchmark
from detectron2.data.build.class_ids import fill_class_counts
from detectron2.data.datasets import register_coco_instances, register_panoptic
from detectron2.data.samplers import TrainingSampler
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.utils import comm
from detectron2.utils.user_errors import UserValueError


@pytest.fixture
def cfg() -> CfgNode:
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN = (30,)
    cfg.INPUT.MIN_SIZE_TEST = 30
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    return cfg


@pytest.fixture
def toy(make_coco) -> str:
    register_coco_instances("toy", {}, *make_coco(num_images=5))
    return "toy"


@pytest.fixture
def mine(make_panoptic) -> str:
    made = make_panoptic()
    del made["ids"]
    register_panoptic("mine", **made)
    return "mine"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_train_loader_is_endless(cfg: CfgNode, toy: str, num_workers: int) -> None:
    cfg.DATASETS.TRAIN = (toy,)
    cfg.DATALOADER.NUM_WORKERS = num_workers
    batches = list(itertools.islice(build_detection_train_loader(cfg), 6))
    assert all(len(batch) == 2 for batch in batches)
    assert len({element["image_id"] for batch in batches for element in batch}) == 5
    assert batches[0][0]["image"].shape == (3, 30, 40) and "instances" in batches[0][0]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_test_loader_covers_each_image_once_in_order(cfg: CfgNode, toy: str, num_workers: int) -> None:
    cfg.DATALOADER.NUM_WORKERS = num_workers
    loader = build_detection_test_loader(cfg, toy)
    assert len(loader) == 5
    assert [batch[0]["image_id"] for batch in loader] == [1, 2, 3, 4, 5]
    assert "instances" not in next(iter(loader))[0]


def test_spawned_workers_get_everything_they_need(toy: str, cfg: CfgNode) -> None:
    cfg.DATASETS.TRAIN = (toy,)
    loader = build_detection_train_loader(
        cfg, mapper=DatasetMapper(cfg, True), aspect_ratio_grouping=False,
        num_workers=1, multiprocessing_context="spawn",
    )  # fmt: skip
    assert len(next(iter(loader))) == 2


def test_loaders_take_lists_without_a_config() -> None:
    data = [{"id": i, "width": 2, "height": 1 + 2 * (i % 2)} for i in range(6)]
    train = build_detection_train_loader(
        data, mapper=None, sampler=TrainingSampler(6, shuffle=False), total_batch_size=2
    )
    assert [[e["id"] for e in batch] for batch in itertools.islice(train, 3)] == [[0, 2], [1, 3], [4, 0]]
    plain = build_detection_train_loader(
        data, mapper=operator.itemgetter("id"), total_batch_size=3, aspect_ratio_grouping=False
    )
    assert sorted(itertools.chain.from_iterable(itertools.islice(plain, 2))) == [0, 1, 2, 3, 4, 5]
    test = build_detection_test_loader(data, mapper=operator.itemgetter("id"), batch_size=4)
    assert list(test) == [[0, 1, 2, 3], [4, 5]]


@pytest.mark.parametrize("grouping", [True, False])
def test_collate_function_sees_batches(grouping: bool) -> None:
    data = [{"width": 1, "height": 1}] * 4
    loader = build_detection_train_loader(
        data, mapper=None, total_batch_size=2, aspect_ratio_grouping=grouping, collate_fn=len
    )
    assert next(iter(loader)) == 2


class _Stream(IterableDataset):
    def __iter__(self):
        return iter(range(7))


def test_streams_have_no_sampler() -> None:
    loader = build_batch_data_loader(_Stream(), None, 2)
    assert list(loader) == [[0, 1], [2, 3], [4, 5]]
    assert list(build_batch_data_loader(_Stream(), None, 2, drop_last=False))[-1] == [6]
    assert list(build_detection_test_loader(_Stream(), mapper=None, batch_size=4)) == [
        [0, 1, 2, 3],
        [4, 5, 6],
    ]
    for build in (
        build_batch_data_loader,
        lambda d, s, _: build_detection_test_loader(d, mapper=None, sampler=s),
    ):
        with pytest.raises(ValueError, match="sampler must be None"):
            build(_Stream(), TrainingSampler(3), 2)


def test_batch_size_is_shared_out(monkeypatch) -> None:
    monkeypatch.setattr(comm, "get_world_size", lambda: 4)
    loader = build_batch_data_loader(_Stream(), None, 8)
    assert len(next(iter(loader))) == 2
    assert len(next(iter(build_batch_data_loader(_Stream(), None, 0, single_gpu_batch_size=3)))) == 3
    with pytest.raises(ValueError, match="SOLVER.IMS_PER_BATCH is 6, and there are 4 processes"):
        build_batch_data_loader(_Stream(), None, 6)
    with pytest.raises(ValueError, match="not both"):
        build_batch_data_loader(_Stream(), None, 8, single_gpu_batch_size=3)


class _Draws(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> float:
        return np.random.rand()


def test_workers_draw_different_numbers_that_follow_from_the_seed() -> None:
    def draw() -> list[float]:
        loader = build_batch_data_loader(
            _Draws(), TrainingSampler(100, seed=0), 2, num_workers=2, seed=5, drop_last=True
        )
        return list(itertools.chain.from_iterable(itertools.islice(loader, 4)))

    first = draw()
    assert len(set(first)) == 8 and draw() == first


@pytest.mark.parametrize(
    ("name", "settings"),
    [("RepeatFactorTrainingSampler", ["DATALOADER.REPEAT_THRESHOLD", 0.5]), ("TrainingSampler", [])],
)
def test_sampler_follows_the_config(cfg: CfgNode, toy: str, name: str, settings: list) -> None:
    cfg.DATASETS.TRAIN = (toy,)
    cfg.DATALOADER.SAMPLER_TRAIN = name
    cfg.merge_from_list(settings)
    assert len(next(iter(build_detection_train_loader(cfg)))) == 2
    cfg.DATALOADER.SAMPLER_TRAIN = "Sampler"
    with pytest.raises(ValueError, match="DATALOADER.SAMPLER_TRAIN must be"):
        build_detection_train_loader(cfg)


# Numbers of classes.


@pytest.mark.parametrize(
    ("architecture", "key"),
    [
        ("GeneralizedRCNN", "MODEL.ROI_HEADS.NUM_CLASSES"),
        ("PanopticFPN", "MODEL.ROI_HEADS.NUM_CLASSES"),
        ("RetinaNet", "MODEL.RETINANET.NUM_CLASSES"),
    ],
)
def test_too_few_thing_classes_name_data_set_id_and_key(
    cfg: CfgNode, toy: str, architecture: str, key: str
) -> None:
    cfg.DATASETS.TRAIN = (toy,)
    cfg.MODEL.META_ARCHITECTURE = architecture
    cfg.merge_from_list([key, 1])
    with pytest.raises(ValueError, match=rf"'toy' has category_id 1 .*{key} is 1.*Set {key} to 2"):
        build_detection_train_loader(cfg)


@META_ARCH_REGISTRY.register()
class OwnDetector(GeneralizedRCNN):
    """A model of a project: what it inherits says where its number of classes stands."""


@META_ARCH_REGISTRY.register()
class OwnSegmentor(nn.Module):
    """A model of a project that says so itself."""

    class_count_keys = {"stuff": "MODEL.ROI_HEADS.NUM_CLASSES"}


def test_a_models_class_says_where_its_numbers_of_classes_stand(cfg: CfgNode, toy: str, mine: str) -> None:
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    cfg.DATASETS.TRAIN, cfg.MODEL.META_ARCHITECTURE = (toy,), "OwnDetector"
    with pytest.raises(ValueError, match=r"'toy' has category_id 1 .*MODEL.ROI_HEADS.NUM_CLASSES is 1"):
        build_detection_train_loader(cfg)
    cfg.DATASETS.TRAIN, cfg.MODEL.META_ARCHITECTURE = (mine,), "OwnSegmentor"
    with pytest.raises(ValueError, match=r"'mine' has 3 stuff_classes.*MODEL.ROI_HEADS.NUM_CLASSES is 1"):
        build_detection_train_loader(cfg)


@pytest.mark.parametrize("part", ["RPN", "ROI_BOX_HEAD"])
def test_boxes_are_rotated_where_the_model_regresses_five_numbers(cfg: CfgNode, part: str) -> None:
    cfg.MODEL.MASK_ON = False
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "GeneratorOfAProject"
    assert not DatasetMapper(cfg).use_rotated_boxes
    cfg.MODEL[part].BBOX_REG_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0)
    assert DatasetMapper(cfg).use_rotated_boxes


def test_architectures_without_classes_are_not_checked(cfg: CfgNode, toy: str) -> None:
    cfg.DATASETS.TRAIN = (toy,)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    cfg.MODEL.META_ARCHITECTURE = "ProposalNetwork"
    build_detection_train_loader(cfg)


def test_too_few_stuff_classes_name_data_set_and_key(cfg: CfgNode, mine: str) -> None:
    cfg.DATASETS.TRAIN = (mine,)
    cfg.MODEL.META_ARCHITECTURE = "PanopticFPN"
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 3
    assert "sem_seg" in next(iter(build_detection_train_loader(cfg)))[0]
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2
    with pytest.raises(
        ValueError, match=r"'mine' has 3 stuff_classes.*'sky'.*MODEL.SEM_SEG_HEAD.NUM_CLASSES to 3"
    ):
        build_detection_train_loader(cfg)


@pytest.mark.parametrize("architecture", ["GeneralizedRCNN", "RetinaNet"])
def test_too_many_thing_classes_are_refused(cfg: CfgNode, toy: str, architecture: str) -> None:
    cfg.DATASETS.TRAIN = (toy,)
    cfg.MODEL.META_ARCHITECTURE = architecture
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    with pytest.raises(UserValueError, match=r"'toy' has 2 thing_classes .* is 80.* to 2, or to -1"):
        build_detection_train_loader(cfg)
    MetadataCatalog.remove(toy)  # nothing to compare with, but the annotations
    build_detection_train_loader(cfg, dataset=[{"file_name": "a", "width": 4, "height": 4}])


def test_too_many_stuff_classes_are_refused(cfg: CfgNode, mine: str) -> None:
    cfg.DATASETS.TRAIN = (mine,)
    for cfg.MODEL.META_ARCHITECTURE in ("PanopticFPN", "SemanticSegmentor"):
        with pytest.raises(UserValueError, match=r"'mine' has 3 stuff_classes.*NUM_CLASSES is 54"):
            build_detection_train_loader(cfg)


def test_minus_one_takes_the_number_of_the_data(cfg: CfgNode, mine: str, toy: str) -> None:
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = -1
    cfg.MODEL.META_ARCHITECTURE = "PanopticFPN"
    cfg.DATASETS.TRAIN = (mine,)
    cfg.freeze()
    filled = fill_class_counts(cfg)
    assert filled.MODEL.ROI_HEADS.NUM_CLASSES == 2 and filled.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == -1 and filled.is_frozen()
    assert fill_class_counts(filled) is filled
    assert "sem_seg" in next(iter(build_detection_train_loader(cfg)))[0]
    cfg.defrost()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("nobody_knows",), (toy,)
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    assert fill_class_counts(cfg).MODEL.ROI_HEADS.NUM_CLASSES == 2
    assert fill_class_counts(cfg).MODEL.SEM_SEG_HEAD.NUM_CLASSES == -1  # which this model does not read
    cfg.DATASETS.TEST = ()
    with pytest.raises(UserValueError, match="ROI_HEADS.NUM_CLASSES is -1.*none of nobody_knows has any"):
        fill_class_counts(cfg)


# Kinds of annotations.


def test_boxes_alone_do_not_train_masks(cfg: CfgNode, make_coco) -> None:
    register_coco_instances("boxes", {}, *make_coco(segmentation=[]))
    cfg.DATASETS.TRAIN = ("boxes",)
    with pytest.raises(UserValueError, match="MASK_ON is on, but 2 of 2 objects have no 'segmentation'"):
        build_detection_train_loader(cfg)
    build_detection_train_loader(cfg, mapper=lambda record: record)  # which may make masks
    cfg.MODEL.MASK_ON = False
    build_detection_train_loader(cfg)
    cfg.MODEL.KEYPOINT_ON = True
    cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE = 0
    with pytest.raises(UserValueError, match="KEYPOINT_ON is on, but 2 of 2 objects have no 'keypoints'"):
        build_detection_train_loader(cfg)


def test_images_of_stuff_alone_are_not_filtered(cfg: CfgNode, make_panoptic) -> None:
    made = make_panoptic()
    del made["ids"]
    content = json.loads(made["panoptic_json"].read_text())
    for category in content["categories"]:
        category["isthing"] = 0
    made["panoptic_json"].write_text(json.dumps(content))
    register_panoptic("stuff", **made)
    assert len(get_detection_dataset_dicts("stuff", filter_empty=True)) == 2


def test_error_in_a_worker_keeps_its_text(cfg: CfgNode, toy: str, tmp_path: Path) -> None:
    cfg.DATASETS.TRAIN = (toy,)
    cfg.DATALOADER.NUM_WORKERS = 1
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="Data set 'toy'"):
        next(iter(build_detection_train_loader(cfg)))


def test_keypoint_config_filters_and_flips(cfg: CfgNode, make_coco) -> None:
    points = [5, 5, 2, 10, 5, 2, 0, 0, 0]
    meta = {"keypoint_names": ("n", "l", "r"), "keypoint_flip_map": (("l", "r"),)}
    register_coco_instances("people", meta, *make_coco(keypoints=points))
    cfg.DATASETS.TRAIN = ("people",)
    cfg.MODEL.KEYPOINT_ON = True
    batch = next(iter(build_detection_train_loader(cfg)))
    assert batch[0]["instances"].gt_keypoints.tensor.shape == (1, 3, 3)
    cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE = 3
    with pytest.raises(ValueError, match="3 visible keypoints or more"):
        build_detection_train_loader(cfg)


# Benchmark.


def test_benchmark_times_every_stage(toy: str, cfg: CfgNode, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    records = [{"id": i} for i in range(4)]
    benchmark = DataLoaderBenchmark(records, mapper=operator.itemgetter("id"), total_batch_size=2)
    benchmark.benchmark_dataset(3)
    benchmark.benchmark_mapper(3)
    benchmark.benchmark_IPC(3, warmup=1)
    benchmark.benchmark_distributed(3, warmup=1)
    assert caplog.text.count("images/s") == 4
    average, seconds = iter_benchmark(itertools.count(), 10)
    assert len(seconds) == 10 and average == pytest.approx(sum(seconds) / 10)


def test_metadata_of_builtin_sets_needs_no_files() -> None:
    assert len(MetadataCatalog.get("coco_2017_val_panoptic_separated").thing_classes) == 80
