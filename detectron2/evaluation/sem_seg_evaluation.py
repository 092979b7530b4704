"""Intersection over union of semantic segmentation.

Shapes: H x W the image, C classes. A label map is (H, W) of contiguous class ids.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike
from PIL import Image

from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils.sem_seg import read_sem_seg
from detectron2.evaluation.boundaries import keep_boundaries
from detectron2.evaluation.coco_evaluation.predictions import encode_masks
from detectron2.evaluation.evaluator import DatasetEvaluator
from detectron2.evaluation.tables import format_category_table, format_metrics_table
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager, atomic_write
from detectron2.utils.user_errors import UserValueError

_CV2_IMPORTED = importlib.util.find_spec("cv2") is not None
_RESULTS_FILE = "sem_seg_predictions.json"
_DEFAULT_IGNORE_LABEL = 255
_GROUND_TRUTH_KEYS = ("file_name", "sem_seg_file_name", "pan_seg_file_name", "sem_seg_labels")


def load_image_into_numpy_array(filename: str, dtype: DTypeLike | None = None) -> np.ndarray:
    """Read an image file, as stored, into an array of the given type."""
    with PathManager.open(filename, "rb") as file, Image.open(file) as image:
        return np.array(image, dtype=dtype)


class SemSegEvaluator(DatasetEvaluator):
    """Score semantic segmentation with mean IoU, its frequency-weighted form, and pixel accuracy.

    Ground truth comes from the files that the data set names in `sem_seg_file_name`; in a panoptic data set
    where such a file is not there, it is derived from the panoptic PNG.
    """

    def __init__(
        self,
        dataset_name: str,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        sem_seg_loading_fn: Callable[..., np.ndarray] = load_image_into_numpy_array,
        num_classes: int | None = None,
        ignore_label: int | None = None,
    ) -> None:
        """
        Args:
            dataset_name: a registered data set with `stuff_classes` in its metadata.
            distributed: add up the processes' counts and score them on the main one.
            output_dir: for the predictions as run lengths (`sem_seg_predictions.json`); None writes no file.
            sem_seg_loading_fn: reads a ground-truth file; called with the path and `dtype`.
            num_classes: no longer used; the metadata says it.
            ignore_label: label of pixels that do not count; by default that of the metadata, and 255 where
                this has none.
        """
        self._logger = logging.getLogger(__name__)
        if num_classes is not None:
            self._logger.warning(
                "SemSegEvaluator no longer reads num_classes: the metadata of the data set decides"
            )
        self._dataset_name = dataset_name
        self._distributed = distributed
        self._output_dir = output_dir
        self._cpu_device = torch.device("cpu")
        self.sem_seg_loading_fn = sem_seg_loading_fn
        self._metadata = MetadataCatalog.get(dataset_name)
        self._class_names = list(self._metadata.stuff_classes)
        self._num_classes = len(self._class_names)
        named = self._metadata.get("ignore_label", _DEFAULT_IGNORE_LABEL)
        self._ignore_label = named if ignore_label is None else ignore_label
        mapping = self._metadata.get("stuff_dataset_id_to_contiguous_id")
        self._contiguous_id_to_dataset_id = {v: k for k, v in mapping.items()} if mapping else None
        self._records = {
            record["file_name"]: {key: record[key] for key in _GROUND_TRUTH_KEYS if key in record}
            for record in DatasetCatalog.get(dataset_name)
        }
        # Read at every image: subclasses change it.
        self.input_file_to_gt_file: dict[str, str] = {
            file_name: record["sem_seg_file_name"]
            for file_name, record in self._records.items()
            if "sem_seg_file_name" in record
        }
        self._compute_boundary_iou = _CV2_IMPORTED
        if not _CV2_IMPORTED:
            self._logger.info("OpenCV is not installed: boundary IoU is left out of the results")
        self.reset()

    def reset(self) -> None:
        shape = (self._num_classes + 1, self._num_classes + 1)
        self._conf_matrix = np.zeros(shape, dtype=np.int64)
        self._b_conf_matrix = np.zeros(shape, dtype=np.int64)
        self._predictions: list[dict[str, Any]] = []

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Take in one batch.

        Args:
            inputs: with "file_name", one per image.
            outputs: with "sem_seg", (C, H, W) scores in the frame of the original image.
        """
        for image, output in zip(inputs, outputs):
            pred = output["sem_seg"].argmax(dim=0).to(self._cpu_device).numpy().astype(np.int64)
            gt = self._ground_truth(image["file_name"])
            if gt.shape != pred.shape:
                raise UserValueError(
                    f"{image['file_name']}: the ground truth is {gt.shape}, the prediction {pred.shape} "
                    "(height, width); predictions are scored in the frame of the original image"
                )
            self._count(pred, gt)
            if self._output_dir:
                self._predictions.extend(self.encode_json_sem_seg(pred, image["file_name"]))

    def _ground_truth(self, file_name: str) -> np.ndarray:
        """(H, W) label map of an image; ignored pixels hold the number of classes."""
        gt = self._load_ground_truth(file_name)
        gt = np.where(gt == self._ignore_label, self._num_classes, gt)
        if gt.size and not 0 <= gt.min() <= gt.max() <= self._num_classes:
            raise UserValueError(
                f"the ground truth of {file_name} has class ids {gt.min()} to {gt.max()}; expected "
                f"0 to {self._num_classes - 1}, or {self._ignore_label} for ignored pixels"
            )
        return gt

    def _load_ground_truth(self, file_name: str) -> np.ndarray:
        if file_name in self.input_file_to_gt_file:
            return self.sem_seg_loading_fn(self.input_file_to_gt_file[file_name], dtype=np.int64)
        derived = read_sem_seg(self._records[file_name])
        if derived is None:
            raise UserValueError(
                f"{file_name} of '{self._dataset_name}' has no semantic ground truth: its "
                "dictionary names neither a 'sem_seg_file_name' nor a panoptic PNG"
            )
        return derived.astype(np.int64)

    def _count(self, pred: np.ndarray, gt: np.ndarray) -> None:
        """Add one image to the confusion counts, indexed [prediction, ground truth]; the last index is
        "none".
        """
        self._conf_matrix += _confusion(pred, gt, self._num_classes)
        if self._compute_boundary_iou:
            counted = gt != self._num_classes
            pred_edge = keep_boundaries(pred, self._num_classes)[counted]
            gt_edge = keep_boundaries(gt, self._num_classes)[counted]
            self._b_conf_matrix += _confusion(pred_edge, gt_edge, self._num_classes)

    def evaluate(self) -> dict[str, Any] | None:
        """Score what was collected.

        Returns:
            On the main process {"sem_seg": mIoU, fwIoU, mACC, pACC, IoU-<class>, ACC-<class>, and with OpenCV
            BoundaryIoU-<class> and min(IoU, B-Iou)-<class>}, in percent; nan for classes without ground
            truth.
        """
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            matrices = comm.all_gather((self._conf_matrix, self._b_conf_matrix))
            predictions = list(itertools.chain(*comm.gather(predictions, dst=0)))
            if not comm.is_main_process():
                return None
            self._conf_matrix = sum(conf for conf, _ in matrices)
            self._b_conf_matrix = sum(conf for _, conf in matrices)
        if self._output_dir:
            with atomic_write(os.path.join(self._output_dir, _RESULTS_FILE), "w") as file:
                file.write(json.dumps(predictions))
        results = self._results()
        self._log(results)
        return OrderedDict(sem_seg=results)

    def _results(self) -> OrderedDict[str, float]:
        conf = self._conf_matrix.astype(np.float64)
        true_positive = conf.diagonal()[:-1]
        gt_pixels = conf[:-1, :-1].sum(axis=0)  # (C,), over counted pixels
        pred_pixels = conf[:-1, :-1].sum(axis=1)  # (C,)
        accuracy = _ratio(true_positive, gt_pixels)
        iou = np.where(gt_pixels > 0, _ratio(true_positive, gt_pixels + pred_pixels - true_positive), np.nan)
        frequency = _ratio(gt_pixels, np.full_like(gt_pixels, gt_pixels.sum()))
        boundary_iou = self._boundary_iou()

        results = OrderedDict(mIoU=_mean(iou), fwIoU=_sum(iou * frequency))
        for index, name in enumerate(self._class_names):
            results[f"IoU-{name}"] = iou[index]
            if boundary_iou is not None:
                results[f"BoundaryIoU-{name}"] = boundary_iou[index]
                results[f"min(IoU, B-Iou)-{name}"] = min(iou[index], boundary_iou[index])
        results["mACC"] = _mean(accuracy)
        results["pACC"] = _sum(true_positive) / gt_pixels.sum() if gt_pixels.sum() else np.nan
        results.update({f"ACC-{name}": accuracy[index] for index, name in enumerate(self._class_names)})
        return OrderedDict((name, 100 * float(value)) for name, value in results.items())

    def _boundary_iou(self) -> np.ndarray | None:
        if not self._compute_boundary_iou:
            return None
        conf = self._b_conf_matrix.astype(np.float64)
        shared = conf.diagonal()[:-1]
        return _ratio(shared, conf.sum(axis=0)[:-1] + conf.sum(axis=1)[:-1] - shared)

    def _log(self, results: Mapping[str, float]) -> None:
        main = {name: value for name, value in results.items() if "-" not in name}
        self._logger.info("Semantic segmentation results:\n%s", format_metrics_table(main))
        per_class = {name: results[f"IoU-{name}"] for name in self._class_names}
        self._logger.info("Per-class IoU:\n%s", format_category_table(per_class, "IoU"))
        absent = [name for name, value in per_class.items() if np.isnan(value)]
        if absent:
            self._logger.info("IoU is nan for %d classes without a pixel in the ground truth", len(absent))

    def encode_json_sem_seg(self, sem_seg: np.ndarray, input_file_name: str) -> list[dict[str, Any]]:
        """Turn a label map into COCO's stuff result format.

        Args:
            sem_seg: (H, W) label map.
            input_file_name: the image's file.

        Returns:
            One entry per class in the map, with the category ids of the data set.
        """
        labels = np.unique(sem_seg)
        dataset_ids = [self._dataset_id(int(label)) for label in labels]
        masks = torch.as_tensor(sem_seg[None] == labels[:, None, None])  # (labels, H, W)
        return [
            {"file_name": input_file_name, "category_id": dataset_id, "segmentation": rle}
            for dataset_id, rle in zip(dataset_ids, encode_masks(masks, sem_seg.shape))
        ]

    def _dataset_id(self, label: int) -> int:
        if self._contiguous_id_to_dataset_id is None:
            return label
        if label not in self._contiguous_id_to_dataset_id:
            raise UserValueError(
                f"the model predicted class {label}, which the metadata of '{self._dataset_name}' does not "
                "map; MODEL.SEM_SEG_HEAD.NUM_CLASSES should be the number of its stuff_classes"
            )
        value: int = self._contiguous_id_to_dataset_id[label]
        return value


def _confusion(pred: np.ndarray, gt: np.ndarray, num_classes: int) -> np.ndarray:
    side = num_classes + 1
    return np.bincount(side * pred.ravel() + gt.ravel(), minlength=side * side).reshape(side, side)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Quotient where the divisor is positive, nan elsewhere."""
    value: np.ndarray = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return value


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _sum(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.sum()) if defined.size else float("nan")
