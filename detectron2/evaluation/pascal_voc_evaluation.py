"""Average precision of PASCAL VOC.

Shapes: D detections of one class over all images, best first; G objects of it in one image. Boxes are XYXY in
VOC's own pixels: counted from 1, with the last one included.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from xml.etree import ElementTree

import numpy as np

from detectron2.data.catalog import MetadataCatalog
from detectron2.evaluation.evaluator import DatasetEvaluator
from detectron2.evaluation.tables import format_category_table, format_metrics_table
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.user_errors import UserValueError

logger = logging.getLogger(__name__)

__all__ = ["PascalVOCDetectionEvaluator", "parse_rec", "voc_ap", "voc_eval"]

_THRESHOLDS = range(50, 100, 5)  # percent

Detection = tuple[str, float, float, float, float, float]
"""(image id, score, xmin, ymin, xmax, ymax)"""


class PascalVOCDetectionEvaluator(DatasetEvaluator):
    """Score boxes on a data set of `register_pascal_voc`.

    AP50 is the official number; AP is the mean over the overlaps 0.5, 0.55 ... 0.95, as in COCO, but with
    VOC's own rules for matching. The metadata's year 2007 takes the 11-point form.
    """

    def __init__(self, dataset_name: str) -> None:
        """
        Args:
            dataset_name: a registered data set, with `dirname`, `split`, `year` and `thing_classes`.
        """
        self._dataset_name = dataset_name
        metadata = MetadataCatalog.get(dataset_name)
        self._annotation_path = os.path.join(metadata.dirname, "Annotations", "{}.xml")
        self._image_list = os.path.join(metadata.dirname, "ImageSets", "Main", f"{metadata.split}.txt")
        self._class_names = list(metadata.thing_classes)
        self._use_11_points = metadata.year == 2007
        self.reset()

    def reset(self) -> None:
        self._detections: dict[int, list[Detection]] = defaultdict(list)

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Take in one batch.

        Args:
            inputs: with "image_id", one per image.
            outputs: with "instances" in original-image pixels.
        """
        for image, output in zip(inputs, outputs):
            instances = output["instances"].to("cpu")
            boxes = instances.pred_boxes.tensor.numpy().astype(np.float64)  # (R, 4)
            boxes[:, :2] += 1
            # Result files of VOC hold that many digits; so did the scores that were published.
            rows = zip(
                instances.pred_classes.tolist(),
                instances.scores.double().numpy().round(3).tolist(),
                boxes.round(1).tolist(),
            )
            for category, score, box in rows:
                self._detections[category].append((str(image["image_id"]), score, *box))

    def evaluate(self) -> dict[str, Any]:
        """Score what was collected.

        Returns:
            "bbox" with AP, AP50 and AP75 in percent, means over the classes that have objects. Empty on
            processes other than the main one.
        """
        gathered = comm.gather(dict(self._detections), dst=0)
        if not comm.is_main_process():
            return {}
        precisions = np.full((len(self._class_names), len(_THRESHOLDS)), np.nan)
        for number, name in enumerate(self._class_names):
            found = list(itertools.chain.from_iterable(part.get(number, ()) for part in gathered))
            matches = _match_class(found, self._annotation_path, self._image_list, name)
            for column, percent in enumerate(_THRESHOLDS):
                precisions[number, column] = 100 * matches.score(percent / 100, self._use_11_points)[2]
        return OrderedDict(bbox=self._summarize(precisions))

    def _summarize(self, precisions: np.ndarray) -> dict[str, float]:
        """(classes, thresholds) AP -> results, and tables in the log."""
        has_objects = ~np.isnan(precisions[:, 0])
        means = precisions[has_objects].mean(axis=0) if has_objects.any() else precisions[0]
        results = {"AP": float(means.mean())}
        results.update({f"AP{percent}": float(means[_THRESHOLDS.index(percent)]) for percent in (50, 75)})
        logger.info("Evaluation results for bbox:\n%s", format_metrics_table(results))
        per_class = dict(zip(self._class_names, precisions[:, 0].tolist()))
        logger.info("Per-category bbox AP50:\n%s", format_category_table(per_class, "AP50"))
        if not has_objects.all():
            absent = [name for name, value in per_class.items() if np.isnan(value)]
            logger.warning(
                "Classes without an object in the ground truth are left out: %s", ", ".join(absent)
            )
        return results


@cache
def parse_rec(filename: str) -> list[dict[str, Any]]:
    """Read the objects of one annotation file.

    Returns:
        A dict per object: "name", "pose", "truncated", "difficult" and "bbox", XYXY in VOC's pixels.
    """
    with PathManager.open(filename, "rb") as file:
        root = ElementTree.parse(file).getroot()
    return [
        {
            "name": (element.findtext("name") or "").strip(),
            "pose": element.findtext("pose", "Unspecified"),
            "truncated": int(element.findtext("truncated", "0")),
            "difficult": int(element.findtext("difficult", "0")),
            "bbox": [
                float(element.findtext(f"bndbox/{side}", "nan")) for side in ("xmin", "ymin", "xmax", "ymax")
            ],
        }
        for element in root.iter("object")
    ]


def voc_ap(rec: np.ndarray, prec: np.ndarray, use_07_metric: bool = False) -> float:
    """Average the best precision that is left at each recall.

    Args:
        rec: (D,) ascending recall.
        prec: (D,) precision.
        use_07_metric: average over the 11 recalls 0, 0.1 ... 1 instead of taking the area.
    """
    # best[i]: the highest precision from detection i on; 0 where a recall is never reached.
    best = np.append(np.maximum.accumulate(np.asarray(prec)[::-1])[::-1], 0.0)
    if use_07_metric:
        # arange and not linspace: its rounding decides whether a recall of 0.3 reaches the fourth point.
        return float(best[np.searchsorted(rec, np.arange(0.0, 1.1, 0.1))].mean())
    return float((np.diff(rec, prepend=0.0) * best[:-1]).sum())


def voc_eval(
    detpath: str,
    annopath: str,
    imagesetfile: str,
    classname: str,
    ovthresh: float = 0.5,
    use_07_metric: bool = False,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Score a result file of one class.

    Args:
        detpath: path of the result file, with {} for the class; lines "image score xmin ymin xmax ymax".
        annopath: path of an annotation file, with {} for the image.
        imagesetfile: file with one image id per line.
        classname: the class.
        ovthresh: overlap that a detection has to exceed.
        use_07_metric: see `voc_ap`.

    Returns:
        (D,) recall, (D,) precision, and the average precision, which is nan where the class has no object.
    """
    with PathManager.open(detpath.format(classname), "r") as file:
        rows = [line.split() for line in file if line.strip()]
    detections: Any = [(image_id, *map(float, numbers)) for image_id, *numbers in rows]
    return _match_class(detections, annopath, imagesetfile, classname).score(ovthresh, use_07_metric)


@dataclass(frozen=True)
class _Matches:
    """The object that every detection of one class overlaps most.

    Attributes:
        overlaps: (D,) IoU with it, -1 where the image has no object of the class.
        objects: (D,) its number over all images.
        is_difficult: (D,) whether it counts neither as found nor as missed.
        num_objects: those that are not difficult.
    """

    overlaps: np.ndarray
    objects: np.ndarray
    is_difficult: np.ndarray
    num_objects: int

    def score(self, thresh: float, use_07_metric: bool) -> tuple[np.ndarray, np.ndarray, float]:
        """Recall and precision (D,) after each detection, and average precision."""
        is_hit = self.overlaps > thresh
        counts = ~(is_hit & self.is_difficult)
        is_first = np.zeros_like(is_hit)  # a second detection of an object is a mistake
        hits = np.flatnonzero(is_hit)
        is_first[hits[np.unique(self.objects[hits], return_index=True)[1]]] = True
        num_right = np.cumsum(is_first & counts)
        num_counted = np.cumsum(counts)
        precision = num_right / np.maximum(num_counted, 1)
        if not self.num_objects:
            return np.full(len(is_hit), np.nan), precision, float("nan")
        recall = num_right / self.num_objects
        return recall, precision, voc_ap(recall, precision, use_07_metric)


def _match_class(
    detections: Sequence[Detection], annotation_path: str, image_list: str, class_name: str
) -> _Matches:
    with PathManager.open(image_list, "r") as file:
        image_ids = [line.split()[0] for line in file if line.strip()]
    boxes_of: dict[str, np.ndarray] = {}
    first_of: dict[str, int] = {}
    difficult: list[bool] = []
    for image_id in image_ids:
        objects = [o for o in parse_rec(annotation_path.format(image_id)) if o["name"] == class_name]
        boxes_of[image_id] = np.array([o["bbox"] for o in objects]).reshape(-1, 4)
        first_of[image_id] = len(difficult)
        difficult.extend(bool(o["difficult"]) for o in objects)
    unknown = {d[0] for d in detections} - boxes_of.keys()
    if unknown:
        raise UserValueError(
            f"There are detections in image {min(unknown)!r}, which is not in {image_list!r}. Are they from "
            "another split?"
        )
    ordered = sorted(detections, key=lambda detection: -detection[1])
    overlaps = np.full(len(ordered), -1.0)
    numbers = np.full(len(ordered), -1)
    for place, (image_id, _, *box) in enumerate(ordered):
        if len(boxes_of[image_id]):
            candidates = _overlaps(np.array(box), boxes_of[image_id])
            overlaps[place] = candidates.max()
            numbers[place] = first_of[image_id] + candidates.argmax()
    is_difficult = np.array([*difficult, False], dtype=np.bool_)  # the last is that of number -1
    return _Matches(overlaps, numbers, is_difficult[numbers], len(difficult) - sum(difficult))


def _overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU of one box (4,) with others (G, 4), on pixels with both ends included."""
    shared = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]) + 1  # (G, 2)
    intersection = shared.clip(min=0).prod(axis=1)
    sizes = boxes[:, 2:] - boxes[:, :2] + 1
    iou: np.ndarray = intersection / ((box[2:] - box[:2] + 1).prod() + sizes.prod(axis=1) - intersection)
    return iou
