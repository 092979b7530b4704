"""COCOEvaluator on small and on real data."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, register_coco_instances
from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.evaluation.coco_evaluation.object_sizes import ALL_SIZES, SIZES, annotated_area
from detectron2.evaluation.coco_evaluation.predictions import encode_masks
from detectron2.evaluation.coco_evaluation.proposal_recall import (
    average_recall,
    best_coverage,
    proposal_metrics,
)
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks

from .coco_fuzz import random_coco

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


@pytest.mark.parametrize("use_fast_impl", [True, False])
@pytest.mark.parametrize("with_output", [True, False])
def test_perfect_boxes_on_a_data_set_of_dicts(
    dataset: str, tmp_path: Path, use_fast_impl: bool, with_output: bool
) -> None:
    output_dir = str(tmp_path) if with_output else None
    evaluator = COCOEvaluator(dataset, output_dir=output_dir, use_fast_impl=use_fast_impl)
    results = _evaluate(evaluator, _instances(OBJECTS))["bbox"]
    assert list(results) == ["AP", "AP50", "AP75", "APs", "APm", "APl", "AP-cat", "AP-dog"]
    assert results["AP"] == pytest.approx(100) and results["AP-dog"] == pytest.approx(100)
    assert math.isnan(results["APs"])
    if with_output:
        saved = json.loads((tmp_path / "coco_instances_results.json").read_text())
        assert [entry["image_id"] for entry in saved] == [7, 7]
        assert torch.load(tmp_path / "instances_predictions.pth")[0]["image_id"] == 7


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


def test_masks_without_a_point_in_the_ground_truth_are_not_scored(
    dataset: str, caplog: pytest.LogCaptureFixture
) -> None:
    evaluator = COCOEvaluator(dataset)
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


def test_missing_sizes_and_detections_are_explained(dataset: str, caplog: pytest.LogCaptureFixture) -> None:
    evaluator = COCOEvaluator(dataset)
    _evaluate(evaluator, _instances(OBJECTS))
    assert "APs is nan: no small objects" in caplog.text
    assert "APm is nan" not in caplog.text
    results = _evaluate(evaluator, _instances([]))
    assert "AP" in results["bbox"] and all(math.isnan(value) for value in results["bbox"].values())
    assert "no detections" in caplog.text


def test_wrong_image_ids_are_explained(dataset: str, caplog: pytest.LogCaptureFixture) -> None:
    evaluator = COCOEvaluator(dataset)
    evaluator.process([{"image_id": 8}], [{"instances": _instances(OBJECTS)}])
    assert evaluator.evaluate()["bbox"]["AP"] == 0
    assert "image ids are disjoint" in caplog.text


def test_nothing_received_gives_no_result(dataset: str, caplog: pytest.LogCaptureFixture) -> None:
    assert COCOEvaluator(dataset).evaluate() == {}
    assert "no predictions" in caplog.text


def test_class_beyond_the_data_set_is_an_error(dataset: str, tmp_path: Path) -> None:
    MetadataCatalog.get(dataset).thing_dataset_id_to_contiguous_id = {1: 0, 5: 1}
    with pytest.raises(ValueError, match="predicted class 2.*2 classes, 0 to 1.*NUM_CLASSES"):
        _evaluate(COCOEvaluator(dataset), _instances([(2, OBJECTS[0][1])]))


def test_unknown_task_is_an_error(dataset: str) -> None:
    with pytest.raises(ValueError, match="boxes"):
        COCOEvaluator(dataset, tasks=("boxes",))


def test_tasks_that_cannot_be_compared_are_told(dataset: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="'segm': the predictions have no 'segmentation'"):
        _evaluate(COCOEvaluator(dataset, tasks=("segm",)), _instances(OBJECTS))
    with_masks = _instances(OBJECTS)
    with_masks.pred_masks = torch.ones(2, *IMAGE_SIZE, dtype=torch.bool)
    evaluator = COCOEvaluator(dataset)
    evaluator._ground_truth["annotations"] = [
        {k: v for k, v in a.items() if k != "segmentation"} for a in evaluator._ground_truth["annotations"]
    ]
    assert list(_evaluate(evaluator, with_masks)) == ["bbox"]
    assert "segm is not scored: annotations of the ground truth have no 'segmentation'" in caplog.text


def test_detection_limit_is_followed(dataset: str) -> None:
    worse_first = [(0, [0.0, 0.0, 5.0, 5.0]), *OBJECTS]
    instances = _instances(worse_first, [0.9, 0.8, 0.7])
    full = _evaluate(COCOEvaluator(dataset, max_dets_per_image=3), instances)["bbox"]
    one = _evaluate(COCOEvaluator(dataset, max_dets_per_image=1), instances)["bbox"]
    assert full["AP-cat"] == pytest.approx(50)
    assert one["AP-cat"] == 0 and one["AP-dog"] == pytest.approx(100)


def test_test_set_without_annotations_is_written_and_not_scored(
    dataset: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    json_file = tmp_path / "test.json"
    json_file.write_text(json.dumps({"images": [{"id": 7}], "categories": [{"id": 3}, {"id": 4}]}))
    metadata = MetadataCatalog.get(dataset)
    metadata.set(json_file=str(json_file), thing_dataset_id_to_contiguous_id={3: 0, 4: 1})
    evaluator = COCOEvaluator(dataset, output_dir=str(tmp_path))
    assert _evaluate(evaluator, _instances(OBJECTS)) == {}
    saved = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert [entry["category_id"] for entry in saved] == [3, 4]
    assert "has no annotations" in caplog.text


def test_missing_annotation_file_stops_before_inference(dataset: str) -> None:
    MetadataCatalog.get(dataset).json_file = "/nowhere/annotations.json"
    with pytest.raises(OSError, match="annotations.json"):
        COCOEvaluator(dataset)


def test_keypoint_count_without_sigmas_is_an_error(dataset: str) -> None:
    instances = _instances(OBJECTS)
    instances.pred_keypoints = torch.rand(2, 5, 3)
    evaluator = COCOEvaluator(dataset, tasks=("keypoints",))
    for annotation in evaluator._ground_truth["annotations"]:
        annotation.update(keypoints=[1.0] * 15, num_keypoints=5)
    with pytest.raises(ValueError, match="5 keypoints.*17 where none.*KEYPOINT_OKS_SIGMAS"):
        _evaluate(evaluator, instances)


def test_result_entries_have_coco_layout() -> None:
    instances = _instances(OBJECTS, [0.5, 0.25])
    masks = torch.zeros(2, *IMAGE_SIZE, dtype=torch.bool)
    masks[0, 10:50, 10:60] = True
    instances.pred_masks = masks
    instances.pred_keypoints = torch.tensor([[[3.5, 4.5, 0.1]], [[1.0, 2.0, 0.2]]])
    first, second = instances_to_coco_json(instances, 7)
    assert first["image_id"] == 7 and first["category_id"] == 0
    assert first["bbox"] == [10, 10, 50, 40] and first["score"] == 0.5
    assert first["keypoints"] == pytest.approx([3, 4, 0.1])
    assert first["segmentation"]["size"] == [*IMAGE_SIZE]
    assert second["keypoints"][:2] == [0.5, 1.5]
    assert json.loads(json.dumps([first, second])) == [first, second]
    assert instances_to_coco_json(_instances([]), 7) == []


@pytest.mark.parametrize("seed", range(3))
def test_masks_are_encoded_as_by_pycocotools(seed: int) -> None:
    from pycocotools import mask as mask_util

    rng = np.random.default_rng(seed)
    masks = rng.random((4, 17, 23)) < 0.4
    masks[0] = False
    masks[1] = True
    expected = [mask_util.encode(np.asfortranarray(m.astype(np.uint8)))["counts"].decode() for m in masks]
    for given in (torch.as_tensor(masks), BitMasks(torch.as_tensor(masks))):
        assert [rle["counts"] for rle in encode_masks(given, (17, 23))] == expected
    polygon = np.array([2.0, 2, 10, 2, 10, 12, 2, 12])
    merged = mask_util.merge(mask_util.frPyObjects([polygon.tolist()], 17, 23))
    assert encode_masks(PolygonMasks([[polygon]]), (17, 23))[0]["counts"] == merged["counts"].decode()


@pytest.mark.parametrize("use_fast_impl", [True, False])
def test_ground_truth_as_prediction_scores_one_hundred(
    shared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_fast_impl: bool
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shared_dir / "real"))
    name = "coco_2017_val"
    evaluator = COCOEvaluator(name, output_dir=str(tmp_path), use_fast_impl=use_fast_impl)
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        outputs = {"instances": _annotations_as_predictions(record)}
        evaluator.process([record], [outputs])
    results = evaluator.evaluate()
    assert list(results) == ["bbox", "segm"]
    for metrics in results.values():
        for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
            assert metrics[name] == pytest.approx(100, abs=1e-9)


def _annotations_as_predictions(record: dict[str, Any]) -> Instances:
    objects = [a for a in record["annotations"] if not a["iscrowd"]]
    instances = Instances((record["height"], record["width"]))
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in objects]
    instances.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    instances.pred_classes = torch.tensor([a["category_id"] for a in objects], dtype=torch.int64)
    instances.scores = torch.ones(len(objects))
    instances.pred_masks = PolygonMasks([a["segmentation"] for a in objects])
    return instances


def _proposals(boxes: list[list[float]], logits: list[float]) -> Instances:
    proposals = Instances(IMAGE_SIZE)
    proposals.proposal_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    proposals.objectness_logits = torch.tensor(logits)
    return proposals


def test_proposal_recall_by_hand(dataset: str, tmp_path: Path) -> None:
    evaluator = COCOEvaluator(dataset, output_dir=str(tmp_path))
    cat, dog = (box for _, box in OBJECTS)
    shifted = [cat[0], cat[1] + 10, cat[2], cat[3] + 10]  # IoU 30 / 50 = 0.6, found at 0.5, 0.55 and 0.6
    evaluator.process([{"image_id": 7}], [{"proposals": _proposals([shifted, dog], [0.1, 2.0])}])
    results = evaluator.evaluate()["box_proposals"]
    assert results["AR@100"] == pytest.approx(100 * (3 + 10) / 20, abs=1e-4)
    assert results["ARm@100"] == pytest.approx(65, abs=1e-4)  # 2000 and 7200 square pixels
    assert math.isnan(results["ARs@100"]) and math.isnan(results["ARl@1000"])
    assert (tmp_path / "box_proposals.pkl").exists()
    assert list(results)[:4] == ["AR@100", "ARs@100", "ARm@100", "ARl@100"]


@pytest.mark.parametrize("seed", range(5))
def test_proposal_matching_equals_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 80, size=(int(rng.integers(0, 7)) + 6, 2))
    boxes = torch.tensor(
        np.concatenate([corners, corners + rng.uniform(5, 60, corners.shape)], axis=1)
    ).float()
    gt, predicted = boxes[:4], boxes[4:]
    areas = torch.tensor(rng.uniform(0, 3000, size=4)).float()
    proposals = _proposals(predicted.tolist(), rng.random(len(predicted)).tolist())
    for limit, size in itertools.product((3, 100), (ALL_SIZES, *SIZES)):
        area_range = (size.low, size.high)
        covered = best_coverage(proposals, gt, areas, area_range, limit)
        keep = [g for g, a in zip(gt.tolist(), areas.tolist()) if area_range[0] <= a <= area_range[1]]
        order = np.argsort(-proposals.objectness_logits.numpy(), kind="stable")[:limit]
        expected = _greedy_coverage([predicted[i].tolist() for i in order], keep)
        np.testing.assert_allclose(covered.numpy(), expected, atol=1e-6)


def _greedy_coverage(proposals: list[list[float]], gt: list[list[float]]) -> list[float]:
    covered = [0.0] * len(gt)
    free_gt, free = set(range(len(gt))), set(range(len(proposals)))
    while free_gt and free:
        iou, g, p = max((_iou(gt[g], proposals[p]), g, p) for g in free_gt for p in free)
        covered[g] = iou
        free_gt.remove(g)
        free.remove(p)
    return covered


def _iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def test_proposal_recall_needs_no_area() -> None:
    square = [10.0, 10.0, 50.0, 50.0]  # 1600 square pixels: medium
    annotation = {"image_id": 1, "category_id": 1, "bbox": [10.0, 10.0, 40.0, 40.0]}
    predictions = [{"image_id": 1, "proposals": _proposals([square], [1.0])}]
    thin = [[10.0, 10.0, 50.0, 10.0, 50.0, 20.0, 10.0, 20.0]]  # 400 square pixels: small
    for found, missed, extra in (
        ("m", "s", {}),
        ("s", "m", {"segmentation": thin}),
        ("l", "m", {"area": 1e4}),
    ):
        metrics = proposal_metrics(predictions, {"annotations": [{**annotation, **extra}]})
        assert metrics["AR@100"] == metrics[f"AR{found}@100"] == pytest.approx(100)
        assert math.isnan(metrics[f"AR{missed}@100"])


def test_area_of_an_annotation_is_that_of_its_mask() -> None:
    box = {"bbox": [0, 0, 10, 20]}
    triangle, square = [0, 0, 4, 0, 0, 3], [5, 5, 7, 5, 7, 7, 5, 7]
    assert annotated_area(box) == annotated_area({**box, "segmentation": []}) == 200
    assert annotated_area({**box, "segmentation": [triangle, square]}) == 6 + 4
    assert annotated_area({**box, "segmentation": {"size": [4, 5], "counts": [3, 7, 2, 8]}}) == 15
    assert annotated_area({**box, "segmentation": [triangle], "area": 3}) == 3
    assert annotated_area({"bbox": [30, 30, 10, 20, 45]}) == 200


def test_recall_without_objects_is_nan() -> None:
    assert math.isnan(average_recall([])) and math.isnan(average_recall([torch.zeros(0)]))


def test_evaluator_agrees_with_itself_on_both_engines(tmp_path: Path) -> None:
    truth, detections = random_coco(11)
    json_file = tmp_path / "truth.json"
    json_file.write_text(json.dumps(truth))
    name = "evaluation_fuzz_set"
    ids = {c["id"]: i for i, c in enumerate(truth["categories"])}
    names = [c["name"] for c in truth["categories"]]
    MetadataCatalog.get(name).set(
        json_file=str(json_file), thing_dataset_id_to_contiguous_id=ids, thing_classes=names
    )
    try:
        results = []
        for use_fast_impl in (True, False):
            evaluator = COCOEvaluator(name, use_fast_impl=use_fast_impl)
            for image in truth["images"]:
                found = [
                    dict(d, category_id=ids[d["category_id"]])
                    for d in detections
                    if d["image_id"] == image["id"]
                ]
                evaluator._predictions.append({"image_id": image["id"], "instances": found})
            results.append(evaluator.evaluate())
        assert str(results[0]) == str(results[1])
        assert list(results[0]) == ["bbox", "keypoints", "segm"]
    finally:
        MetadataCatalog.remove(name)
