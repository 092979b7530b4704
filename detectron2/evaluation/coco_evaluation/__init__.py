"""COCO's metrics of boxes, masks and keypoints."""

from .evaluator import COCOEvaluator as COCOEvaluator
from .max_dets import COCOevalMaxDets as COCOevalMaxDets
from .predictions import instances_to_coco_json as instances_to_coco_json

# Projects with evaluators of their own import it by this name.
from .scoring import evaluate_predictions_on_coco as _evaluate_predictions_on_coco  # noqa: F401

__all__ = [
    "COCOEvaluator",
    "COCOevalMaxDets",
    "instances_to_coco_json",
]
