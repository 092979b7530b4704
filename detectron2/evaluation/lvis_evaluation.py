"""Average precision of LVIS, where an image is judged only for the categories it is labelled for."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from detectron2.evaluation.coco_evaluation.engine import check_run_lengths, complete_annotations
from detectron2.evaluation.coco_evaluation.evaluator import COCOEvaluator
from detectron2.evaluation.tables import format_metrics_table
from detectron2.utils.user_errors import UserValueError

__all__ = ["LVISEvaluator"]

_TASKS = ("bbox", "segm")
_PRECISIONS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
_IMAGE_KEYS = ("id", "width", "height", "neg_category_ids", "not_exhaustive_category_ids")


class LVISEvaluator(COCOEvaluator):
    """Score boxes and masks on a data set of `register_lvis_instances`.

    APr, APc and APf are the means over rare, common and frequent categories, as the annotation file marks
    them.
    """

    _results_file = "lvis_instances_results.json"

    def __init__(
        self,
        dataset_name: str,
        tasks: Iterable[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
    ) -> None:
        """
        Args:
            dataset_name: a registered data set with a `json_file` in LVIS's format.
            tasks: "bbox", "segm" or both; None takes all that the predictions allow.
            distributed: gather predictions from all processes and score them on the main one.
            output_dir: for the predictions; None writes no file.
            max_dets_per_image: detections per image that count, over all categories; None for LVIS's 300.
        """
        self._max_dets = 300 if max_dets_per_image is None else max_dets_per_image
        super().__init__(dataset_name, tasks, distributed, output_dir, max_dets_per_image=self._max_dets)
        if self._tasks is not None and not set(self._tasks) <= set(_TASKS):
            raise UserValueError(f"tasks should be among {_TASKS}, got {self._tasks}")

    def _tasks_from_predictions(self, predictions: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        return tuple(task for task in super()._tasks_from_predictions(predictions) if task in _TASKS)

    def _contiguous_to_dataset(self) -> dict[int, int]:
        ids = sorted(category["id"] for category in self._ground_truth["categories"])
        return super()._contiguous_to_dataset() or dict(enumerate(ids))

    def _score(
        self, entries: Sequence[Mapping[str, Any]], task: str, img_ids: Collection[int] | None
    ) -> dict[str, float]:
        names = [*_PRECISIONS, *(f"AR{size}@{self._max_dets}" for size in ("", "s", "m", "l"))]
        if not entries:
            self._logger.warning("%s: every metric is nan: no detections", task)
            return dict.fromkeys(names, float("nan"))
        values = score_lvis(self._ground_truth, entries, task, self._max_dets, img_ids)
        # -1 marks what has no ground truth.
        results = {name: 100 * values[name] if values[name] >= 0 else float("nan") for name in names}
        self._logger.info("Evaluation results for %s:\n%s", task, format_metrics_table(results))
        return results


def score_lvis(
    ground_truth: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
    task: str,
    max_dets: int,
    img_ids: Collection[int] | None,
) -> Mapping[str, float]:
    """The 13 numbers of LVIS as fractions, by name; -1 stands for those without ground truth.

    Args:
        ground_truth: a data set in LVIS's layout.
        entries: detections in COCO's layout.
        task: "bbox" or "segm".
        max_dets: detections per image that count.
        img_ids: the images that count; all when None.
    """
    import hotcoco

    left_out = "bbox" if task == "segm" else None  # its area must not stand in for that of the mask
    detections = [{key: value for key, value in e.items() if key != left_out} for e in entries]
    complete = complete_annotations(ground_truth)
    if task == "segm":
        check_run_lengths(complete["annotations"], detections)
    truth = hotcoco.LVIS(
        {
            "images": [{k: i[k] for k in _IMAGE_KEYS if k in i} for i in complete["images"]],
            "categories": [
                {k: c[k] for k in ("id", "name", "frequency") if k in c} for c in complete["categories"]
            ],
            "annotations": complete["annotations"],
        }
    )
    evaluator = hotcoco.LVISEval(truth, hotcoco.LVISResults(truth, detections, max_dets), task)
    evaluator.params.maxDets = [max_dets]
    if img_ids is not None:
        evaluator.params.imgIds = sorted(int(i) for i in img_ids)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="hotcoco: max_dets differ")
        evaluator.run()
    # Its names say 300 whatever the limit is.
    return {name.replace("@300", f"@{max_dets}"): value for name, value in evaluator.get_results().items()}
