"""Panoptic quality: hand-made cases, a slow independent reference, real images."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES
from detectron2.evaluation import COCOPanopticEvaluator
from detectron2.evaluation.panoptic_evaluation.quality import (
    CategoryCounts,
    match_segments,
    overlap_counts,
    read_label_map,
    score_panoptic,
    summarize_counts,
)
from detectron2.structures.panoptic_ids import colors_from_ids

CATEGORIES = [
    {"id": 1, "name": "cat", "isthing": 1},
    {"id": 3, "name": "dog", "isthing": 1},
    {"id": 7, "name": "sky", "isthing": 0},
    {"id": 9, "name": "sea", "isthing": 0},
]


def _segment(id: int, category: int, crowd: int = 0) -> dict[str, Any]:
    return {"id": id, "category_id": category, "iscrowd": crowd}


def _count(gt: Any, gt_segments: list[Any], pred: Any, pred_segments: list[Any]) -> dict[int, CategoryCounts]:
    counts: defaultdict[int, CategoryCounts] = defaultdict(CategoryCounts)
    match_segments(np.asarray(gt), gt_segments, np.asarray(pred), pred_segments, counts)
    return dict(counts)


def test_overlaps_are_counted_by_pairs() -> None:
    assert overlap_counts(np.array([[1, 1, 2]]), np.array([[5, 0, 0]])) == {(1, 5): 1, (1, 0): 1, (2, 0): 1}
    assert overlap_counts(np.zeros((0, 4), int), np.zeros((0, 4), int)) == {}
    with pytest.raises(ValueError, match="different size"):
        overlap_counts(np.zeros((1, 2)), np.zeros((2, 1)))


def test_match_needs_more_than_half() -> None:
    more = _count([[1, 1, 1, 1]], [_segment(1, 1)], [[0, 2, 2, 2]], [_segment(2, 1)])
    assert more[1] == CategoryCounts(iou=3 / 4, tp=1)
    gt = [[1, 1, 1, 8]]  # two pixels are shared of the four that either covers: IoU 1/2 is not enough
    pred = [[5, 2, 2, 2]]
    segments = [_segment(1, 1), _segment(8, 7)]
    counts = _count(gt, segments, pred, [_segment(5, 7), _segment(2, 1)])
    assert counts[1] == CategoryCounts(iou=0.0, tp=0, fp=1, fn=1)
    assert counts[7] == CategoryCounts(iou=0.0, tp=0, fp=1, fn=1)


def test_void_is_left_out_of_the_union() -> None:
    # Prediction of 4 pixels over 2 true ones and 2 void ones: IoU 2 / (2 + 4 - 2 - 2) = 1.
    counts = _count([[1, 1, 0, 0]], [_segment(1, 1)], [[2, 2, 2, 2]], [_segment(2, 1)])
    assert counts[1] == CategoryCounts(iou=1.0, tp=1)


def test_prediction_in_void_or_in_a_crowd_of_its_class_is_no_mistake() -> None:
    gt = [[0, 0, 0, 4, 4, 4, 7]]
    truth = [_segment(4, 1, crowd=1), _segment(7, 7)]
    pred = [[1, 1, 1, 2, 2, 3, 5]]
    predicted = [_segment(1, 3), _segment(2, 1), _segment(3, 3), _segment(5, 7)]
    counts = _count(gt, truth, pred, predicted)
    assert counts[7] == CategoryCounts(iou=1.0, tp=1)
    assert counts[3] == CategoryCounts(fp=1)  # a dog in a crowd of cats is one; the dog in void is not
    assert 1 not in counts or counts[1].is_empty


def test_quality_by_hand() -> None:
    counts = {1: CategoryCounts(iou=1.6, tp=2, fp=1, fn=1), 7: CategoryCounts(fn=2)}
    scores = summarize_counts(counts, {1: True, 3: True, 7: False})
    assert scores.groups["Things"] == pytest.approx(
        {"PQ": 1.6 / 3, "SQ": 0.8, "RQ": 2 / 3, "num_categories": 1}
    )
    assert scores.groups["Stuff"] == {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0, "num_categories": 1}
    assert scores.groups["All"]["PQ"] == pytest.approx(0.8 / 3)
    nothing = summarize_counts({}, {1: True})
    assert all(math.isnan(nothing.groups[g]["PQ"]) for g in ("All", "Things", "Stuff"))


def test_ids_that_map_and_list_do_not_share_are_errors() -> None:
    with pytest.raises(ValueError, match="segment id 2, which its segments_info does not list"):
        _count([[1, 2]], [_segment(1, 1)], [[3, 3]], [_segment(3, 1)])
    with pytest.raises(ValueError, match="lists segment id 4, which the PNG does not hold"):
        _count([[1, 1]], [_segment(1, 1)], [[3, 3]], [_segment(3, 1), _segment(4, 1)])


# -- against a reference that looks at one pixel and one pair of segments at a time


def _slow_counts(
    truths: list[tuple[np.ndarray, list[Any]]], predictions: list[tuple[np.ndarray, list[Any]]]
) -> dict[int, list[float]]:
    """Category id -> [sum of IoU, tp, fp, fn]."""
    table: dict[Any, list[float]] = {c["id"]: [0.0, 0, 0, 0] for c in CATEGORIES}
    for (gt, gt_segments), (pred, pred_segments) in zip(truths, predictions):
        hit_gt, hit_pred = set(), set()
        void = gt == 0
        for g in gt_segments:
            for p in pred_segments:
                if g["iscrowd"] or g["category_id"] != p["category_id"]:
                    continue
                a, b = gt == g["id"], (pred == p["id"]) & ~void
                iou = np.logical_and(a, b).sum() / np.logical_or(a, b).sum()
                if iou > 0.5:
                    table[g["category_id"]][0] += iou
                    table[g["category_id"]][1] += 1
                    hit_gt.add(g["id"])
                    hit_pred.add(p["id"])
        for g in gt_segments:
            table[g["category_id"]][3] += g["id"] not in hit_gt and not g["iscrowd"]
        for p in pred_segments:
            if p["id"] in hit_pred:
                continue
            own = pred == p["id"]
            excused = void.copy()
            for g in gt_segments:
                if g["iscrowd"] and g["category_id"] == p["category_id"]:
                    excused |= gt == g["id"]
            table[p["category_id"]][2] += (own & excused).sum() / own.sum() <= 0.5
    return table


def _random_map(rng: np.random.Generator, start: np.ndarray | None = None) -> np.ndarray:
    """Rectangles over void, or over another map."""
    ids = np.zeros((24, 30), dtype=np.int64) if start is None else start.copy()
    for id in rng.integers(1, 2**24, size=6 if start is None else 2):
        top, left = rng.integers(0, 20), rng.integers(0, 24)
        ids[top : top + rng.integers(3, 20), left : left + rng.integers(3, 24)] = id
    return ids


def _random_segments(
    rng: np.random.Generator, ids: np.ndarray, like: dict[int, int], crowds: bool
) -> list[Any]:
    segments, crowded = [], set()
    for id in np.unique(ids[ids > 0]).tolist():
        category = like.get(id, int(rng.choice([c["id"] for c in CATEGORIES])))
        is_thing = category in (1, 3)
        crowd = int(crowds and is_thing and category not in crowded and rng.random() < 0.3)
        crowded |= {category} if crowd else set()
        segments.append({**_segment(id, category, crowd), "area": int((ids == id).sum())})
    return segments


def _write(folder: Path, name: str, maps: list[np.ndarray], segments: list[list[Any]]) -> tuple[str, str]:
    pngs = folder / name
    pngs.mkdir()
    annotations = []
    for i, (ids, infos) in enumerate(zip(maps, segments)):
        Image.fromarray(colors_from_ids(ids)).save(pngs / f"{i}.png")
        annotations.append({"image_id": i, "file_name": f"{i}.png", "segments_info": infos})
    images = [
        {"id": i, "height": m.shape[0], "width": m.shape[1], "file_name": f"{i}.jpg"}
        for i, m in enumerate(maps)
    ]
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))
    return str(path), str(pngs)


@pytest.mark.parametrize("seed", range(6))
def test_both_engines_equal_the_slow_reference(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    gt_maps = [_random_map(rng) for _ in range(3)]
    pred_maps = [_random_map(rng, m) for m in gt_maps]
    gt_segments = [_random_segments(rng, m, {}, crowds=True) for m in gt_maps]
    likely = [{s["id"]: s["category_id"] for s in infos} for infos in gt_segments]
    pred_segments = [_random_segments(rng, m, names, crowds=False) for m, names in zip(pred_maps, likely)]
    truth = _write(tmp_path, "gt", gt_maps, gt_segments)
    prediction = _write(tmp_path, "pred", pred_maps, pred_segments)
    expected = _slow_counts(list(zip(gt_maps, gt_segments)), list(zip(pred_maps, pred_segments)))
    for engine in ("hotcoco", "numpy"):
        scores = score_panoptic(*truth, *prediction, engine=engine)  # type: ignore[arg-type]
        for category, (iou, tp, fp, fn) in expected.items():
            counts = scores.per_category.get(category, CategoryCounts())
            assert (counts.tp, counts.fp, counts.fn) == (tp, fp, fn)
            assert counts.iou == pytest.approx(iou, abs=1e-12)


def test_wrong_areas_in_the_json_do_not_reach_the_scores(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ids = _random_map(np.random.default_rng(0))
    segments = _random_segments(np.random.default_rng(1), ids, {}, crowds=False)
    prediction = _write(tmp_path, "pred", [ids], [segments])
    truth = _write(tmp_path, "gt", [ids], [[{**s, "area": max(1, s["area"] // 5)} for s in segments]])
    assert score_panoptic(*truth, *prediction).groups["All"]["PQ"] == pytest.approx(1.0)
    assert "pixels" in caplog.text


def test_images_without_prediction_and_unknown_categories_are_errors(tmp_path: Path) -> None:
    ids = np.full((4, 4), 5)
    truth = _write(tmp_path, "gt", [ids, ids], [[{**_segment(5, 1), "area": 16}]] * 2)
    with pytest.raises(ValueError, match="1 of 2 images"):
        score_panoptic(*truth, *_write(tmp_path, "pred", [ids], [[_segment(5, 1)]]))
    with pytest.raises(ValueError, match="category id 2"):
        score_panoptic(*truth, *_write(tmp_path, "pred2", [ids, ids], [[_segment(5, 2)]] * 2))


# -- the evaluator


@pytest.fixture
def real_panoptic(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shared_dir / "real"))
    return "coco_2017_val_panoptic"


@pytest.mark.parametrize("engine", ["hotcoco", "numpy"])
def test_ground_truth_as_prediction_scores_one_hundred(
    real_panoptic: str, engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(COCOPanopticEvaluator, "_engine", engine)
    evaluator = COCOPanopticEvaluator(real_panoptic, str(tmp_path) if engine == "hotcoco" else None)
    evaluator.reset()
    for record in DatasetCatalog.get(real_panoptic):
        ids = torch.as_tensor(read_label_map(record["pan_seg_file_name"]))
        infos = [
            {
                "id": s["id"],
                "category_id": s["category_id"],
                "isthing": s["isthing"],
                "score": torch.tensor(0.5),
            }
            for s in record["segments_info"]
        ]
        evaluator.process([record], [{"panoptic_seg": (ids, infos)}])
    results = evaluator.evaluate()
    assert results is not None
    keys = [metric + suffix for suffix in ("", "_th", "_st") for metric in ("PQ", "SQ", "RQ")]
    assert list(results["panoptic_seg"]) == keys
    assert all(value == pytest.approx(100) for value in results["panoptic_seg"].values())
    if engine == "hotcoco":
        assert (tmp_path / "predictions.json").exists() and len(list(tmp_path.glob("*.png"))) == 24


@pytest.mark.parametrize("engine", ["hotcoco", "numpy"])
def test_images_may_be_named_by_text(engine: Any, tmp_path: Path) -> None:
    """As in Cityscapes, ADE20K and Mapillary Vistas; the numbers are those of numbered images."""
    rng = np.random.default_rng(5)
    gt_maps = [_random_map(rng) for _ in range(4)]
    pred_maps = [_random_map(rng, m) for m in gt_maps]
    gt_segments = [_random_segments(rng, m, {}, crowds=True) for m in gt_maps]
    likely = [{s["id"]: s["category_id"] for s in infos} for infos in gt_segments]
    pred_segments = [_random_segments(rng, m, names, crowds=False) for m, names in zip(pred_maps, likely)]
    truth = _write(tmp_path, "gt", gt_maps, gt_segments)
    prediction = _write(tmp_path, "pred", pred_maps, pred_segments)
    numbered = score_panoptic(*truth, *prediction, engine=engine)
    for path, _ in (truth, prediction):
        content = json.loads(Path(path).read_text())
        for image in content["images"]:
            image["id"] = f"ulm_{image['id']}"
        for annotation in content["annotations"]:
            annotation["image_id"] = f"ulm_{annotation['image_id']}"
        Path(path).write_text(json.dumps(content))
    named = score_panoptic(*truth, *prediction, engine=engine)
    assert named == numbered and named.groups["All"]["num_categories"] > 0


def test_the_built_in_panoptic_cityscapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A car and a road, the car found, the road taken for another thing: things 100, stuff 0."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    scene, ids = "ulm_000000_000019", np.full((8, 10), 7)
    ids[2:6, 3:8] = 26001
    folder = tmp_path / "cityscapes/gtFine/cityscapes_panoptic_val"
    folder.mkdir(parents=True)
    Image.fromarray(colors_from_ids(ids)).save(folder / f"{scene}_gtFine_panoptic.png")
    segments = [{**_segment(26001, 26), "area": 20}, {**_segment(7, 7), "area": 60}]
    names = [{"id": c["id"], "name": c["name"], "isthing": c["isthing"]} for c in CITYSCAPES_CATEGORIES]
    annotation = {"image_id": scene, "segments_info": segments, "file_name": f"{scene}_gtFine_panoptic.png"}
    images = [{"id": scene, "file_name": f"{scene}_gtFine_leftImg8bit.png", "height": 8, "width": 10}]
    truth = {"images": images, "annotations": [annotation], "categories": names}
    folder.with_suffix(".json").write_text(json.dumps(truth))

    evaluator = COCOPanopticEvaluator("cityscapes_fine_panoptic_val", str(tmp_path / "out"))
    evaluator.reset()
    found = [
        {"id": 1, "category_id": 13, "isthing": True},  # by their training ids
        {"id": 2, "category_id": 1, "isthing": False},
    ]
    output = (torch.as_tensor(np.where(ids == 7, 2, 1)), found)
    file_name = f"leftImg8bit/val/ulm/{scene}_leftImg8bit.png"
    evaluator.process([{"image_id": scene, "file_name": file_name}], [{"panoptic_seg": output}])
    results = evaluator.evaluate()
    assert results is not None
    assert results["panoptic_seg"]["PQ_th"] == pytest.approx(100) and results["panoptic_seg"]["PQ_st"] == 0
    saved = json.loads((tmp_path / "out/predictions.json").read_text())
    assert saved["annotations"][0]["image_id"] == scene


@pytest.fixture
def tiny_panoptic(tmp_path: Path) -> Iterator[str]:
    ids = np.array([[11, 11, 12, 12]] * 4)
    infos = [{**_segment(11, 3), "area": 8}, {**_segment(12, 9), "area": 8}]
    panoptic_json, panoptic_root = _write(tmp_path, "truth", [ids], [infos])
    name = "panoptic_test_set"
    MetadataCatalog.get(name).set(
        panoptic_json=panoptic_json,
        panoptic_root=panoptic_root,
        thing_dataset_id_to_contiguous_id={1: 0, 3: 1},
        stuff_dataset_id_to_contiguous_id={7: 0, 9: 1},
        label_divisor=1000,
    )
    yield name
    MetadataCatalog.remove(name)


def test_things_and_stuff_ids_are_mapped_back(tiny_panoptic: str) -> None:
    evaluator = COCOPanopticEvaluator(tiny_panoptic)
    segments = [{"id": 1, "category_id": 1, "isthing": True}, {"id": 2, "category_id": 1, "isthing": False}]
    output = (torch.tensor([[1, 1, 2, 2]] * 4), segments)
    evaluator.process([{"image_id": 0, "file_name": "folder/0.jpg"}], [{"panoptic_seg": output}])
    results = evaluator.evaluate()
    assert results is not None and results["panoptic_seg"]["PQ"] == pytest.approx(100)
    bad = [{"id": 1, "category_id": 5, "isthing": True}]
    with pytest.raises(ValueError, match="thing segment has class 5"):
        evaluator.process(
            [{"image_id": 0, "file_name": "0.jpg"}], [{"panoptic_seg": (torch.ones(4, 4).int(), bad)}]
        )


def test_predicted_things_are_void_on_data_without_things(tiny_panoptic: str) -> None:
    metadata = MetadataCatalog.get(tiny_panoptic)
    MetadataCatalog.remove(tiny_panoptic)
    stuff = {**metadata.as_dict(), "thing_dataset_id_to_contiguous_id": {}}
    MetadataCatalog.get(tiny_panoptic).set(**stuff)
    evaluator = COCOPanopticEvaluator(tiny_panoptic)
    segments = [{"id": 1, "category_id": 0, "isthing": True}, {"id": 2, "category_id": 1, "isthing": False}]
    output = (torch.tensor([[1, 1, 2, 2]] * 4), segments)
    evaluator.process([{"image_id": 0, "file_name": "folder/0.jpg"}], [{"panoptic_seg": output}])
    results = evaluator.evaluate()
    assert results is not None and results["panoptic_seg"]["PQ_st"] == pytest.approx(100)


def test_encoded_labels_are_taken_apart(tiny_panoptic: str) -> None:
    evaluator = COCOPanopticEvaluator(tiny_panoptic)
    labels, segments = evaluator._decode_labels(np.array([[-1, 0, 1002, 2000]]))
    np.testing.assert_array_equal(labels, [[0, 1, 1003, 2001]])
    assert [(s["id"], s["category_id"], s["isthing"]) for s in segments] == [
        (1, 0, True),
        (1003, 1, True),
        (2001, 2, False),
    ]


def test_data_set_without_panoptic_ground_truth_is_an_error() -> None:
    MetadataCatalog.get("not_panoptic").thing_classes = ["a"]
    with pytest.raises(ValueError, match="panoptic_json and panoptic_root"):
        COCOPanopticEvaluator("not_panoptic")
    MetadataCatalog.remove("not_panoptic")
