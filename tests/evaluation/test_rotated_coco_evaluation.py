"""Rotated boxes from data to evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_json, load_coco_json
from detectron2.engine.evaluators import build_evaluator
from detectron2.evaluation.rotated_coco_evaluation import RotatedCOCOeval, RotatedCOCOEvaluator
from detectron2.modeling import build_model
from detectron2.structures import Boxes, BoxMode, Instances, RotatedBoxes
from detectron2.utils.events import EventStorage

SIZE = 64
OBJECTS = [  # per image: class and XYWHA box
    [(0, [20.0, 20.0, 24.0, 10.0, 30.0]), (1, [44.0, 44.0, 12.0, 26.0, -50.0])],
    [(1, [32.0, 30.0, 40.0, 12.0, 75.0])],
    [],
]


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[str]:
    def load() -> list[dict[str, Any]]:
        return [
            {
                "file_name": str(tmp_path / f"{number}.png"),
                "image_id": number,
                "height": SIZE,
                "width": SIZE,
                "annotations": [
                    {"bbox": box, "bbox_mode": BoxMode.XYWHA_ABS, "category_id": c, "iscrowd": 0}
                    for c, box in objects
                ],
            }
            for number, objects in enumerate(OBJECTS)
        ]

    rng = np.random.default_rng(0)
    for number in range(len(OBJECTS)):
        Image.fromarray(rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)).save(
            tmp_path / f"{number}.png"
        )
    name = "rotated_test_set"
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(thing_classes=["bar", "plank"], evaluator_type="coco")
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def _config(tmp_path: Path) -> CfgNode:
    cfg = get_cfg()
    m = cfg.MODEL
    m.DEVICE = "cpu"
    cfg.OUTPUT_DIR = str(tmp_path)
    m.BACKBONE.NAME = "build_resnet_fpn_backbone"
    m.RESNETS.DEPTH, m.RESNETS.RES2_OUT_CHANNELS = 18, 64
    m.RESNETS.OUT_FEATURES = m.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    m.FPN.OUT_CHANNELS = 16
    m.PROPOSAL_GENERATOR.NAME = "RRPN"
    m.ANCHOR_GENERATOR.NAME = "RotatedAnchorGenerator"
    m.ANCHOR_GENERATOR.SIZES, m.ANCHOR_GENERATOR.ANGLES = [[16], [32]], [[-60, 0, 60]]
    m.RPN.BBOX_REG_WEIGHTS, m.RPN.IN_FEATURES = (1, 1, 1, 1, 1), ["p3", "p4"]
    m.RPN.POST_NMS_TOPK_TRAIN = m.RPN.POST_NMS_TOPK_TEST = 20
    m.ROI_HEADS.NAME, m.ROI_HEADS.IN_FEATURES = "RROIHeads", ["p2", "p3"]
    m.ROI_HEADS.NUM_CLASSES, m.ROI_HEADS.SCORE_THRESH_TEST = 2, 0.0
    m.ROI_BOX_HEAD.NAME, m.ROI_BOX_HEAD.POOLER_TYPE = "FastRCNNConvFCHead", "ROIAlignRotated"
    m.ROI_BOX_HEAD.BBOX_REG_WEIGHTS = (10.0, 10.0, 5.0, 5.0, 1.0)
    m.ROI_BOX_HEAD.NUM_FC, m.ROI_BOX_HEAD.FC_DIM, m.ROI_BOX_HEAD.POOLER_RESOLUTION = 1, 16, 4
    m.PIXEL_STD = [58.0, 58.0, 58.0]
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (2 * SIZE,), 2 * SIZE
    return cfg


def _predictions(objects: list[tuple[int, list[float]]], score: float = 0.9) -> Instances:
    return Instances(
        (SIZE, SIZE),
        pred_boxes=RotatedBoxes(torch.tensor([box for _, box in objects]).reshape(-1, 5)),
        pred_classes=torch.tensor([c for c, _ in objects], dtype=torch.int64),
        scores=torch.full((len(objects),), score),
    )


def test_a_rotated_model_trains_predicts_and_is_scored(dataset: str, tmp_path: Path) -> None:
    cfg = _config(tmp_path)
    torch.manual_seed(0)
    model = build_model(cfg)
    mapper = DatasetMapper(cfg, is_train=True)
    records = DatasetCatalog.get(dataset)
    inputs = [mapper(record) for record in records]
    boxes = inputs[0]["instances"].gt_boxes
    assert isinstance(boxes, RotatedBoxes)
    assert boxes.tensor[:, 2:4].tolist() == [[48.0, 20.0], [24.0, 52.0]]  # at twice the size
    assert len(inputs[2]["instances"]) == 0
    with EventStorage():
        losses = model.train()(inputs)
        loss = sum(losses.values())
    loss.backward()
    assert torch.isfinite(loss)
    torch.optim.SGD(model.parameters(), 1e-4).step()
    test_mapper = DatasetMapper(cfg, is_train=False)
    evaluator = build_evaluator(cfg, dataset)
    assert isinstance(evaluator, RotatedCOCOEvaluator)
    evaluator.reset()
    with torch.no_grad():
        for record in records:
            batch = [test_mapper(record)]
            evaluator.process(batch, model.eval()(batch))
    results = evaluator.evaluate()["bbox"]
    assert 0 <= results["AP"] <= 100 and list(results)[-2:] == ["AP-bar", "AP-plank"]


def test_ground_truth_scores_100(dataset: str) -> None:
    evaluator = RotatedCOCOEvaluator(dataset)
    for number, objects in enumerate(OBJECTS):
        evaluator.process([{"image_id": number}], [{"instances": _predictions(objects)}])
    results = evaluator.evaluate()["bbox"]
    assert results["AP"] == pytest.approx(100) and results["AP-plank"] == pytest.approx(100)


def test_a_json_file_may_hold_rotated_boxes(dataset: str, tmp_path: Path) -> None:
    convert_to_coco_json(dataset, str(tmp_path / "rotated.json"))
    loaded = load_coco_json(tmp_path / "rotated.json", "")
    assert any(record["annotations"] for record in loaded)
    for record, source in zip(loaded, DatasetCatalog.get(dataset), strict=True):
        assert [a["bbox"] for a in record["annotations"]] == [a["bbox"] for a in source["annotations"]]
        assert all(a["bbox_mode"] == BoxMode.XYWHA_ABS for a in record["annotations"])


def test_a_wrong_angle_is_a_miss(dataset: str) -> None:
    turned = [(c, [*box[:4], box[4] + 90]) for c, box in OBJECTS[1]]
    evaluator = RotatedCOCOEvaluator(dataset)
    evaluator.process([{"image_id": 1}], [{"instances": _predictions(turned)}])
    assert evaluator.evaluate()["bbox"]["AP"] == 0


def test_masks_are_no_task(dataset: str) -> None:
    with pytest.raises(ValueError, match="boxes only"):
        RotatedCOCOEvaluator(dataset, tasks=("segm",))


def test_upright_predictions_are_taken_too(dataset: str) -> None:
    boxes = Instances(
        (SIZE, SIZE),
        pred_boxes=Boxes(torch.tensor([[0.0, 0, 4, 4]])),
        pred_classes=torch.tensor([0]),
        scores=torch.tensor([0.5]),
    )
    evaluator = RotatedCOCOEvaluator(dataset)
    evaluator.process([{"image_id": 0}], [{"instances": boxes}])
    assert evaluator.evaluate()["bbox"]["AP"] == 0


def test_overlap_of_turned_squares_and_of_a_crowd() -> None:
    evaluator = RotatedCOCOeval(iouType="bbox")
    square, turned = [5.0, 5.0, 2.0, 2.0, 0.0], [5.0, 5.0, 2.0, 2.0, 45.0]
    octagon = 8 * (math.sqrt(2) - 1)  # what the two squares share
    upright = [4.0, 4.0, 2.0, 2.0]  # the square as XYWH
    plain = evaluator.compute_iou_dt_gt([turned], [square, upright], [0, 0])
    assert plain == pytest.approx(octagon / (8 - octagon), abs=1e-5)
    crowd = evaluator.compute_iou_dt_gt([turned], [square], [1])
    assert crowd == pytest.approx(octagon / 4, abs=1e-5)
    assert evaluator.compute_iou_dt_gt([], [square], [0]).shape == (0, 1)


def test_kinds_of_boxes() -> None:
    assert RotatedCOCOeval.is_rotated([[0, 0, 1, 1, 45]]) and RotatedCOCOeval.is_rotated(np.zeros((2, 5)))
    assert not RotatedCOCOeval.is_rotated([[0, 0, 1, 1]]) and not RotatedCOCOeval.is_rotated([])
    assert RotatedCOCOeval.boxlist_to_tensor([[0, 0, 2, 4]], 5).tolist() == [[1, 2, 2, 4, 0]]
    assert RotatedCOCOeval.boxlist_to_tensor([], 4).shape == (0, 4)
    with pytest.raises(ValueError, match="4 or 4 numbers|4 numbers"):
        RotatedCOCOeval.boxlist_to_tensor([[0, 0, 2, 4, 5]], 4)


@pytest.mark.parametrize("img_ids", [None, [0]])
def test_matching_is_a_step_that_subclasses_replace(dataset: str, img_ids: Any) -> None:
    class FirstOnly(RotatedCOCOEvaluator):
        def _evaluate_predictions_on_coco(self, coco_gt: Any, coco_results: Any, **options: Any) -> Any:
            assert coco_gt is self._coco_api and options == ({} if img_ids is None else {"img_ids": [0]})
            return super()._evaluate_predictions_on_coco(coco_gt, coco_results[:1], **options)

    results = []
    for evaluator in (RotatedCOCOEvaluator(dataset), FirstOnly(dataset)):
        for number, objects in enumerate(OBJECTS):
            evaluator.process([{"image_id": number}], [{"instances": _predictions(objects)}])
        results.append(evaluator.evaluate(img_ids=img_ids)["bbox"]["AP"])
    assert results[0] == pytest.approx(100) and results[1] < 60
