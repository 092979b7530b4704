"""Names of `evaluation` for others' code do what they did, and steps that they override are steps."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from detectron2.structures import Boxes, Instances

coco = importlib.import_module("detectron2.evaluation.coco_evaluation")
lvis = importlib.import_module("detectron2.evaluation.lvis_evaluation")
panoptic = importlib.import_module("detectron2.evaluation.panoptic_evaluation")

TRUTH: dict[str, Any] = {
    "images": [{"id": 1, "width": 300, "height": 300}, {"id": 2, "width": 300, "height": 300}],
    "categories": [{"id": 1, "name": "a", "frequency": "f"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [50, 50, 100, 100], "area": 10000, "iscrowd": 0},
        {"id": 3, "image_id": 1, "category_id": 1, "bbox": [0, 0, 300, 300], "area": 90000, "iscrowd": 1},
    ],
}


def proposals() -> list[dict[str, Any]]:
    boxes = [[0.0, 0, 10, 10], [50, 50, 150, 110], [200, 200, 210, 210]]  # IoU 1, 0.6 and none
    found = Instances(
        (300, 300), proposal_boxes=Boxes(torch.tensor(boxes)), objectness_logits=torch.tensor([0.0, 2, 1])
    )
    return [{"image_id": 1, "proposals": found}, {"image_id": 2, "proposals": found}]


def as_coco() -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = TRUTH
        api.createIndex()
    return api


class AsLvis:
    """As much of the package lvis as is asked for."""

    dataset = TRUTH

    def get_ann_ids(self, img_ids: list[int]) -> list[int]:
        return [a["id"] for a in TRUTH["annotations"] if a["image_id"] in img_ids]

    def load_anns(self, ids: list[int]) -> list[dict[str, Any]]:
        return [a for a in TRUTH["annotations"] if a["id"] in ids]


@pytest.mark.parametrize(("module", "make"), [(coco, as_coco), (lvis, AsLvis)])
def test_recall_of_proposals(module: Any, make: Any) -> None:
    api = make()
    found = module._evaluate_box_proposals(proposals(), api)
    assert found["num_pos"] == 2 and found["gt_overlaps"].tolist() == pytest.approx([0.6, 1.0])
    # 0.5 and 0.55 are reached by both; what 0.6 is depends on the last bit.
    assert found["recalls"][:2].tolist() == [1, 1] and found["recalls"][3:].tolist() == [0.5] * 7
    assert found["ar"] == pytest.approx(found["recalls"].mean())
    assert len(found["thresholds"]) == 10
    best = module._evaluate_box_proposals(proposals(), api, limit=1, thresholds=torch.tensor([0.5]))
    assert best["recalls"].tolist() == [0.5]
    small = module._evaluate_box_proposals(proposals(), api, area="small")
    assert small["num_pos"] == 1 and small["ar"] == 1
    assert module._evaluate_box_proposals(proposals(), api, area="96-128")["num_pos"] == 1
    assert module._evaluate_box_proposals(proposals(), api, area="512-inf")["ar"].isnan()
    with pytest.raises(KeyError, match="Did you mean medium"):
        module._evaluate_box_proposals(proposals(), api, area="medum")


def test_predictions_on_lvis() -> None:
    truth = AsLvis()
    truth.dataset = {
        **TRUTH,
        "images": [{**i, "neg_category_ids": [], "not_exhaustive_category_ids": []} for i in TRUTH["images"]],
        "annotations": TRUTH["annotations"][:2],
    }
    results = [{**a, "score": 0.9} for a in TRUTH["annotations"][:2]]
    found = lvis._evaluate_predictions_on_lvis(truth, results, "bbox", class_names=["a"])
    assert set(found) == {"AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"}
    assert found["AP"] == pytest.approx(100) and found["APf"] == pytest.approx(100)
    nothing = lvis._evaluate_predictions_on_lvis(truth, [], "bbox")
    assert all(np.isnan(value) for value in nothing.values()) and set(nothing) == set(found)


def test_panoptic_results_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    part = {"pq": 0.5, "sq": 0.75, "rq": 0.625, "n": 3}
    with caplog.at_level(logging.INFO):
        panoptic._print_panoptic_results({"All": part, "Things": part, "Stuff": {**part, "pq": 0.25}})
    assert caplog.text.count("50.000") == 2 and "25.000" in caplog.text and "Stuff" in caplog.text


def test_ground_truth_files_that_a_subclass_changes_are_read() -> None:
    maps = {"a.png": np.zeros((2, 2), dtype=np.int64), "b.png": np.ones((2, 2), dtype=np.int64)}

    class Moved(SemSegEvaluator):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            assert self.input_file_to_gt_file == {"x.jpg": "a.png"}
            self.input_file_to_gt_file["x.jpg"] = "b.png"

    name = "compat_sem_seg"
    DatasetCatalog.register(name, lambda: [{"file_name": "x.jpg", "sem_seg_file_name": "a.png"}])
    MetadataCatalog.get(name).set(stuff_classes=["c", "d"], ignore_label=255)
    try:
        evaluator = Moved(name, distributed=False, sem_seg_loading_fn=lambda path, dtype: maps[path])
        scores = torch.zeros(2, 2, 2)
        scores[1] = 1  # class 1 everywhere, as in b.png
        evaluator.process([{"file_name": "x.jpg"}], [{"sem_seg": scores}])
        results = evaluator.evaluate()
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    assert results is not None and results["sem_seg"]["pACC"] == 100
