"""COCO's metrics of boxes, masks and keypoints."""

from .evaluator import COCOEvaluator as COCOEvaluator
from .max_dets import COCOevalMaxDets as COCOevalMaxDets
from .predictions import instances_to_coco_json as instances_to_coco_json

__all__ = [
    "COCOEvaluator",
    "COCOevalMaxDets",
    "instances_to_coco_json",
]
