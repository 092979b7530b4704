"""PASCAL VOC from files to scores, against a slow implementation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.pascal_voc import CLASS_NAMES, load_voc_instances, register_pascal_voc
from detectron2.engine.evaluators import build_evaluator
from detectron2.evaluation.pascal_voc_evaluation import (
    PascalVOCDetectionEvaluator,
    parse_rec,
    voc_ap,
    voc_eval,
)
from detectron2.structures import Boxes, BoxMode, Instances

Box = list[float]
Object = tuple[str, Box, int]  # class, XYXY in VOC's pixels, difficult


def write_voc(root: Path, images: dict[str, list[Object]]) -> None:
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    (root / "ImageSets/Main/val.txt").write_text("".join(f"{image_id}\n" for image_id in images))
    for image_id, objects in images.items():
        xml = "".join(
            f"<object><name>{name}</name><pose>Left</pose><truncated>1</truncated>"
            f"<difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
            f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
            for name, box, difficult in objects
        )
        size = "<size><width>100</width><height>80</height><depth>3</depth></size>"
        (root / f"Annotations/{image_id}.xml").write_text(f"<annotation>{size}{xml}</annotation>")


def slow_iou(a: Box, b: Box) -> float:
    """Count pixels; whole coordinates only."""
    first = {(x, y) for x in range(int(a[0]), int(a[2]) + 1) for y in range(int(a[1]), int(a[3]) + 1)}
    second = {(x, y) for x in range(int(b[0]), int(b[2]) + 1) for y in range(int(b[1]), int(b[3]) + 1)}
    return len(first & second) / len(first | second)


def slow_score(
    images: dict[str, list[Object]], detections: list[tuple[str, float, Box]], name: str, thresh: float
) -> tuple[list[float], list[float]]:
    num_objects = sum(o[0] == name and not o[2] for objects in images.values() for o in objects)
    found: set[tuple[str, int]] = set()
    right = wrong = 0
    recall, precision = [], []
    for image_id, _, box in sorted(detections, key=lambda d: -d[1]):
        objects = [o for o in images[image_id] if o[0] == name]
        overlaps = [slow_iou(box, o[1]) for o in objects]
        best = max(range(len(objects)), key=overlaps.__getitem__) if objects else None
        if best is None or overlaps[best] <= thresh:
            wrong += 1
        elif not objects[best][2]:
            if (image_id, best) in found:
                wrong += 1
            else:
                right += 1
            found.add((image_id, best))
        recall.append(right / num_objects)
        precision.append(right / max(right + wrong, 1))
    return recall, precision


def slow_ap(recall: list[float], precision: list[float], use_07_metric: bool) -> float:
    def best_from(r: float) -> float:
        return max((p for q, p in zip(recall, precision) if q >= r), default=0.0)

    if use_07_metric:
        return sum(best_from(0.1 * i) for i in range(11)) / 11
    levels = sorted(set(recall))
    return sum((high - low) * best_from(high) for low, high in zip([0.0, *levels], levels))


def random_box(rng: np.random.Generator) -> Box:
    x, y, w, h = rng.integers([1, 1, 5, 5], [40, 40, 30, 30]).tolist()
    return [x, y, x + w, y + h]


@pytest.fixture
def images() -> dict[str, list[Object]]:
    rng = np.random.default_rng(3)
    return {
        f"{number:06d}": [
            (CLASS_NAMES[int(rng.integers(2))], random_box(rng), int(rng.random() < 0.2))
            for _ in range(int(rng.integers(0, 4)))
        ]
        for number in range(12)
    }


@pytest.fixture
def detections(images: dict[str, list[Object]]) -> dict[str, list[tuple[str, float, Box]]]:
    rng = np.random.default_rng(4)
    found: dict[str, list[tuple[str, float, Box]]] = {name: [] for name in CLASS_NAMES}
    scores = iter(rng.permutation(999) / 1000)
    for image_id, objects in images.items():
        for name, box, _ in objects * 2:
            moved = [v + int(rng.integers(-3, 4)) for v in box]
            found[name].append((image_id, float(next(scores)), moved))
        found[CLASS_NAMES[0]].append((image_id, float(next(scores)), random_box(rng)))
    return found


@pytest.fixture
def dataset(tmp_path: Path, images: dict[str, list[Object]]) -> Iterator[str]:
    name = "voc_test_set"
    write_voc(tmp_path, images)
    register_pascal_voc(name, tmp_path, "val", 2012)
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)
    parse_rec.cache_clear()


@pytest.mark.parametrize("thresh", [0.3, 0.5, 0.75])
@pytest.mark.parametrize("use_07_metric", [False, True])
def test_result_file_agrees_with_the_slow_way(
    dataset: str, tmp_path: Path, images: Any, detections: Any, thresh: float, use_07_metric: bool
) -> None:
    for name in CLASS_NAMES[:2]:
        lines = [f"{i} {score} {' '.join(map(str, box))}\n" for i, score, box in detections[name]]
        (tmp_path / f"det_{name}.txt").write_text("".join(lines))
        recall, precision, ap = voc_eval(
            str(tmp_path / "det_{}.txt"),
            str(tmp_path / "Annotations/{}.xml"),
            str(tmp_path / "ImageSets/Main/val.txt"),
            name,
            thresh,
            use_07_metric,
        )
        slow_recall, slow_precision = slow_score(images, detections[name], name, thresh)
        assert recall == pytest.approx(slow_recall) and precision == pytest.approx(slow_precision)
        assert ap == pytest.approx(slow_ap(slow_recall, slow_precision, use_07_metric))
        assert 0 < ap < 1


def test_evaluator_agrees_with_the_slow_way(dataset: str, images: Any, detections: Any) -> None:
    cfg = get_cfg()
    evaluator = build_evaluator(cfg, dataset)
    assert isinstance(evaluator, PascalVOCDetectionEvaluator)
    for image_id in images:
        rows = [
            (CLASS_NAMES.index(name), score, box)
            for name, found in detections.items()
            for i, score, box in found
            if i == image_id
        ]
        boxes = torch.tensor([box for _, _, box in rows], dtype=torch.float32)
        boxes[:, :2] -= 1
        instances = Instances(
            (80, 100),
            pred_boxes=Boxes(boxes),
            scores=torch.tensor([score for _, score, _ in rows]),
            pred_classes=torch.tensor([c for c, _, _ in rows]),
        )
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
    table = [
        [slow_ap(*slow_score(images, detections[n], n, t / 100), False) for t in range(50, 100, 5)]
        for n in CLASS_NAMES[:2]  # the others have no object
    ]
    results = evaluator.evaluate()["bbox"]
    expected = 100 * np.mean(table, axis=0)
    assert results["AP"] == pytest.approx(expected.mean())
    assert (results["AP50"], results["AP75"]) == pytest.approx((expected[0], expected[5]))


def test_nothing_detected_scores_zero(dataset: str) -> None:
    evaluator = PascalVOCDetectionEvaluator(dataset)
    empty = Instances(
        (80, 100),
        pred_boxes=Boxes(torch.zeros(0, 4)),
        scores=torch.zeros(0),
        pred_classes=torch.zeros(0).long(),
    )
    evaluator.process([{"image_id": "000000"}], [{"instances": empty}])
    assert evaluator.evaluate()["bbox"] == {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}


def test_detection_in_an_unknown_image_is_an_error(dataset: str) -> None:
    evaluator = PascalVOCDetectionEvaluator(dataset)
    one = Instances(
        (80, 100),
        pred_boxes=Boxes(torch.ones(1, 4)),
        scores=torch.ones(1),
        pred_classes=torch.zeros(1).long(),
    )
    evaluator.process([{"image_id": "nowhere"}], [{"instances": one}])
    with pytest.raises(ValueError, match="nowhere"):
        evaluator.evaluate()


def test_average_precision_by_hand() -> None:
    recall, precision = np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3])
    assert voc_ap(recall, precision) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert voc_ap(recall, precision, True) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    assert voc_ap(np.zeros(0), np.zeros(0)) == 0 and voc_ap(np.zeros(0), np.zeros(0), True) == 0


def test_loaded_boxes_are_counted_from_the_corner(tmp_path: Path) -> None:
    write_voc(tmp_path, {"7": [("cat", [1, 2, 10, 12], 1)], "8": []})
    first, second = load_voc_instances(str(tmp_path), "val", CLASS_NAMES)
    assert first == {
        "file_name": str(tmp_path / "JPEGImages/7.jpg"),
        "image_id": "7",
        "height": 80,
        "width": 100,
        "annotations": [{"category_id": 7, "bbox": [0, 1, 10, 12], "bbox_mode": BoxMode.XYXY_ABS}],
    }
    assert second["annotations"] == []
    (record,) = parse_rec(str(tmp_path / "Annotations/7.xml"))
    assert record == {"name": "cat", "pose": "Left", "truncated": 1, "difficult": 1, "bbox": [1, 2, 10, 12]}


def test_unknown_class_and_missing_list_are_explained(tmp_path: Path) -> None:
    write_voc(tmp_path, {"7": [("unicorn", [1, 2, 10, 12], 0)]})
    with pytest.raises(ValueError, match="7.xml.*unicorn"):
        load_voc_instances(str(tmp_path), "val", CLASS_NAMES)
    with pytest.raises(FileNotFoundError, match="DETECTRON2_DATASETS"):
        load_voc_instances(str(tmp_path), "test", CLASS_NAMES)


def test_built_in_splits_are_registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    write_voc(tmp_path / "VOC2007", {"1": [("dog", [1, 1, 5, 5], 0)]})
    assert len(DatasetCatalog.get("voc_2007_val")) == 1
    metadata = MetadataCatalog.get("voc_2012_trainval")
    assert metadata.year == 2012 and metadata.thing_classes[14] == "person"
    assert metadata.dirname == str(tmp_path / "VOC2012")
