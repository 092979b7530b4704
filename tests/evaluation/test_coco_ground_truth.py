"""What COCOEvaluator compares with: data that was not loaded, that changed, or that lacks masks or things."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, register_coco_instances
from detectron2.evaluation import COCOEvaluator

from .two_objects import IMAGE_SIZE, OBJECTS, dataset_dicts, evaluate, predictions_of


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
            assert evaluate(COCOEvaluator(each), predictions_of(OBJECTS))["bbox"]["AP"] == pytest.approx(100)
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
    results = evaluate(COCOEvaluator(dataset, output_dir=str(tmp_path)), predictions_of(OBJECTS))
    assert results["bbox"]["AP"] == pytest.approx(100)


def test_objects_that_moved_since_an_earlier_evaluation(tmp_path: Path) -> None:
    name = "evaluation_moving_set"
    records = dataset_dicts()
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).thing_classes = ["cat", "dog"]
    try:
        COCOEvaluator(name, output_dir=str(tmp_path))
        moved = [(c, [x0 + 5, y0, x1 + 5, y1]) for c, (x0, y0, x1, y1) in OBJECTS]
        for annotation, (_, box) in zip(records[0]["annotations"], moved):
            annotation["bbox"] = box
        results = evaluate(COCOEvaluator(name, output_dir=str(tmp_path)), predictions_of(moved))
        assert results["bbox"]["AP"] == pytest.approx(100)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("use_fast_impl", [True, False])
def test_masks_without_a_point_in_the_ground_truth_are_not_scored(
    dataset: str, caplog: pytest.LogCaptureFixture, use_fast_impl: bool
) -> None:
    evaluator = COCOEvaluator(dataset, use_fast_impl=use_fast_impl)
    instances = predictions_of(OBJECTS)
    instances.pred_masks = torch.ones(2, *IMAGE_SIZE, dtype=torch.bool)
    first, second = evaluator._ground_truth["annotations"]
    first["segmentation"] = []
    assert "segm" in evaluate(evaluator, instances)
    assert "1 of 2 objects of the ground truth have an empty 'segmentation'" in caplog.text
    second["segmentation"] = []
    results = evaluate(evaluator, instances)
    assert "bbox" in results and "segm" not in results
    assert "segm is not scored: 'segmentation' is empty in all annotations" in caplog.text
    evaluator._tasks = ("segm",)
    with pytest.raises(ValueError, match="empty in all annotations"):
        evaluate(evaluator, instances)


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
        instances = predictions_of(OBJECTS[:1])
        instances.pred_masks = torch.ones(1, *IMAGE_SIZE, dtype=torch.bool)
        results = evaluate(COCOEvaluator(name), instances)
        assert results["bbox"]["AP"] == pytest.approx(100) and "segm" not in results
        assert "segm is not scored" in caplog.text
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_data_without_thing_classes_scores_no_instances(caplog: pytest.LogCaptureFixture) -> None:
    name = "evaluation_of_stuff"
    (record,) = dataset_dicts()
    DatasetCatalog.register(name, lambda: [{**record, "annotations": []}])
    MetadataCatalog.get(name).set(thing_classes=[], thing_dataset_id_to_contiguous_id={})
    try:
        assert evaluate(COCOEvaluator(name), predictions_of(OBJECTS)) == {}
        assert "has no thing classes" in caplog.text
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
