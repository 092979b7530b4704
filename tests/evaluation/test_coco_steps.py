"""Steps of `COCOEvaluator` that projects override or call: each has its effect."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.cocoeval import COCOeval

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import _evaluate_predictions_on_coco
from detectron2.evaluation.coco_evaluation.engine import make_coco
from detectron2.evaluation.fast_eval_api import COCOeval_opt
from detectron2.structures import Boxes, BoxMode, Instances

SIZE = (120, 160)
CAT, DOG = [10.0, 10.0, 60.0, 50.0], [70.0, 20.0, 150.0, 110.0]


@pytest.fixture
def dataset() -> Iterator[str]:
    name = "evaluation_steps"
    annotations = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": c} for c, box in enumerate((CAT, DOG))
    ]
    record = {"file_name": "a", "image_id": 7, "height": 120, "width": 160, "annotations": annotations}
    DatasetCatalog.register(name, lambda: [record])
    MetadataCatalog.get(name).thing_classes = ["cat", "dog"]
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def run(evaluator: COCOEvaluator, boxes: Any = (CAT, DOG), classes: Any = (0, 1)) -> dict[str, Any]:
    instances = Instances(
        SIZE,
        pred_boxes=Boxes(torch.tensor(boxes)),
        pred_classes=torch.tensor(classes),
        scores=torch.full((len(classes),), 0.9),
    )
    evaluator.reset()
    evaluator.process([{"image_id": 7}], [{"instances": instances}])
    return evaluator.evaluate()


@pytest.mark.parametrize("use_fast_impl", [True, False])
def test_deriving_results_gets_the_tables_the_settings_and_the_stats(
    dataset: str, use_fast_impl: bool
) -> None:
    class PerClass50(COCOEvaluator):
        """As projects do it: the parent's numbers, and others out of the tables."""

        def _derive_coco_results(
            self, coco_eval: Any, iou_type: str, class_names: Any = None
        ) -> dict[str, float]:
            assert isinstance(coco_eval, COCOeval_opt if use_fast_impl else COCOeval)
            results = super()._derive_coco_results(coco_eval, iou_type, class_names=class_names)
            precision = coco_eval.eval["precision"]
            assert precision.shape == (10, 101, 2, 4, 3) and class_names == ["cat", "dog"]
            assert len(coco_eval.stats) == 12 and list(coco_eval.params.catIds) == [0, 1]
            for index, name in enumerate(class_names):
                results[f"AP50-{name}"] = 100 * precision[0, :, index, 0, -1].mean()
            results["from stats"] = coco_eval.stats[0]
            return results

    results = run(PerClass50(dataset, use_fast_impl=use_fast_impl), boxes=(CAT, CAT))["bbox"]
    assert results["AP50-cat"] == pytest.approx(100) and results["AP50-dog"] == 0
    assert results["AP"] == pytest.approx(50) and results["from stats"] == pytest.approx(0.5)


def test_the_flag_of_the_engine_is_read_when_scores_are_made(
    dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = COCOEvaluator(dataset)
    assert evaluator._use_fast_impl is True
    evaluator._use_fast_impl = False
    monkeypatch.setattr(COCOeval_opt, "evaluate", lambda self: pytest.fail("the flag has no effect"))
    assert run(evaluator)["bbox"]["AP"] == pytest.approx(100)


def test_predictions_are_scored_by_an_own_step(dataset: str) -> None:
    class Halved(COCOEvaluator):
        def _tasks_from_predictions(self, predictions: Any) -> tuple[str, ...]:
            assert predictions[0]["category_id"] == 0
            return ("bbox",)

        def _eval_predictions(self, predictions: Any, img_ids: Any = None) -> None:
            entries = [entry for p in predictions for entry in p["instances"]]
            for task in self._tasks or self._tasks_from_predictions(entries):
                coco_eval = _evaluate_predictions_on_coco(
                    self._coco_api,
                    entries[:1],
                    task,
                    kpt_oks_sigmas=self._kpt_oks_sigmas,
                    use_fast_impl=self._use_fast_impl,
                    img_ids=img_ids,
                    max_dets_per_image=self._max_dets_per_image,
                )
                names = self._metadata.get("thing_classes")
                self._results[task] = self._derive_coco_results(coco_eval, task, class_names=names)

    results = run(Halved(dataset))["bbox"]
    assert results["AP-cat"] == pytest.approx(100) and results["AP-dog"] == 0


def test_nothing_predicted_derives_nan_for_every_metric(dataset: str) -> None:
    evaluator = COCOEvaluator(dataset)
    results = evaluator._derive_coco_results(None, "keypoints", class_names=["person"])
    assert list(results) == ["AP", "AP50", "AP75", "APm", "APl"]
    assert all(math.isnan(value) for value in results.values())


def test_tables_of_the_original_are_derived_too(dataset: str) -> None:
    """-1 in tables and stats means that there is no ground truth."""
    coco_eval = COCOeval(iouType="bbox")
    coco_eval.stats = np.array([0.25, 0.5, -1, -1, 0.3, 0.2])
    precision = np.full((10, 101, 2, 4, 3), -1.0)
    precision[:, :50, 0, 0, -1] = 0.5
    coco_eval.eval = {"precision": precision}
    results = COCOEvaluator(dataset)._derive_coco_results(coco_eval, "bbox", ["cat", "dog"])
    assert results["AP"] == 25 and results["AP50"] == 50 and math.isnan(results["AP75"])
    assert results["AP-cat"] == 50 and math.isnan(results["AP-dog"])
    with pytest.raises(ValueError, match="names 3 classes"):
        COCOEvaluator(dataset)._derive_coco_results(coco_eval, "bbox", ["cat", "dog", "cow"])


def test_ground_truth_and_scoring_can_be_set(dataset: str) -> None:
    evaluator = COCOEvaluator(dataset)
    other = {**evaluator._coco_api.dataset}
    other["annotations"] = [{**a, "bbox": [0, 0, 5, 5]} for a in other["annotations"]]
    evaluator._coco_api = make_coco(other)
    assert run(evaluator)["bbox"]["AP"] == 0
    evaluator._do_evaluation = False
    assert run(evaluator) == {}


def test_proposals_alone_are_scored_and_outputs_with_neither_are_left_out(dataset: str) -> None:
    proposals = Instances(
        SIZE, proposal_boxes=Boxes(torch.tensor([CAT])), objectness_logits=torch.tensor([1.0])
    )
    evaluator = COCOEvaluator(dataset)
    evaluator.reset()
    evaluator.process([{"image_id": 7}, {"image_id": 8}], [{"proposals": proposals}, {"sem_seg": None}])
    assert [p["image_id"] for p in evaluator._predictions] == [7]
    results = evaluator.evaluate()
    assert list(results) == ["box_proposals"] and results["box_proposals"]["AR@100"] == pytest.approx(50)
