"""A data set of one image with a cat and a dog, and predictions on it."""

from __future__ import annotations

from typing import Any

import torch

from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances

IMAGE_SIZE = (120, 160)
OBJECTS = [  # class, XYXY
    (0, [10.0, 10.0, 60.0, 50.0]),
    (1, [70.0, 20.0, 150.0, 110.0]),
]


def predictions_of(objects: list[tuple[int, list[float]]], scores: list[float] | None = None) -> Instances:
    instances = Instances(IMAGE_SIZE)
    boxes = torch.tensor([box for _, box in objects]).reshape(-1, 4)
    instances.pred_boxes = Boxes(boxes)
    instances.pred_classes = torch.tensor([c for c, _ in objects], dtype=torch.int64)
    instances.scores = torch.tensor(scores if scores is not None else [0.9] * len(objects))
    return instances


def dataset_dicts() -> list[dict[str, Any]]:
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


def evaluate(evaluator: COCOEvaluator, instances: Instances) -> dict[str, Any]:
    evaluator.reset()
    evaluator.process([{"image_id": 7}], [{"instances": instances}])
    return evaluator.evaluate()
