"""COCOEvaluator on small and on real data."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detectron2.data import DatasetCatalog, MetadataCatalog
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
from .two_objects import IMAGE_SIZE, OBJECTS, evaluate, predictions_of


@pytest.mark.parametrize("use_fast_impl", [True, False])
@pytest.mark.parametrize("with_output", [True, False])
def test_perfect_boxes_on_a_data_set_of_dicts(
    dataset: str, tmp_path: Path, use_fast_impl: bool, with_output: bool
) -> None:
    output_dir = str(tmp_path) if with_output else None
    evaluator = COCOEvaluator(dataset, output_dir=output_dir, use_fast_impl=use_fast_impl)
    results = evaluate(evaluator, predictions_of(OBJECTS))["bbox"]
    assert list(results) == ["AP", "AP50", "AP75", "APs", "APm", "APl", "AP-cat", "AP-dog"]
    assert results["AP"] == pytest.approx(100) and results["AP-dog"] == pytest.approx(100)
    assert math.isnan(results["APs"])
    if with_output:
        saved = json.loads((tmp_path / "coco_instances_results.json").read_text())
        assert [entry["image_id"] for entry in saved] == [7, 7]
        assert torch.load(tmp_path / "instances_predictions.pth")[0]["image_id"] == 7


def test_missing_sizes_and_detections_are_explained(dataset: str, caplog: pytest.LogCaptureFixture) -> None:
    evaluator = COCOEvaluator(dataset)
    evaluate(evaluator, predictions_of(OBJECTS))
    assert "APs is nan: no small objects" in caplog.text
    assert "APm is nan" not in caplog.text
    results = evaluate(evaluator, predictions_of([]))
    assert "AP" in results["bbox"] and all(math.isnan(value) for value in results["bbox"].values())
    assert "no detections" in caplog.text


def test_wrong_image_ids_are_explained(dataset: str, caplog: pytest.LogCaptureFixture) -> None:
    evaluator = COCOEvaluator(dataset)
    evaluator.process([{"image_id": 8}], [{"instances": predictions_of(OBJECTS)}])
    assert evaluator.evaluate()["bbox"]["AP"] == 0
    assert "image ids are disjoint" in caplog.text


def test_nothing_received_gives_no_result(dataset: str, caplog: pytest.LogCaptureFixture) -> None:
    assert COCOEvaluator(dataset).evaluate() == {}
    assert "no predictions" in caplog.text


def test_class_beyond_the_data_set_is_an_error(dataset: str, tmp_path: Path) -> None:
    MetadataCatalog.get(dataset).thing_dataset_id_to_contiguous_id = {1: 0, 5: 1}
    with pytest.raises(ValueError, match="predicted class 2.*2 classes, 0 to 1.*NUM_CLASSES"):
        evaluate(COCOEvaluator(dataset), predictions_of([(2, OBJECTS[0][1])]))


def test_unknown_task_is_an_error(dataset: str) -> None:
    with pytest.raises(ValueError, match="boxes"):
        COCOEvaluator(dataset, tasks=("boxes",))


def test_tasks_that_cannot_be_compared_are_told(dataset: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="'segm': the predictions have no 'segmentation'"):
        evaluate(COCOEvaluator(dataset, tasks=("segm",)), predictions_of(OBJECTS))
    with_masks = predictions_of(OBJECTS)
    with_masks.pred_masks = torch.ones(2, *IMAGE_SIZE, dtype=torch.bool)
    evaluator = COCOEvaluator(dataset)
    evaluator._ground_truth["annotations"] = [
        {k: v for k, v in a.items() if k != "segmentation"} for a in evaluator._ground_truth["annotations"]
    ]
    assert list(evaluate(evaluator, with_masks)) == ["bbox"]
    assert "segm is not scored: annotations of the ground truth have no 'segmentation'" in caplog.text


def test_detection_limit_is_followed(dataset: str) -> None:
    worse_first = [(0, [0.0, 0.0, 5.0, 5.0]), *OBJECTS]
    instances = predictions_of(worse_first, [0.9, 0.8, 0.7])
    full = evaluate(COCOEvaluator(dataset, max_dets_per_image=3), instances)["bbox"]
    one = evaluate(COCOEvaluator(dataset, max_dets_per_image=1), instances)["bbox"]
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
    assert evaluate(evaluator, predictions_of(OBJECTS)) == {}
    saved = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert [entry["category_id"] for entry in saved] == [3, 4]
    assert "has no annotations" in caplog.text


def test_missing_annotation_file_stops_before_inference(dataset: str) -> None:
    MetadataCatalog.get(dataset).json_file = "/nowhere/annotations.json"
    with pytest.raises(OSError, match="annotations.json"):
        COCOEvaluator(dataset)


def test_keypoint_count_without_sigmas_is_an_error(dataset: str) -> None:
    instances = predictions_of(OBJECTS)
    instances.pred_keypoints = torch.rand(2, 5, 3)
    evaluator = COCOEvaluator(dataset, tasks=("keypoints",))
    for annotation in evaluator._ground_truth["annotations"]:
        annotation.update(keypoints=[1.0] * 15, num_keypoints=5)
    with pytest.raises(ValueError, match="5 keypoints.*17 where none.*KEYPOINT_OKS_SIGMAS"):
        evaluate(evaluator, instances)


def test_result_entries_have_coco_layout() -> None:
    instances = predictions_of(OBJECTS, [0.5, 0.25])
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
    assert instances_to_coco_json(predictions_of([]), 7) == []


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
