"""What COCOEvaluator compares with: data that was not loaded, that changed, or that lacks masks or things."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, register_coco_instances
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances

IMAGE_SIZE = (120, 160)
OBJECTS = [  # class, XYXY
    (0, [10.0, 10.0, 60.0, 50.0]),
    (1, [70.0, 20.0, 150.0, 110.0]),
]


def _instances(objects: list[tuple[int, list[float]]], scores: list[float] | None = None) -> Instances:
    instances = Instances(IMAGE_SIZE)
    boxes = torch.tensor([box for _, box in objects]).reshape(-1, 4)
    instances.pred_boxes = Boxes(boxes)
    instances.pred_classes = torch.tensor([c for c, _ in objects], dtype=torch.int64)
    instances.scores = torch.tensor(scores if scores is not None else [0.9] * len(objects))
    return instances


def _dataset_dicts() -> list[dict[str, Any]]:
    annotations = [
        {
            "bbox": box,
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": c,
            "iscrowd": 0,
            "segmentation": [_corners(box)],
        }
        for c, box in OBJECTS
    ]
    height, width = IMAGE_SIZE
    return [
        {"file_name": "a.jpg", "image_id": 7, "height": height, "width": width, "annotations": annotations}
    ]


def _corners(box: list[float]) -> list[float]:
    x0, y0, x1, y1 = box
    return [x0, y0, x1, y0, x1, y1, x0, y1]


@pytest.fixture
def dataset() -> Iterator[str]:
    name = "evaluation_test_set"
    DatasetCatalog.register(name, _dataset_dicts)
    MetadataCatalog.get(name).thing_classes = ["cat", "dog"]
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def _evaluate(evaluator: COCOEvaluator, instances: Instances) -> dict[str, Any]:
    evaluator.reset()
    evaluator.process([{"image_id": 7}], [{"instances": instances}])
    return evaluator.evaluate()


def test_a_data_set_that_was_never_loaded_is_scored_by_its_own_ids(tmp_path: Path) -> None:
    name, by_function = "evaluation_unloaded", "evaluation_unloaded_function"
    json_file = tmp_path / "truth.json"
    height, width = IMAGE_SIZE
    truth = {
        "images": [{"id": 7, "height": height, "width": width, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 4, "name": "dog"}],
        "annotations": [
            {"id": i + 1, "image_id": 7, "category_id": (1, 4)[c], "iscrowd": 0, "area": 1600.0,
             "bbox": [x0, y0, x1 - x0, y1 - y0]}
            for i, (c, (x0, y0, x1, y1)) in enumerate(OBJECTS)
        ],
    }  # fmt: skip
    json_file.write_text(json.dumps(truth))
    register_coco_instances(name, {}, str(json_file), str(tmp_path))
    DatasetCatalog.register(by_function, lambda: load_coco_json(json_file, tmp_path, by_function))
    MetadataCatalog.get(by_function).json_file = str(json_file)
    try:
        for each in (name, by_function):
            assert _evaluate(COCOEvaluator(each), _instances(OBJECTS))["bbox"]["AP"] == pytest.approx(100)
    finally:
        for each in (name, by_function):
            DatasetCatalog.remove(each)
            MetadataCatalog.remove(each)


def test_converted_annotations_of_another_data_set_are_not_read(dataset: str, tmp_path: Path) -> None:
    stale = tmp_path / f"{dataset}_coco_format.json"
    COCOEvaluator(dataset, output_dir=str(tmp_path))
    content = json.loads(stale.read_text())
    for annotation in content["annotations"]:
        annotation["bbox"][0] += 30
    content["info"]["content_key"] = "of something else"
    stale.write_text(json.dumps(content))
    results = _evaluate(COCOEvaluator(dataset, output_dir=str(tmp_path)), _instances(OBJECTS))
    assert results["bbox"]["AP"] == pytest.approx(100)


def test_objects_that_moved_since_an_earlier_evaluation(tmp_path: Path) -> None:
    name = "evaluation_moving_set"
    records = _dataset_dicts()
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).thing_classes = ["cat", "dog"]
    try:
        COCOEvaluator(name, output_dir=str(tmp_path))
        moved = [(c, [x0 + 5, y0, x1 + 5, y1]) for c, (x0, y0, x1, y1) in OBJECTS]
        for annotation, (_, box) in zip(records[0]["annotations"], moved):
            annotation["bbox"] = box
        results = _evaluate(COCOEvaluator(name, output_dir=str(tmp_path)), _instances(moved))
        assert results["bbox"]["AP"] == pytest.approx(100)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("use_fast_impl", [True, False])
def test_masks_without_a_point_in_the_ground_truth_are_not_scored(
    dataset: str, caplog: pytest.LogCaptureFixture, use_fast_impl: bool
) -> None:
    evaluator = COCOEvaluator(dataset, use_fast_impl=use_fast_impl)
    instances = _instances(OBJECTS)
    instances.pred_masks = torch.ones(2, *IMAGE_SIZE, dtype=torch.bool)
    first, second = evaluator._ground_truth["annotations"]
    first["segmentation"] = []
    assert "segm" in _evaluate(evaluator, instances)
    assert "1 of 2 objects of the ground truth have an empty 'segmentation'" in caplog.text
    second["segmentation"] = []
    results = _evaluate(evaluator, instances)
    assert "bbox" in results and "segm" not in results
    assert "segm is not scored: 'segmentation' is empty in all annotations" in caplog.text
    evaluator._tasks = ("segm",)
    with pytest.raises(ValueError, match="empty in all annotations"):
        _evaluate(evaluator, instances)


def test_a_file_whose_masks_are_all_empty_lists(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = "evaluation_without_masks"
    json_file = tmp_path / "truth.json"
    box = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 10, 50, 40], "area": 2000, "iscrowd": 0}
    truth = {
        "images": [{"id": 7, "height": IMAGE_SIZE[0], "width": IMAGE_SIZE[1], "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{**box, "segmentation": []}],
    }
    json_file.write_text(json.dumps(truth))
    register_coco_instances(name, {}, str(json_file), str(tmp_path))
    try:
        instances = _instances(OBJECTS[:1])
        instances.pred_masks = torch.ones(1, *IMAGE_SIZE, dtype=torch.bool)
        results = _evaluate(COCOEvaluator(name), instances)
        assert results["bbox"]["AP"] == pytest.approx(100) and "segm" not in results
        assert "segm is not scored" in caplog.text
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_data_without_thing_classes_scores_no_instances(caplog: pytest.LogCaptureFixture) -> None:
    name = "evaluation_of_stuff"
    (record,) = _dataset_dicts()
    DatasetCatalog.register(name, lambda: [{**record, "annotations": []}])
    MetadataCatalog.get(name).set(thing_classes=[], thing_dataset_id_to_contiguous_id={})
    try:
        assert _evaluate(COCOEvaluator(name), _instances(OBJECTS)) == {}
        assert "has no thing classes" in caplog.text
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
