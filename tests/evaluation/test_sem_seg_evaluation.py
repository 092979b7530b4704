"""Semantic segmentation scores."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils.sem_seg import read_sem_seg
from detectron2.evaluation import SemSegEvaluator
from detectron2.evaluation.boundaries import keep_boundaries

NAMES = ["road", "tree", "moon"]
GT = np.array([[0, 0, 1, 1], [0, 0, 1, 255]], dtype=np.uint8)
PRED = np.array([[0, 1, 1, 1], [0, 0, 1, 2]])


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[str]:
    name = "sem_seg_test_set"
    path = tmp_path / "gt.png"
    Image.fromarray(GT).save(path)
    record = {"file_name": "a.jpg", "sem_seg_file_name": str(path), "height": 2, "width": 4}
    DatasetCatalog.register(name, lambda: [record])
    MetadataCatalog.get(name).set(stuff_classes=NAMES, ignore_label=255)
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def _scores(label_map: np.ndarray, num_classes: int = len(NAMES)) -> torch.Tensor:
    return (
        torch.nn.functional.one_hot(torch.as_tensor(label_map).long(), num_classes).permute(2, 0, 1).float()
    )


def test_scores_by_hand(dataset: str) -> None:
    evaluator = SemSegEvaluator(dataset)
    evaluator.process([{"file_name": "a.jpg"}], [{"sem_seg": _scores(PRED)}])
    results = evaluator.evaluate()
    assert results is not None
    scores = results["sem_seg"]
    # Counted: 4 pixels of road, 3 found, none too many; 3 of tree, all found, one too many.
    assert scores["IoU-road"] == pytest.approx(75) and scores["IoU-tree"] == pytest.approx(75)
    assert math.isnan(scores["IoU-moon"]) and math.isnan(scores["ACC-moon"])
    assert scores["mIoU"] == pytest.approx(75) and scores["fwIoU"] == pytest.approx(75)
    assert scores["ACC-road"] == pytest.approx(75) and scores["ACC-tree"] == pytest.approx(100)
    assert scores["mACC"] == pytest.approx(87.5) and scores["pACC"] == pytest.approx(600 / 7)
    main = [key for key in scores if "-" not in key]
    assert main == ["mIoU", "fwIoU", "mACC", "pACC"]
    assert "BoundaryIoU-road" in scores and "min(IoU, B-Iou)-road" in scores


def test_the_label_that_does_not_count_may_be_forgotten_or_given(dataset: str) -> None:
    MetadataCatalog.remove(dataset)
    MetadataCatalog.get(dataset).stuff_classes = NAMES
    for label, accuracy in ((None, 600 / 7), (1, 75)):  # with 1, the road alone counts: 3 pixels of 4
        evaluator = SemSegEvaluator(dataset, ignore_label=label)
        gt = np.where(GT == 255, 1, GT) if label == 1 else GT
        evaluator.sem_seg_loading_fn = lambda path, dtype, gt=gt: gt.astype(dtype)
        evaluator.process([{"file_name": "a.jpg"}], [{"sem_seg": _scores(PRED)}])
        results = evaluator.evaluate()
        assert results is not None and results["sem_seg"]["pACC"] == pytest.approx(accuracy)


def test_ground_truth_as_prediction_scores_one_hundred(
    shared_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shared_dir / "real"))
    name = "coco_2017_val_panoptic_separated"
    evaluator = SemSegEvaluator(name, output_dir=str(tmp_path))
    num_classes = len(MetadataCatalog.get(name).stuff_classes)
    for record in DatasetCatalog.get(name)[:4]:
        gt = read_sem_seg(dict(record))
        assert gt is not None
        labels = np.where(gt == 255, 0, gt)
        evaluator.process([record], [{"sem_seg": _scores(labels, num_classes)}])
    results = evaluator.evaluate()
    assert results is not None
    for key in ("mIoU", "fwIoU", "mACC", "pACC"):
        assert results["sem_seg"][key] == pytest.approx(100)
    entries = json.loads((tmp_path / "sem_seg_predictions.json").read_text())
    assert {"file_name", "category_id", "segmentation"} == set(entries[0])


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_plain_loops(dataset: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    gt = rng.choice([0, 1, 2, 255], size=(9, 11))
    pred = np.where(rng.random((9, 11)) < 0.6, np.where(gt == 255, 0, gt), rng.integers(0, 3, (9, 11)))
    evaluator = SemSegEvaluator(dataset, sem_seg_loading_fn=lambda path, dtype: gt.astype(dtype))
    evaluator.process([{"file_name": "a.jpg"}], [{"sem_seg": _scores(pred)}])
    results = evaluator.evaluate()
    assert results is not None
    counted = [(p, g) for p, g in zip(pred.ravel().tolist(), gt.ravel().tolist()) if g != 255]
    ious, weights = [], []
    for c, class_name in enumerate(NAMES):
        both = sum(p == c and g == c for p, g in counted)
        either = sum(c in (p, g) for p, g in counted)
        ious.append(both / either)
        weights.append(sum(g == c for _, g in counted) / len(counted))
        assert results["sem_seg"][f"IoU-{class_name}"] == pytest.approx(100 * ious[-1])
    assert results["sem_seg"]["mIoU"] == pytest.approx(100 * np.mean(ious))
    assert results["sem_seg"]["fwIoU"] == pytest.approx(100 * np.dot(ious, weights))
    assert results["sem_seg"]["pACC"] == pytest.approx(100 * np.mean([p == g for p, g in counted]))


def test_wrong_size_and_unknown_class_are_errors(dataset: str) -> None:
    evaluator = SemSegEvaluator(dataset)
    with pytest.raises(ValueError, match=r"ground truth is \(2, 4\), the prediction \(2, 2\)"):
        evaluator.process([{"file_name": "a.jpg"}], [{"sem_seg": torch.zeros(3, 2, 2)}])
    strange = SemSegEvaluator(dataset, sem_seg_loading_fn=lambda path, dtype: np.full((2, 4), 9))
    with pytest.raises(ValueError, match="class ids 9 to 9; expected 0 to 2, or 255"):
        strange.process([{"file_name": "a.jpg"}], [{"sem_seg": _scores(PRED)}])


def test_predictions_are_written_with_data_set_ids(dataset: str) -> None:
    MetadataCatalog.get(dataset).stuff_dataset_id_to_contiguous_id = {40: 0, 50: 1, 60: 2}
    entries: list[Any] = SemSegEvaluator(dataset).encode_json_sem_seg(PRED, "a.jpg")
    assert [entry["category_id"] for entry in entries] == [40, 50, 60]
    assert entries[0]["segmentation"]["size"] == [2, 4]


def test_nothing_processed_gives_nan(dataset: str) -> None:
    results = SemSegEvaluator(dataset).evaluate()
    assert results is not None and math.isnan(results["sem_seg"]["mIoU"])


@pytest.mark.parametrize("seed", range(3))
def test_boundaries_equal_a_window_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 4, size=(5, 6)), np.ones((20, 20), dtype=int))  # 100 x 120, reach 3
    kept = keep_boundaries(labels, 9)
    height, width = labels.shape
    for y in range(0, height, 7):
        for x in range(0, width, 5):
            inside = 3 <= y < height - 3 and 3 <= x < width - 3
            window = labels[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4]
            near = not inside or (window != labels[y, x]).any()
            assert kept[y, x] == (labels[y, x] if near else 9)


def test_one_pixel_is_its_own_boundary() -> None:
    assert keep_boundaries(np.array([[2]]), 9).tolist() == [[2]]
