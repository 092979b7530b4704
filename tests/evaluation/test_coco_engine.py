"""The two engines of COCO scoring against each other and against published numbers."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron2.evaluation.coco_evaluation import COCOevalMaxDets
from detectron2.evaluation.coco_evaluation.engine import CocoScores, complete_annotations, make_coco
from detectron2.evaluation.coco_evaluation.object_sizes import annotated_area
from detectron2.evaluation.coco_evaluation.scoring import evaluate_predictions_on_coco
from detectron2.evaluation.fast_eval_api import COCOeval_opt
from detectron2.evaluation.lvis_evaluation import score_lvis
from detectron2.structures import rle

from .coco_fuzz import random_coco

ENGINES = {"hotcoco": COCOeval_opt, "pycocotools": COCOeval}


def score_coco(
    truth: dict[str, Any], detections: list[Any], iou_type: str, *, engine: str = "hotcoco", **settings: Any
) -> CocoScores:
    evaluator = evaluate_predictions_on_coco(
        make_coco(truth), detections, iou_type, cocoeval_fn=ENGINES[engine], **settings
    )
    return CocoScores.of(evaluator)


def _official(truth: dict[str, Any], detections: list[Any], iou_type: str, **params: Any) -> COCOeval:
    """Run pycocotools by itself."""
    with contextlib.redirect_stdout(io.StringIO()):
        gt = make_coco(truth)
        evaluator = COCOeval(gt, gt.loadRes([dict(d) for d in detections]), iou_type)
        for name, value in params.items():
            setattr(evaluator.params, name, value)
        evaluator.evaluate()
        evaluator.accumulate()
        if 100 in evaluator.params.maxDets or iou_type == "keypoints":
            evaluator.summarize()  # it has no average precision at other limits
    return evaluator


def _as_stats(metrics: dict[str, float]) -> list[float]:
    return [-1.0 if math.isnan(value) else value for value in metrics.values()]


@pytest.mark.parametrize("iou_type", ["bbox", "segm", "keypoints"])
@pytest.mark.parametrize("seed", range(12))
def test_engines_agree_to_the_last_bit(seed: int, iou_type: str) -> None:
    truth, detections = random_coco(seed)
    if not detections:
        pytest.skip("pycocotools cannot load an empty result")
    fast = score_coco(truth, detections, iou_type)
    reference = score_coco(truth, detections, iou_type, engine="pycocotools")
    np.testing.assert_array_equal(fast.precision, reference.precision)
    np.testing.assert_array_equal(fast.recall, reference.recall)
    np.testing.assert_array_equal(fast.scores, reference.scores)
    without_box = [{k: v for k, v in d.items() if k != "bbox"} for d in detections]
    official = _official(truth, without_box if iou_type == "segm" else detections, iou_type)
    np.testing.assert_array_equal(_as_stats(fast.metrics()), official.stats)


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_published_numbers_come_out_to_every_printed_digit(iou_type: str, shared_dir: Path) -> None:
    folder = shared_dir / "real" / "coco_eval"
    blocks = (folder / "val2014_fake_eval_res.txt").read_text().split("type=")
    published = next(block for block in blocks if block.startswith(iou_type))
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    detections = json.loads((folder / f"instances_val2014_fake{iou_type}100_results.json").read_text())
    for engine in ("hotcoco", "pycocotools"):
        summary = score_coco(truth, detections, iou_type, engine=engine).summary()
        assert re.findall(r"\] = (.*)", summary) == re.findall(r"\] = (.*)", published)
        assert len(summary.splitlines()) == 12


def test_summary_reads_like_the_official_one() -> None:
    truth, detections = random_coco(3)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        evaluator = _official(truth, detections, "bbox")
        with contextlib.redirect_stdout(printed):
            evaluator.summarize()
    assert score_coco(truth, detections, "bbox").summary() == printed.getvalue().rstrip("\n")


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
def test_annotation_id_zero_counts_as_found(engine: Any) -> None:
    box = [10.0, 10.0, 40.0, 40.0]
    truth = {
        "images": [{"id": 1, "height": 100, "width": 100}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [{"id": 0, "image_id": 1, "category_id": 1, "bbox": box, "area": 1600.0}],
    }
    detections = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9}]
    assert score_coco(truth, detections, "bbox", engine=engine).average_precision() == pytest.approx(1.0)


def test_missing_area_is_that_of_mask_or_box(caplog: pytest.LogCaptureFixture) -> None:
    truth, detections = random_coco(3)
    bare = [{k: v for k, v in a.items() if k not in ("area", "iscrowd")} for a in truth["annotations"]]
    assert any("segmentation" in a for a in bare)
    del bare[0]["segmentation"]
    filled = [{**a, "area": annotated_area(a), "iscrowd": 0} for a in bare]
    assert filled[0]["area"] == bare[0]["bbox"][2] * bare[0]["bbox"][3]
    scores = [score_coco({**truth, "annotations": a}, detections, "bbox").summary() for a in (bare, filled)]
    assert scores[0] == scores[1] and "have no 'area'" in caplog.text


def test_sound_annotation_ids_stay() -> None:
    truth, _ = random_coco(1)
    assert complete_annotations(truth)["annotations"] is truth["annotations"]
    repeated = {**truth, "annotations": truth["annotations"][:1] * 2}
    assert [a["id"] for a in complete_annotations(repeated)["annotations"]] == [1, 2]


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
def test_no_detections_score_zero(engine: Any) -> None:
    truth, _ = random_coco(3)
    assert score_coco(truth, [], "bbox", engine=engine).average_precision() == 0.0


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
def test_detection_limit_image_ids_and_sigmas_are_followed(engine: Any) -> None:
    truth, detections = random_coco(5)
    images = [truth["annotations"][0]["image_id"]]
    settings = {"max_dets_per_image": [1, 2, 3], "img_ids": images}
    scores = score_coco(truth, detections, "bbox", **settings, engine=engine)
    official = _official(truth, detections, "bbox", maxDets=[1, 2, 3], imgIds=images)
    np.testing.assert_array_equal(scores.precision, official.eval["precision"])
    assert scores.average_precision() == np.mean(
        scores.precision[..., 0, -1][scores.precision[..., 0, -1] > -1]
    )

    sigmas = [0.1] * 17
    scores = score_coco(truth, detections, "keypoints", kpt_oks_sigmas=sigmas, engine=engine)
    official = _official(truth, detections, "keypoints", kpt_oks_sigmas=np.asarray(sigmas))
    np.testing.assert_array_equal(scores.precision, official.eval["precision"])


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="iou_type"):
        score_coco({}, [], "box")


def test_the_older_form_chooses_the_engine_by_a_flag() -> None:
    truth, detections = random_coco(5)
    gt = make_coco(truth)
    fast = evaluate_predictions_on_coco(gt, detections, "bbox", use_fast_impl=True)
    slow = evaluate_predictions_on_coco(gt, detections, "bbox", None, False)
    assert type(fast) is COCOeval_opt and type(slow) is COCOeval
    np.testing.assert_array_equal(fast.stats, slow.stats)
    assert len(fast.cocoDt.anns) == len(slow.cocoDt.anns) == len(detections)
    assert len(fast.evalImgs) == len(slow.evalImgs) and fast.cocoGt is gt
    assert "bbox" in detections[0] and "id" not in detections[0]


@pytest.mark.parametrize("iou_type", ["bbox", "segm", "keypoints"])
def test_drop_in_evaluator_fills_what_the_original_fills(iou_type: str) -> None:
    truth, detections = random_coco(7)
    if iou_type == "segm":
        detections = [{k: v for k, v in d.items() if k != "bbox"} for d in detections]
    official = _official(truth, detections, iou_type)
    with contextlib.redirect_stdout(io.StringIO()):
        gt: COCO = make_coco(truth)
        fast = COCOeval_opt(gt, gt.loadRes([dict(d) for d in detections]), iou_type)
        fast.evaluate()
        fast.accumulate()
        fast.summarize()
    np.testing.assert_array_equal(fast.stats, official.stats)
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(fast.eval[name], official.eval[name])
    assert fast.eval["counts"] == official.eval["counts"]
    for ours, theirs in zip(fast.evalImgs, official.evalImgs, strict=True):
        assert (ours is None) == (theirs is None)
        if theirs is not None:
            assert (ours["image_id"], ours["category_id"]) == (theirs["image_id"], theirs["category_id"])
            np.testing.assert_array_equal(ours["dtScores"], theirs["dtScores"])
            np.testing.assert_array_equal(np.asarray(ours["dtMatches"]) > 0, theirs["dtMatches"] > 0)


def _run_both(
    truth: dict[str, Any], detections: list[Any], iou_type: str, **params: Any
) -> list[tuple[COCOeval, str | None]]:
    """Both evaluators from `loadRes` on, each with the kind of its error."""
    outcomes = []
    for evaluator_class in (COCOeval, COCOeval_opt):
        error = None
        with contextlib.redirect_stdout(io.StringIO()):
            gt = COCO()
            gt.dataset = truth
            gt.createIndex()
            evaluator = evaluator_class(gt, gt.loadRes([dict(d) for d in detections]), iou_type)
            for name, value in params.items():
                setattr(evaluator.params, name, value)
            try:
                evaluator.evaluate()
                evaluator.accumulate()
            except (KeyError, IndexError) as e:
                error = type(e).__name__
        outcomes.append((evaluator, error))
    return outcomes


@pytest.mark.parametrize("iou_type", ["bbox", "segm", "keypoints"])
@pytest.mark.parametrize(
    "params", [{}, {"useCats": 0}, {"maxDets": [1]}, {"recThrs": []}, {"areaRng": [], "areaRngLbl": []}]
)
def test_drop_in_evaluator_agrees_on_entries_with_boxes_masks_and_keypoints(
    iou_type: str, params: dict[str, Any]
) -> None:
    """The area of a mask that comes with a box is that of the box there, as the original has it."""
    truth, detections = random_coco(5)
    assert {"bbox", "segmentation", "keypoints"} <= detections[0].keys()
    (official, _), (fast, error) = _run_both(truth, detections, iou_type, **params)
    assert error is None
    for name in ("precision", "recall"):
        np.testing.assert_array_equal(fast.eval[name], official.eval[name])


@pytest.mark.parametrize("iou_type", ["bbox", "segm", "keypoints"])
def test_drop_in_evaluator_misses_what_the_original_misses(iou_type: str) -> None:
    truth, detections = random_coco(5)
    kinds = {}
    for key in ("area", "iscrowd", "bbox", "segmentation", "ignore"):
        less = [{k: v for k, v in a.items() if k != key} for a in truth["annotations"]]
        (_, expected), (_, error) = _run_both({**truth, "annotations": less}, detections, iou_type)
        assert error == expected, key
        kinds[key] = error
    assert kinds["area"] == kinds["iscrowd"] == "KeyError" and kinds["ignore"] is None
    unscored = [{k: v for k, v in d.items() if k != "score"} for d in detections]
    assert [e for _, e in _run_both(truth, unscored, iou_type)] == ["KeyError"] * 2
    assert [e for _, e in _run_both(truth, detections, iou_type, maxDets=[])] == ["IndexError"] * 2


def test_drop_in_evaluator_wants_its_steps_in_order() -> None:
    truth, detections = random_coco(7)
    gt = make_coco(truth)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval_opt(gt, gt.loadRes([dict(d) for d in detections]), "bbox")
    with pytest.raises(RuntimeError, match="evaluate"):
        evaluator.accumulate()


def _two_masks(second: list[int]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ten by ten pixels with two objects, and the same as detections; `second`: runs of the second one."""
    masks = [rle.from_counts(runs, 1, sum(runs)) for runs in ([3, 20, 77], second)]
    codes = [{"size": [10, 10], "counts": mask["counts"].decode()} for mask in masks]
    common = {"image_id": 1, "category_id": 4, "bbox": [0, 0, 5, 5]}
    truth = {
        "images": [{"id": 1, "height": 10, "width": 10}],
        "categories": [{"id": 4, "name": "thing", "frequency": "f"}],
        "annotations": [
            {**common, "id": i, "area": 25, "iscrowd": 0, "segmentation": c} for i, c in enumerate(codes, 1)
        ],
    }
    return truth, [{**common, "score": 0.9, "segmentation": code} for code in codes]


@pytest.mark.parametrize("side", ["ground truth", "predictions"])
def test_masks_larger_than_their_image_are_refused(side: str) -> None:
    """They overlap with nothing in hotcoco; the original reads beyond them, and may never come back."""
    truth, detections = _two_masks([60, 40])
    too_large, the_same = _two_masks([60, 60])
    if side == "ground truth":
        truth = too_large
    else:
        detections = the_same
    with contextlib.redirect_stdout(io.StringIO()):
        gt = make_coco(truth)
        drop_in = COCOeval_opt(gt, gt.loadRes([dict(d) for d in detections]), "segm")
    message = f"mask of the {side} cannot be scored, of category 4 in image 1: .*120"
    with pytest.raises(ValueError, match=message):
        drop_in.evaluate()
    with pytest.raises(ValueError, match=message):
        score_coco(truth, detections, "segm")
    with pytest.raises(ValueError, match=message):
        score_lvis(truth, detections, "segm", 300, None)
    assert score_coco(truth, detections, "bbox").average_precision() == pytest.approx(1)


def test_limits_other_than_a_hundred_have_an_average_precision() -> None:
    truth, detections = random_coco(9)
    gt = make_coco(truth)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        evaluator = COCOevalMaxDets(gt, gt.loadRes([dict(d) for d in detections]), "bbox")
        evaluator.params.maxDets = [1, 10, 50]
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    official = _official(truth, detections, "bbox")  # no image has more than 50 detections
    np.testing.assert_array_equal(evaluator.stats, official.stats)
    assert "maxDets= 50" in printed.getvalue()
