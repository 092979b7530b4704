"""Panoptic quality on data sets in COCO's panoptic format."""

from .evaluator import COCOPanopticEvaluator as COCOPanopticEvaluator

__all__ = [
    "COCOPanopticEvaluator",
]
