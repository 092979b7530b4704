"""From a ground truth and result entries to a `COCOeval` that has evaluated, accumulated and summarized."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron2.evaluation.coco_evaluation.engine import (
    CocoScores,
    CocoSettings,
    apply_settings,
    complete_annotations,
    start_pycocotools,
)
from detectron2.evaluation.coco_evaluation.report import METRICS
from detectron2.evaluation.fast_eval_api import COCOeval_opt
from detectron2.utils.user_errors import UserValueError

logger = logging.getLogger(__name__)

_NUM_PERSON_KEYPOINTS = 17


def evaluate_predictions_on_coco(
    coco_gt: COCO,
    coco_results: Sequence[Mapping[str, Any]],
    iou_type: str,
    kpt_oks_sigmas: Sequence[float] | None = None,
    cocoeval_fn: type[COCOeval] | bool = COCOeval_opt,
    img_ids: Collection[int] | None = None,
    max_dets_per_image: Sequence[int] | None = None,
    *,
    use_fast_impl: bool | None = None,
) -> COCOeval:
    """Match detections to a COCO ground truth; tabulate precision and recall, and log the summary.

    Args:
        coco_gt: the ground truth.
        coco_results: entries in COCO's result layout. For "segm" a "bbox" in them is ignored: pycocotools
            would take the area of the box for the area of the mask.
        iou_type: "bbox", "segm" or "keypoints".
        kpt_oks_sigmas: keypoint fall-offs; empty for COCO's 17 person keypoints.
        cocoeval_fn: what matches: `COCOeval_opt`, `COCOeval`, or a class like them.
        img_ids: ids of the images to score; None for all.
        max_dets_per_image: ascending limits of detections per image and category; AP is taken at the last.
            None for COCO's own. Not for keypoints.
        use_fast_impl: the older form of `cocoeval_fn`, which may be of that form too: True for
            `COCOeval_opt`, False for `COCOeval`.

    Returns:
        The evaluator, with the tables in `eval`, its settings in `params`, and the 12 numbers of the summary
        (10 for keypoints) in `stats`, -1 where there is no ground truth.
    """
    if iou_type not in METRICS:
        raise UserValueError(f"iou_type should be one of {sorted(METRICS)}, got {iou_type!r}")
    if iou_type == "keypoints" and coco_results:
        _check_keypoint_sigmas(coco_results[0], kpt_oks_sigmas)
    if use_fast_impl is not None:
        cocoeval_fn = use_fast_impl
    if iou_type == "segm":
        coco_results = [{key: value for key, value in d.items() if key != "bbox"} for d in coco_results]
    if cocoeval_fn is COCOeval_opt or cocoeval_fn is True:
        evaluator = COCOeval_opt.of_results(coco_gt, coco_results, iou_type)
    else:
        evaluator_class = COCOeval if isinstance(cocoeval_fn, bool) else cocoeval_fn
        complete = complete_annotations(coco_gt.dataset)
        evaluator = start_pycocotools(evaluator_class, complete, coco_results, iou_type)
    settings = CocoSettings(
        max_dets=None if iou_type == "keypoints" else max_dets_per_image,
        oks_sigmas=kpt_oks_sigmas or None,
        img_ids=sorted(img_ids) if img_ids is not None else None,
    )
    apply_settings(evaluator.params, settings)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        evaluator.evaluate()
        evaluator.accumulate()
    # Not its own summarize(), which knows no limit but 100.
    scores = CocoScores.of(evaluator)
    evaluator.stats = scores.stats()
    logger.info("COCO summary for %s:\n%s", iou_type, scores.summary())
    return evaluator


def _check_keypoint_sigmas(entry: Mapping[str, Any], sigmas: Sequence[float] | None) -> None:
    num_keypoints = len(entry["keypoints"]) // 3
    num_sigmas = len(sigmas) if sigmas else _NUM_PERSON_KEYPOINTS
    if num_keypoints != num_sigmas:
        raise UserValueError(
            f"The model predicts {num_keypoints} keypoints, but there are {num_sigmas} OKS sigmas "
            "(COCO's own 17 where none are given). Set TEST.KEYPOINT_OKS_SIGMAS to one value per keypoint"
        )
