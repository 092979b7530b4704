"""COCO's average precision for boxes, masks and keypoints, and the recall of proposals."""

from __future__ import annotations

import copy
import itertools
import json
import logging
import os
import pickle
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron2.config.config.node import CfgNode
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco.export import convert_to_coco_dict, convert_to_coco_json
from detectron2.data.datasets.coco.images import complete_images
from detectron2.evaluation.coco_evaluation.checks import checked_tasks, detection_limits, why_not_scorable
from detectron2.evaluation.coco_evaluation.engine import make_coco
from detectron2.evaluation.coco_evaluation.predictions import (
    instances_to_coco_json,
    tasks_in_predictions,
    to_dataset_categories,
)
from detectron2.evaluation.coco_evaluation.proposal_recall import proposal_metrics
from detectron2.evaluation.coco_evaluation.report import derive_results, explain_missing_numbers
from detectron2.evaluation.coco_evaluation.scoring import evaluate_predictions_on_coco
from detectron2.evaluation.evaluator import DatasetEvaluator
from detectron2.evaluation.fast_eval_api import COCOeval_opt
from detectron2.evaluation.tables import format_metrics_table
from detectron2.structures.boxes import BoxMode
from detectron2.structures.instances import Instances
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager, atomic_write
from detectron2.utils.user_errors import UserValueError

__all__ = ["COCOEvaluator"]

_KINDS = ("instances", "proposals")
_PREDICTIONS_FILE = "instances_predictions.pth"
_PROPOSALS_FILE = "box_proposals.pkl"


class COCOEvaluator(DatasetEvaluator):
    """Score instance predictions with COCO's metrics.

    Any registered data set will do. One without a `json_file` in its metadata is converted from its
    dictionaries. A test set without annotations is written to the result file and not scored.
    """

    _results_file = "coco_instances_results.json"

    def __init__(
        self,
        dataset_name: str,
        tasks: Iterable[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | Sequence[int] | None = None,
        use_fast_impl: bool = True,
        kpt_oks_sigmas: Sequence[float] = (),
        allow_cached_coco: bool = True,
    ) -> None:
        """
        Args:
            dataset_name: a registered data set.
            tasks: any of "bbox", "segm", "keypoints"; None takes all that the predictions allow.
            distributed: gather predictions from all processes and score them on the main one; otherwise each
                process scores its own.
            output_dir: for the predictions, as the model gave them (`instances_predictions.pth`) and in
                COCO's result format (`coco_instances_results.json`); None writes no file.
            max_dets_per_image: detections per image and category that count; COCO's own limit is 100. A
                sequence gives the limits of all three AR numbers; AP is taken at the largest.
            use_fast_impl: score with hotcoco; False with pycocotools, for the same numbers later.
            kpt_oks_sigmas: keypoint fall-offs; empty for COCO's 17 person keypoints.
            allow_cached_coco: reuse the converted annotations of an earlier run if it had the same data.
        """
        self._dataset_name, self._metadata = dataset_name, MetadataCatalog.get(dataset_name)
        self._distributed, self._output_dir = distributed, output_dir
        self._use_fast_impl, self._allow_cached_coco = use_fast_impl, allow_cached_coco
        self._cpu_device = torch.device("cpu")
        self._logger = logging.getLogger(__name__)
        if isinstance(tasks, CfgNode):
            # Callers of the first releases pass their whole config here.
            kpt_oks_sigmas = kpt_oks_sigmas or tasks.TEST.KEYPOINT_OKS_SIGMAS
            tasks = None
        self._tasks = checked_tasks(tasks)
        self._kpt_oks_sigmas = tuple(kpt_oks_sigmas)
        self._max_dets_per_image = detection_limits(max_dets_per_image)
        self._predictions: list[dict[str, Any]] = []
        if not distributed or comm.is_main_process():
            self._coco_api  # noqa: B018  # a missing annotation file should stop the run before it infers

    @cached_property
    def _coco_api(self) -> COCO:
        """The ground truth."""
        return make_coco(self._load_ground_truth())

    @property
    def _ground_truth(self) -> dict[str, Any]:
        """The data set in COCO's JSON layout."""
        dataset: dict[str, Any] = self._coco_api.dataset
        return dataset

    def _load_ground_truth(self) -> dict[str, Any]:
        json_file = getattr(self._metadata, "json_file", None)
        if json_file is None and self._output_dir is None:
            return convert_to_coco_dict(self._dataset_name)
        if json_file is None:
            json_file = os.path.join(self._output_dir or "", f"{self._dataset_name}_coco_format.json")
            self._logger.info(
                "'%s' is not in COCO's format; converting it to %s", self._dataset_name, json_file
            )
            convert_to_coco_json(self._dataset_name, json_file, allow_cached=self._allow_cached_coco)
        with PathManager.open(json_file, "r") as file:
            content: dict[str, Any] = json.load(file)
        image_root = self._metadata.get("image_root")
        if image_root is not None and any("file_name" in image for image in content["images"]):
            content["images"] = complete_images(content, os.fspath(json_file), os.fspath(image_root))
        return content

    @cached_property
    def _do_evaluation(self) -> bool:
        return "annotations" in self._ground_truth

    def reset(self) -> None:
        self._predictions = []

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Take in one batch.

        Args:
            inputs: with "image_id", one per image.
            outputs: with "instances", "proposals" or both (`Instances` in original-image pixels).
        """
        for image, output in zip(inputs, outputs):
            image_id = image["image_id"]
            found = {kind: output[kind].to(self._cpu_device) for kind in _KINDS if kind in output}
            if "instances" in found:
                found["instances"] = self.instances_to_json(found["instances"], image_id)
            if found:
                self._predictions.append({"image_id": image_id, **found})

    def instances_to_json(self, instances: Instances, img_id: int) -> list[dict[str, Any]]:
        """Turn the detections of one image into result entries; a hook for other kinds of boxes."""
        return instances_to_coco_json(instances, img_id)

    def evaluate(self, img_ids: Collection[int] | None = None) -> dict[str, Any]:
        """Score what was collected.

        Args:
            img_ids: ids of the images to score; None for the whole data set.

        Returns:
            For each task a mapping from metric to percent: AP, AP50, AP75, APs, APm, APl and AP-<category>;
            for proposals "box_proposals" with AR@100, ARs@100 ... ARl@1000. Metrics without ground truth are
            nan, with the reason in the log. Empty on processes other than the main one.
        """
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            predictions = list(itertools.chain(*comm.gather(predictions, dst=0)))
            if not comm.is_main_process():
                return {}
        if not predictions:
            self._logger.warning(
                "COCOEvaluator received no predictions: the model's outputs have neither 'instances' nor "
                "'proposals'"
            )
            return {}
        if self._output_dir:
            with atomic_write(os.path.join(self._output_dir, _PREDICTIONS_FILE)) as file:
                torch.save(predictions, file)
        self._results: OrderedDict[str, Any] = OrderedDict()
        first = predictions[0]
        if "proposals" in first:
            self._eval_box_proposals(predictions)
        if "instances" in first:
            self._eval_predictions(predictions, img_ids=img_ids)
        return copy.deepcopy(self._results)

    def _tasks_from_predictions(self, predictions: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        return tasks_in_predictions(predictions)

    def _eval_predictions(
        self, predictions: Sequence[Mapping[str, Any]], img_ids: Collection[int] | None = None
    ) -> None:
        """Write the result file and score it for every task."""
        entries = list(itertools.chain.from_iterable(p["instances"] for p in predictions))
        tasks = self._tasks or self._tasks_from_predictions(entries)
        dataset_ids = self._contiguous_to_dataset()
        if dataset_ids == {}:
            self._logger.warning("'%s' has no thing classes: instances are not scored", self._dataset_name)
            return
        if dataset_ids is not None:
            entries = to_dataset_categories(entries, dataset_ids, self._dataset_name)
        if self._output_dir:
            path = os.path.join(self._output_dir, self._results_file)
            with atomic_write(path, "w") as file:
                file.write(json.dumps(entries))
            self._logger.info("Saved %d predictions to %s", len(entries), path)
        if not self._do_evaluation:
            self._logger.info("'%s' has no annotations: predictions are not scored", self._dataset_name)
            return
        for task in tasks:
            problem = why_not_scorable(task, entries, self._ground_truth)
            if problem is None:
                self._results[task] = self._score(entries, task, img_ids)
            elif self._tasks is None:
                self._logger.warning("%s is not scored: %s", task, problem)
            else:
                raise UserValueError(f"cannot score the task '{task}': {problem}")

    def _contiguous_to_dataset(self) -> dict[int, int] | None:
        """The data set's id of each class of the model; None where they are the same."""
        key = "thing_dataset_id_to_contiguous_id"
        mapping = self._metadata.get(key)
        if mapping is None and self._metadata.get("json_file") and self._dataset_name in DatasetCatalog:
            DatasetCatalog.get(self._dataset_name)  # loading a data set may be what fills its metadata
            mapping = self._metadata.get(key)
        if mapping is not None:
            return {contiguous: id for id, contiguous in mapping.items()}
        ids = sorted(category["id"] for category in self._ground_truth.get("categories", ()))
        if ids != [*range(len(ids))]:
            self._logger.warning(
                "The metadata of '%s' has no %s: predicted classes are taken for the category ids of the "
                "ground truth, %s ... Set it if the model numbers its classes from 0.",
                self._dataset_name, key, ids[:5],
            )  # fmt: skip
        return None

    def _score(
        self, entries: Sequence[Mapping[str, Any]], task: str, img_ids: Collection[int] | None
    ) -> dict[str, float]:
        coco_eval = self._match(entries, task, img_ids) if entries else None
        names = self._metadata.get("thing_classes")
        results = self._derive_coco_results(coco_eval, task, class_names=names)
        for reason in explain_missing_numbers(results, self._ground_truth, entries, task, img_ids):
            self._logger.warning("%s: %s", task, reason)
        return results

    def _match(
        self, entries: Sequence[Mapping[str, Any]], task: str, img_ids: Collection[int] | None
    ) -> COCOeval:
        """Compare result entries with the ground truth; a hook for other ways to match."""
        engine = COCOeval_opt if self._use_fast_impl else COCOeval
        sigmas, limits = self._kpt_oks_sigmas, self._max_dets_per_image
        return evaluate_predictions_on_coco(
            self._coco_api, entries, task, sigmas, engine, img_ids=img_ids, max_dets_per_image=limits
        )

    def _derive_coco_results(
        self, coco_eval: COCOeval | None, iou_type: str, class_names: Sequence[str] | None = None
    ) -> dict[str, float]:
        """Turn tables and summary into the result mapping of one task; see `derive_results`."""
        return derive_results(coco_eval, iou_type, class_names)

    def _eval_box_proposals(self, predictions: Sequence[Mapping[str, Any]]) -> None:
        """Write the proposals, in the format that precomputed proposals are read from, and score their
        recall.
        """
        if self._output_dir:
            proposals = [p["proposals"] for p in predictions]
            data = {
                "boxes": [p.proposal_boxes.tensor.numpy() for p in proposals],
                "objectness_logits": [p.objectness_logits.numpy() for p in proposals],
                "ids": [p["image_id"] for p in predictions],
                "bbox_mode": BoxMode.XYXY_ABS.value,
            }
            with atomic_write(os.path.join(self._output_dir, _PROPOSALS_FILE)) as file:
                pickle.dump(data, file)
        if not self._do_evaluation:
            self._logger.info("'%s' has no annotations: proposals are not scored", self._dataset_name)
            return
        results = proposal_metrics(predictions, self._ground_truth)
        self._logger.info("Proposal metrics:\n%s", format_metrics_table(results))
        self._results["box_proposals"] = results
