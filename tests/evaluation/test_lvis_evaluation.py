"""LVIS from files to scores, against a slow implementation."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.lvis import register_lvis_instances
from detectron2.engine.evaluators import build_evaluator
from detectron2.evaluation.lvis_evaluation import LVISEvaluator
from detectron2.structures import Boxes, Instances

SIZE = 200
FREQUENCIES = {1: "r", 2: "c", 3: "f", 4: "f"}


def random_lvis(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for image_id in range(1, 9):
        roles = {c: int(rng.integers(4)) for c in FREQUENCIES}  # unknown, absent, labelled, partly labelled
        for category, role in roles.items():
            for _ in range(int(rng.integers(1, 4)) if role >= 2 else 0):
                x, y, w, h = (float(v) for v in rng.integers([0, 0, 10, 10], [100, 100, 100, 100]))
                corners = [x, y, x + w, y, x + w, y + h, x, y + h]
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": image_id, "category_id": category}
                    | {"bbox": [x, y, w, h], "area": w * h, "segmentation": [corners]}
                )
        images.append(
            {
                "id": image_id,
                "height": SIZE,
                "width": SIZE,
                "coco_url": f"http://images.cocodataset.org/val2017/{image_id:012d}.jpg",
                "neg_category_ids": [c for c, role in roles.items() if role == 1],
                "not_exhaustive_category_ids": [c for c, role in roles.items() if role == 3],
            }
        )
    categories = [
        {
            "id": c,
            "name": f"name{c}",
            "synonyms": [f"synonym{c}", "other"],
            "frequency": f,
            "image_count": 10 * c,
        }
        for c, f in FREQUENCIES.items()
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def random_detections(content: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """Moved objects, and boxes of every category in every image; XYWH."""
    rng = np.random.default_rng(seed)
    found = []
    for annotation in content["annotations"] * 2:
        box = (np.array(annotation["bbox"]) + rng.integers(-4, 5, 4)).clip(1).tolist()
        found.append((annotation["image_id"], annotation["category_id"], box))
    for image in content["images"]:
        found += [(image["id"], c, rng.integers(10, 90, 4).astype(float).tolist()) for c in FREQUENCIES]
    scores = rng.permutation(len(found)) / len(found)
    return [
        {"image_id": i, "category_id": c, "bbox": box, "score": float(score)}
        for (i, c, box), score in zip(found, scores)
    ]


def slow_iou(a: list[float], b: list[float]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def slow_category(content: dict[str, Any], found: list[Any], category: int, thresh: float) -> float | None:
    """Federated average precision at one threshold; None without objects."""
    outcomes = []  # score, right
    num_objects = 0
    for image in content["images"]:
        objects = [
            a["bbox"]
            for a in content["annotations"]
            if a["image_id"] == image["id"] and a["category_id"] == category
        ]
        num_objects += len(objects)
        if not objects and category not in image["neg_category_ids"]:
            continue
        taken: set[int] = set()
        mine = [d for d in found if d["image_id"] == image["id"] and d["category_id"] == category]
        for detection in sorted(mine, key=lambda d: -d["score"]):
            free = [i for i in range(len(objects)) if i not in taken]
            overlaps = {i: slow_iou(detection["bbox"], objects[i]) for i in free}
            best = max(free, key=overlaps.__getitem__, default=None)
            if best is not None and overlaps[best] >= thresh:
                taken.add(best)
                outcomes.append((detection["score"], True))
            elif category not in image["not_exhaustive_category_ids"]:
                outcomes.append((detection["score"], False))
    if not num_objects:
        return None
    right, curve = 0, []
    for count, (_, is_right) in enumerate(sorted(outcomes, key=lambda o: -o[0]), start=1):
        right += is_right
        curve.append((right / num_objects, right / count))
    points = [max((p for r, p in curve if r >= level), default=0.0) for level in np.linspace(0, 1, 101)]
    return sum(points) / 101


@pytest.fixture
def content() -> dict[str, Any]:
    return random_lvis(5)


@pytest.fixture
def dataset(tmp_path: Path, content: dict[str, Any]) -> Iterator[str]:
    name = "lvis_test_set"
    (tmp_path / "lvis.json").write_text(json.dumps(content))
    register_lvis_instances(name, {}, str(tmp_path / "lvis.json"), "coco/")
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def feed(evaluator: LVISEvaluator, content: dict[str, Any], found: list[dict[str, Any]]) -> None:
    for image in content["images"]:
        mine = [d for d in found if d["image_id"] == image["id"]]
        boxes = torch.tensor([d["bbox"] for d in mine]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances = Instances(
            (SIZE, SIZE),
            pred_boxes=Boxes(boxes),
            scores=torch.tensor([d["score"] for d in mine]),
            pred_classes=torch.tensor([d["category_id"] - 1 for d in mine], dtype=torch.int64),
        )
        evaluator.process([{"image_id": image["id"]}], [{"instances": instances}])


def test_boxes_agree_with_the_slow_way(dataset: str, content: dict[str, Any], tmp_path: Path) -> None:
    found = random_detections(content, 6)
    evaluator = build_evaluator(get_cfg(), dataset, str(tmp_path))
    assert isinstance(evaluator, LVISEvaluator)
    feed(evaluator, content, found)
    results = evaluator.evaluate()["bbox"]
    assert len(results) == 13 and "AR@300" in results
    thresholds = np.linspace(0.5, 0.95, 10).tolist()
    table = {c: [slow_category(content, found, c, t) for t in thresholds] for c in FREQUENCIES}
    assert all(values[0] is not None for values in table.values())
    values = {c: np.array(row, dtype=float) for c, row in table.items()}
    assert results["AP"] == pytest.approx(100 * np.mean([*values.values()]), abs=1e-6)
    assert results["AP50"] == pytest.approx(100 * np.mean([v[0] for v in values.values()]), abs=1e-6)
    assert results["APr"] == pytest.approx(100 * values[1].mean(), abs=1e-6)
    assert results["APf"] == pytest.approx(100 * np.mean([values[3], values[4]]), abs=1e-6)
    saved = json.loads((tmp_path / "lvis_instances_results.json").read_text())
    assert {entry["category_id"] for entry in saved} == set(FREQUENCIES)


def test_ground_truth_scores_100_with_masks(dataset: str, content: dict[str, Any]) -> None:
    evaluator = LVISEvaluator(dataset)
    by_image: dict[int, list[Any]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    for image_id, mine in by_image.items():
        boxes = np.array([a["bbox"] for a in mine]).reshape(-1, 4).astype(int)
        masks = torch.zeros(len(boxes), SIZE, SIZE, dtype=torch.bool)
        for mask, (x, y, w, h) in zip(masks, boxes):
            mask[y : y + h, x : x + w] = True
        corners = torch.as_tensor(boxes).float()
        corners[:, 2:] += corners[:, :2]
        instances = Instances(
            (SIZE, SIZE),
            pred_boxes=Boxes(corners),
            pred_masks=masks,
            scores=torch.ones(len(boxes)),
            pred_classes=torch.tensor([a["category_id"] - 1 for a in mine], dtype=torch.int64),
        )
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
    results = evaluator.evaluate()
    assert results["bbox"]["AP"] == pytest.approx(100) and results["segm"]["AP"] == pytest.approx(100)


def test_only_the_best_detections_of_an_image_count(dataset: str, content: dict[str, Any]) -> None:
    found = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
        for a in content["annotations"]
    ]
    evaluator = LVISEvaluator(dataset, max_dets_per_image=1)
    feed(evaluator, content, found)
    results = evaluator.evaluate()["bbox"]
    num_images = len({a["image_id"] for a in content["annotations"]})
    objects = {c: [a for a in content["annotations"] if a["category_id"] == c] for c in FREQUENCIES}
    first = {
        i: next(a for a in content["annotations"] if a["image_id"] == i)
        for i in {f["image_id"] for f in found}
    }
    assert len(first) == num_images
    recalls = [sum(f["category_id"] == c for f in first.values()) / len(objects[c]) for c in FREQUENCIES]
    assert results["AR@1"] == pytest.approx(100 * np.mean(recalls))


def test_no_detection_is_nan(dataset: str, content: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    evaluator = LVISEvaluator(dataset)
    feed(evaluator, content, [])
    results = evaluator.evaluate()["bbox"]
    assert "AP" in results and all(math.isnan(value) for value in results.values())
    assert "no detections" in caplog.text


def test_keypoints_are_no_task(dataset: str) -> None:
    with pytest.raises(ValueError, match="bbox.*segm"):
        LVISEvaluator(dataset, tasks=("keypoints",))
