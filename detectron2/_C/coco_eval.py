"""Names of the C++ scorer of COCO, which is not part of this package."""

from __future__ import annotations

from detectron2.utils.offer import left_out, left_out_class

_WHY = "COCO is scored by hotcoco, which has no such steps"
_INSTEAD = "Use COCOeval_opt of detectron2.evaluation.fast_eval_api"

InstanceAnnotation = left_out_class("InstanceAnnotation", _WHY, _INSTEAD)
ImageEvaluation = left_out_class("ImageEvaluation", _WHY, _INSTEAD)
COCOevalEvaluateImages = left_out("COCOevalEvaluateImages", _WHY, _INSTEAD)
COCOevalAccumulate = left_out("COCOevalAccumulate", _WHY, _INSTEAD)
