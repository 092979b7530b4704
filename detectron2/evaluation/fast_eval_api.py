"""A drop-in `COCOeval` that is served by the fast engine."""

from __future__ import annotations

import contextlib
import copy
import datetime
import io
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron2.evaluation.coco_evaluation.engine import (
    complete_annotations,
    params_to_settings,
    run_hotcoco_tables,
)
from detectron2.utils.offer import offer
from detectron2.utils.user_errors import UserValueError

# For others' code; here, because `compat_names.py` does not load this module.
offer(__name__, lazily={"_C": "detectron2._C"})


class COCOeval_opt(COCOeval):  # type: ignore[misc]  # pycocotools has no types
    """`pycocotools.cocoeval.COCOeval` with the same arguments, parameters and numbers, computed by hotcoco.

    `evaluate()` fills `evalImgs`, `accumulate()` fills `eval`; `summarize()` is inherited. `ious` stays
    empty.
    """

    _results: list[Any] | None = None
    _detections: Any
    _matches: Any

    @classmethod
    def of_results(cls, cocoGt: COCO, results: Sequence[Mapping[str, Any]], iouType: str) -> COCOeval_opt:
        """Make an evaluator from the entries of a result file, which then need not go through `loadRes`."""
        evaluator = cls(cocoGt, None, iouType)
        evaluator._results = list(results)
        return evaluator

    def evaluate(self) -> None:
        """Match detections and ground truth with the current `params`."""
        params = self.params
        params.imgIds = list(np.unique(params.imgIds))
        if params.useCats:
            params.catIds = list(np.unique(params.catIds))
        params.maxDets = sorted(params.maxDets)
        _ = params.maxDets[-1]  # the original reads it too: without a limit nothing can be scored
        entries: list[Any] | None = self._results
        if entries is None:
            detections = self.cocoDt.dataset["annotations"]
            _read_fields(self.cocoGt.dataset["annotations"], detections, params.iouType)
            entries = _result_entries(detections, params.iouType)
        self._evaluator = run_hotcoco_tables(
            complete_annotations(self.cocoGt.dataset), entries, params.iouType, params_to_settings(params)
        )
        self._paramsEval = copy.deepcopy(params)
        self._matches = None

    # Both are objects of Python for every image and category, or detection: made when somebody looks.

    @property
    def evalImgs(self) -> Any:  # names of the base class
        """Matches by category, area range and image."""
        if self._matches is None:
            self._matches = _in_official_order(self._evaluator.evalImgs, self._paramsEval)
        return self._matches

    @evalImgs.setter
    def evalImgs(self, value: Any) -> None:
        self._matches = value

    @property
    def cocoDt(self) -> Any:
        """The detections as a `COCO` object."""
        if self._detections is None and self._results is not None:
            with contextlib.redirect_stdout(io.StringIO()):
                self._detections = self.cocoGt.loadRes([dict(entry) for entry in self._results])
        return self._detections

    @cocoDt.setter
    def cocoDt(self, value: Any) -> None:
        self._detections = value

    def accumulate(self, p: Any = None) -> None:
        """Tabulate precision and recall over the matches."""
        if not hasattr(self, "_evaluator"):
            raise RuntimeError("call evaluate() before accumulate()")
        if p is not None and p is not self.params:
            raise UserValueError(
                "COCOeval_opt accumulates with the params of evaluate(); set them before that"
            )
        tables = self._evaluator.eval
        assert tables is not None
        self.eval = {
            "params": self.params,
            "counts": list(tables["counts"]),
            "date": datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
            **{name: np.asarray(tables[name]) for name in ("precision", "recall", "scores")},
        }


def _in_official_order(matches: list[Any], params: Any) -> list[dict[str, Any] | None]:
    """List the matches by category, area range and image, with None where there is nothing to match."""
    found = {(m["category_id"], *map(float, m["aRng"]), m["image_id"]): m for m in matches if m is not None}
    categories = params.catIds if params.useCats else [-1]
    return [
        found.get((int(category), *map(float, area), int(image)))
        for category in categories
        for area in params.areaRng
        for image in params.imgIds
    ]


_SHAPE_KEYS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}


def _read_fields(
    objects: Sequence[Mapping[str, Any]], detections: Sequence[Mapping[str, Any]], iou_type: str
) -> None:
    """Read what the original reads, for the same KeyError where a file lacks it."""
    shape = _SHAPE_KEYS[iou_type]
    extra = ("bbox",) if iou_type == "keypoints" else ()
    for entries, keys in ((objects, ("area", "iscrowd", shape, *extra)), (detections, ("score", shape))):
        read = itemgetter(*keys)
        for entry in entries:
            read(entry)


def _result_entries(detections: Sequence[Mapping[str, Any]], iou_type: str) -> list[dict[str, Any]]:
    """Detections as `loadRes` took them in: what it derived (a box from a mask) must not change the areas.

    A mask that came with a box counts with the area of the box there, and so it does here.
    """
    kept = {"image_id", "category_id", "score", _SHAPE_KEYS[iou_type]}
    if iou_type == "keypoints" or (iou_type == "segm" and all(map(_has_area_of_box, detections))):
        kept.add("bbox")
    return [{k: v for k, v in entry.items() if k in kept} for entry in detections]


def _has_area_of_box(entry: Mapping[str, Any]) -> bool:
    _, _, width, height = entry["bbox"]
    return bool(entry["area"] == width * height)
