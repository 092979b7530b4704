"""A complete run in miniature: a data set of small pictures, a registered model, an evaluator, a trainer.

Shapes: N images in a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import META_ARCH_REGISTRY

NUM_IMAGES = 6


@META_ARCH_REGISTRY.register()
class TinyColourModel(nn.Module):
    """Predicts an image's number from its mean colour."""

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.linear = nn.Linear(3, 1)

    def forward(self, batch: list[dict[str, Any]]) -> Any:
        colour = torch.stack([sample["image"].float().mean(dim=(1, 2)) / 255 for sample in batch])  # (N, 3)
        prediction = self.linear(self.norm(colour)).squeeze(1)  # (N,)
        if not self.training:
            return [{"prediction": value} for value in prediction]
        target = torch.tensor([float(sample["image_id"]) for sample in batch])
        return {"loss_number": (prediction - target).square().mean()}


class NumberEvaluator(DatasetEvaluator):
    """Mean absolute error of the numbers."""

    def reset(self) -> None:
        self.errors: list[float] = []

    def process(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        for sample, output in zip(inputs, outputs):
            self.errors.append(abs(output["prediction"].item() - sample["image_id"]))

    def evaluate(self) -> dict[str, Any]:
        return {"number": {"error": float(np.mean(self.errors)), "count": len(self.errors)}}


class TinyTrainer(DefaultTrainer):
    """`DefaultTrainer` with an evaluator for numbers and, where asked, a fixed order of the data."""

    first_batch = 0
    fixed_order = False

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return NumberEvaluator()

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[Any]:
        loader = super().build_train_loader(cfg)
        return FixedOrder(loader, cls.first_batch) if cls.fixed_order else loader


class FixedOrder:
    """Batch k of an endless repetition, from a given k on, whatever order the loader has."""

    def __init__(self, loader: Iterable[Any], first_batch: int) -> None:
        images: dict[int, Any] = {}
        for batch in loader:
            images.update((sample["image_id"], sample) for sample in batch)
            if len(images) == NUM_IMAGES:
                break
        self.images = images
        self.first_batch = first_batch

    def __iter__(self) -> Iterator[Any]:
        k = self.first_batch
        while True:
            yield [self.images[(2 * k + i) % NUM_IMAGES] for i in range(2)]
            k += 1


def _write_pictures(folder: Path) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    dicts = []
    for number in range(NUM_IMAGES):
        path = folder / f"{number}.png"
        pixels = rng.integers(0, 256, size=(12, 16, 3), dtype=np.uint8) // (number + 1)
        Image.fromarray(pixels).save(path)
        dicts.append(
            {"file_name": str(path), "image_id": number, "height": 12, "width": 16, "annotations": []}
        )
    return dicts


@pytest.fixture
def tiny_cfg(tmp_path: Path) -> Iterator[CfgNode]:
    """The config of a run on six pictures, which are registered as "tiny_pictures"."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    dicts = _write_pictures(folder)
    DatasetCatalog.register("tiny_pictures", lambda: dicts)
    MetadataCatalog.get("tiny_pictures")
    # Below this level a trainer sets up loggers of its own, which pytest does not see.
    logging.getLogger("detectron2").setLevel(logging.INFO)
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "TinyColourModel"
    cfg.MODEL.DEVICE = "cpu"
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("tiny_pictures",)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    cfg.INPUT.MIN_SIZE_TRAIN = (12,)
    cfg.INPUT.MIN_SIZE_TEST = 12
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.SOLVER.MAX_ITER = 6
    cfg.SOLVER.STEPS = (4,)
    cfg.SOLVER.WARMUP_ITERS = 2
    cfg.SOLVER.BASE_LR = 0.05
    cfg.SOLVER.CHECKPOINT_PERIOD = 3
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    cfg.SEED = 3
    yield cfg
    DatasetCatalog.remove("tiny_pictures")
    MetadataCatalog.remove("tiny_pictures")
