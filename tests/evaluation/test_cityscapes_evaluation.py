"""Cityscapes's scores; those that need its package run where it is installed."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import detectron2.evaluation
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES
from detectron2.engine.evaluators import build_evaluator
from detectron2.evaluation.cityscapes_evaluation import (
    CityscapesEvaluator,
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
)
from detectron2.structures import Instances

IS_INSTALLED = importlib.util.find_spec("cityscapesscripts") is not None
needs_scripts = pytest.mark.skipif(
    not IS_INSTALLED, reason="the optional package cityscapesscripts is not there"
)
SIZE = (64, 80)
SCENES = ("ulm_000000_000019", "ulm_000001_000019")


def truth_of(number: int) -> np.ndarray:
    """(H, W) ids as in instanceIds.png: road, one car, one person."""
    ids = np.full(SIZE, 7, dtype=np.int32)
    ids[5:30, 10 + number : 40 + number] = 26000
    ids[35:60, 50:70] = 24000
    return ids


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "ulm").mkdir()
    for number, scene in enumerate(SCENES):
        ids = truth_of(number)
        Image.fromarray(ids.astype(np.uint16)).save(tmp_path / f"ulm/{scene}_gtFine_instanceIds.png")
        labels = np.where(ids >= 1000, ids // 1000, ids).astype(np.uint8)
        Image.fromarray(labels).save(tmp_path / f"ulm/{scene}_gtFine_labelIds.png")
        (tmp_path / f"ulm/{scene}_gtFine_polygons.json").write_text(json.dumps({"objects": []}))
    things = [c["name"] for c in CITYSCAPES_CATEGORIES if c["isthing"]]
    MetadataCatalog.get("cityscapes_test_set").set(
        gt_dir=tmp_path, thing_classes=things, evaluator_type="cityscapes_instance"
    )
    yield "cityscapes_test_set"
    MetadataCatalog.remove("cityscapes_test_set")


@pytest.mark.skipif(IS_INSTALLED, reason="cityscapesscripts is installed")
def test_a_missing_package_is_explained_before_inference(dataset: str) -> None:
    with pytest.raises(ImportError, match="pip install cityscapesscripts"):
        build_evaluator(get_cfg(), dataset)


def test_a_subclass_writes_files_that_all_processes_see(dataset: str) -> None:
    class Counts(CityscapesEvaluator):
        """Needs no script of Cityscapes's."""

        def process(self, inputs: Any, outputs: Any) -> None:
            for image in inputs:
                Path(self._temp_dir, image["file_name"]).write_text(self._metadata.thing_classes[0])

        def evaluate(self) -> dict[str, Any]:
            found = sorted(path.name for path in Path(self._working_dir.name).iterdir())
            self._working_dir.cleanup()
            return {"files": found}

    evaluator = Counts(dataset)
    assert type(evaluator) is Counts
    evaluator.reset()
    evaluator.process([{"file_name": "a"}, {"file_name": "b"}], [])
    assert evaluator.evaluate() == {"files": ["a", "b"]}
    evaluator.reset()
    folder = Path(evaluator._temp_dir)
    assert folder.is_dir() and not any(folder.iterdir())
    evaluator.reset()
    assert not folder.exists()
    folder = Path(evaluator._temp_dir)
    del evaluator
    assert not folder.exists()


def test_the_common_name_makes_the_evaluator_of_instances(
    dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training scripts of the first releases call it for data sets of evaluator_type "cityscapes"."""
    if not IS_INSTALLED:
        for name in ("cityscapesscripts", "cityscapesscripts.evaluation"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        script = "cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling"
        monkeypatch.setitem(sys.modules, script, ModuleType(script))
    evaluator = detectron2.evaluation.CityscapesEvaluator(dataset)
    assert type(evaluator) is CityscapesInstanceEvaluator
    assert CityscapesSemSegEvaluator.__mro__[1] is CityscapesEvaluator
    evaluator.reset()
    masks = torch.as_tensor(truth_of(0)[None] == 26000)
    instances = Instances(SIZE, pred_masks=masks, pred_classes=torch.tensor([2]), scores=torch.tensor([0.5]))
    evaluator.process([{"file_name": f"{SCENES[0]}_leftImg8bit.png"}], [{"instances": instances}])
    evaluator.process([{"file_name": f"{SCENES[1]}_leftImg8bit.png"}], [{"sem_seg": None}])
    assert Path(evaluator._temp_dir, f"{SCENES[1]}_pred.txt").read_text() == ""  # nothing found, but scored
    lines = Path(evaluator._temp_dir, f"{SCENES[0]}_pred.txt").read_text().split()
    assert lines == [f"{SCENES[0]}_0.png", "26", "0.5"]


@needs_scripts
def test_true_masks_score_100_and_half_of_them_less(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    evaluator = build_evaluator(get_cfg(), dataset)
    assert isinstance(evaluator, CityscapesInstanceEvaluator)
    results = {}
    for classes in ((2, 0), (2, 1)):  # car and person; then a rider in the person's place
        evaluator.reset()
        for number, scene in enumerate(SCENES):
            masks = torch.as_tensor(np.stack([truth_of(number) == 26000, truth_of(number) == 24000]))
            instances = Instances(
                SIZE, pred_masks=masks, pred_classes=torch.tensor(classes), scores=torch.tensor([0.9, 0.8])
            )
            image = {"file_name": f"images/{scene}_leftImg8bit.png"}
            evaluator.process([image], [{"instances": instances}])
        results[classes] = evaluator.evaluate()["segm"]
    assert results[2, 0] == pytest.approx({"AP": 100, "AP50": 100})
    assert results[2, 1] == pytest.approx({"AP": 50, "AP50": 50})
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@needs_scripts
def test_no_instance_scores_zero_and_a_missing_image_is_an_error(dataset: str) -> None:
    evaluator = CityscapesInstanceEvaluator(dataset)
    evaluator.reset()
    empty = Instances(
        SIZE,
        pred_masks=torch.zeros(0, *SIZE, dtype=torch.bool),
        pred_classes=torch.zeros(0, dtype=torch.int64),
        scores=torch.zeros(0),
    )
    evaluator.process([{"file_name": f"{SCENES[0]}_leftImg8bit.png"}], [{"instances": empty}])
    with pytest.raises(ValueError, match="1 of 2 images"):
        evaluator.evaluate()
    evaluator.process([{"file_name": f"{SCENES[1]}_leftImg8bit.png"}], [{"instances": empty}])
    assert evaluator.evaluate()["segm"] == {"AP": 0, "AP50": 0}


@needs_scripts
def test_semantic_scores_count_pixels(dataset: str) -> None:
    evaluator = CityscapesSemSegEvaluator(dataset)
    evaluator.reset()
    train_id = {c["id"]: c["trainId"] for c in CITYSCAPES_CATEGORIES}
    shared, union = {7: 0, 24: 0, 26: 0}, {7: 0, 24: 0, 26: 0}
    for number, scene in enumerate(SCENES):
        ids = truth_of(number)
        labels = np.where(ids >= 1000, ids // 1000, ids)
        predicted = labels.copy()
        predicted[:20] = 7
        scores = torch.zeros(19, *SIZE)
        for id, index in train_id.items():
            scores[index] = torch.as_tensor(predicted == id)
        evaluator.process([{"file_name": f"{scene}_leftImg8bit.png"}], [{"sem_seg": scores}])
        for id in shared:
            shared[id] += int(((labels == id) & (predicted == id)).sum())
            union[id] += int(((labels == id) | (predicted == id)).sum())
    results = evaluator.evaluate()["sem_seg"]
    assert list(results) == ["IoU", "IoU_sup", "iIoU", "iIoU_sup"]
    assert results["IoU"] == pytest.approx(100 * np.mean([shared[id] / union[id] for id in shared]))
