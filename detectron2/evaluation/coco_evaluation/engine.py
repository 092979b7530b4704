"""Precision and recall tables of COCO, and the two engines that fill them with the same numbers.

`hotcoco` is the default. `pycocotools` is the reference that tests compare it with. The summary is computed
from the tables, here.

Shapes: T IoU thresholds, R recall thresholds, K categories, A area ranges, M detection limits. Boxes are XYWH
in pixels of the original image, masks are run lengths.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import hotcoco
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

from detectron2.evaluation.coco_evaluation.object_sizes import SIZES, SMALL, annotated_area
from detectron2.structures import rle
from detectron2.utils.user_errors import UserValueError

logger = logging.getLogger(__name__)

_SIZE_OF_SUFFIX = {size.suffix: size.name for size in SIZES}

# Names of both libraries' parameter attributes that decide the result.
_PARAM_NAMES = ("imgIds", "catIds", "iouThrs", "recThrs", "maxDets", "areaRng", "areaRngLbl", "useCats")


@dataclass(frozen=True)
class CocoScores:
    """Precision and recall tables of one evaluation, and the settings they belong to.

    Attributes:
        precision: (T, R, K, A, M), -1 where there is no ground truth.
        recall: (T, K, A, M), -1 where there is no ground truth.
        scores: (T, R, K, A, M), the detection score at each recall threshold.
    """

    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    iou_thrs: np.ndarray
    cat_ids: list[int]
    area_labels: list[str]
    max_dets: list[int]
    iou_type: str

    @classmethod
    def of(cls, evaluator: Any) -> CocoScores:
        """Take the tables and settings out of a `COCOeval` that has accumulated."""
        params, tables = evaluator.params, evaluator.eval
        return cls(
            precision=np.asarray(tables["precision"]),
            recall=np.asarray(tables["recall"]),
            scores=np.asarray(tables["scores"]),
            iou_thrs=np.asarray(params.iouThrs),
            cat_ids=[int(c) for c in params.catIds],
            area_labels=list(params.areaRngLbl),
            max_dets=[int(m) for m in params.maxDets],
            iou_type=params.iouType,
        )

    def average_precision(
        self, iou: float | None = None, area: str = "all", max_dets: int | None = None
    ) -> float:
        """Mean precision over recalls and categories at one IoU (None: over all), or nan without ground
        truth.
        """
        table = self._select(self.precision, iou, area, max_dets)
        return mean_of_defined(table)

    def average_recall(
        self, iou: float | None = None, area: str = "all", max_dets: int | None = None
    ) -> float:
        """Mean recall over categories at one IoU (None: over all), or nan without ground truth."""
        return mean_of_defined(self._select(self.recall, iou, area, max_dets))

    def _select(self, table: np.ndarray, iou: float | None, area: str, max_dets: int | None) -> np.ndarray:
        limit = self.max_dets.index(max_dets) if max_dets is not None else len(self.max_dets) - 1
        if iou is not None:
            table = table[np.isclose(self.iou_thrs, iou)]
        return table[..., self.area_labels.index(area), limit]

    def metrics(self) -> dict[str, float]:
        """The published summary by name: 12 numbers for boxes and masks, 10 for keypoints, as fractions."""
        areas = _SIZE_OF_SUFFIX
        if self.iou_type == "keypoints":
            areas = {key: area for key, area in areas.items() if area != SMALL.name}
        values = {"AP": self.average_precision(), "AP50": self.average_precision(0.5)}
        values["AP75"] = self.average_precision(0.75)
        values.update({f"AP{key}": self.average_precision(area=area) for key, area in areas.items()})
        if self.iou_type == "keypoints":
            values.update(
                AR=self.average_recall(), AR50=self.average_recall(0.5), AR75=self.average_recall(0.75)
            )
        else:
            values.update({f"AR@{limit}": self.average_recall(max_dets=limit) for limit in self.max_dets})
        values.update({f"AR{key}": self.average_recall(area=area) for key, area in areas.items()})
        return values

    def stats(self) -> np.ndarray:
        """The values of `metrics` as `COCOeval.stats` holds them, -1 where there is no ground truth."""
        values: np.ndarray = np.nan_to_num(np.asarray(list(self.metrics().values())), nan=-1.0)
        return values

    def summary(self) -> str:
        """The summary as the lines that the official evaluator prints."""
        return "\n".join(self._summary_lines())

    def _summary_lines(self) -> list[str]:
        span = f"{self.iou_thrs[0]:0.2f}:{self.iou_thrs[-1]:0.2f}"
        lines = []
        for name, value in self.metrics().items():
            title, qualifier = name[:2], name[2:]
            iou = f"{int(qualifier) / 100:0.2f}" if qualifier.isdigit() else span
            limit = qualifier[1:] if qualifier.startswith("@") else self.max_dets[-1]
            kind = "Average Precision" if title == "AP" else "Average Recall"
            printed = -1.0 if np.isnan(value) else value
            lines.append(
                f" {kind:<18} ({title}) @[ IoU={iou:<9} | area={_SIZE_OF_SUFFIX.get(qualifier, 'all'):>6s} "
                f"| maxDets={limit:>3} ] = {printed:0.3f}"
            )
        return lines


def mean_of_defined(table: np.ndarray) -> float:
    """Mean of a part of a table, without the entries that have no ground truth; nan where none has."""
    defined = table[table > -1]
    return float(np.mean(defined)) if defined.size else float("nan")


@dataclass
class CocoSettings:
    """What may differ from the published protocol. None keeps the protocol's own value.

    Attributes:
        max_dets: detections per image and category that count, one or more limits, ascending.
        oks_sigmas: fall-off per keypoint, in units of the object's scale.
        img_ids: score these images only.
    """

    max_dets: Sequence[int] | None = None
    oks_sigmas: Sequence[float] | None = None
    img_ids: Sequence[int] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def complete_annotations(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data set with annotations that every engine reads alike.

    Id 0 means "unmatched" to pycocotools, which then counts a found object as missed, and a repeated id hides
    an annotation. Where either occurs, or an id is missing, annotations are numbered anew from 1. A missing
    `iscrowd` becomes 0, a missing `area` that of the mask, or of
    the box where there is no mask.
    """
    annotations = dataset["annotations"]
    ids = [a.get("id", 0) for a in annotations]
    sound = 0 not in ids and len(set(ids)) == len(ids)
    num_without_area = sum("area" not in a for a in annotations)
    if sound and not num_without_area and all("iscrowd" in a for a in annotations):
        return dict(dataset)
    if num_without_area:
        logger.warning(
            "%d annotations of the ground truth have no 'area': that of mask or box decides on their size",
            num_without_area,
        )
    numbers = ids if sound else range(1, len(ids) + 1)
    fixed = [
        {"iscrowd": 0, "area": annotated_area(a), **a, "id": number}
        for a, number in zip(annotations, numbers)
    ]
    return {**dataset, "annotations": fixed}


def apply_settings(params: Any, settings: CocoSettings) -> None:
    """Write settings into the parameter object of either engine."""
    if settings.max_dets is not None:
        params.maxDets = [int(m) for m in settings.max_dets]
    if settings.oks_sigmas is not None and params.iouType == "keypoints":
        params.kpt_oks_sigmas = np.asarray(settings.oks_sigmas, dtype=np.float64)
    if settings.img_ids is not None:
        params.imgIds = sorted(int(i) for i in settings.img_ids)
    for name, value in settings.extra.items():
        setattr(params, name, value)


def run_hotcoco_tables(
    dataset: Mapping[str, Any], detections: list[Any], iou_type: str, settings: CocoSettings
) -> hotcoco.COCOeval:
    """Evaluate and accumulate with hotcoco, and return its evaluator.

    Raises:
        ValueError: the runs of a mask are more pixels than its image has.
    """
    if iou_type == "segm":
        check_run_lengths(dataset["annotations"], detections)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        truth = hotcoco.COCO(_plain_json(dataset))
        evaluator = hotcoco.COCOeval(truth, truth.load_res(detections), iou_type)
        apply_settings(evaluator.params, settings)
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator


def check_run_lengths(
    annotations: Iterable[Mapping[str, Any]], detections: Iterable[Mapping[str, Any]]
) -> None:
    """Refuse masks that hotcoco cannot read: it takes them for such as overlap with nothing, themselves
    included.

    Raises:
        ValueError: the runs of a mask are more pixels than its image has, or no run lengths.
    """
    for side, entries in (("ground truth", annotations), ("predictions", detections)):
        for entry in entries:
            code = entry.get("segmentation")
            problem = rle.find_problem(code) if isinstance(code, Mapping) else None
            if problem is not None:
                raise UserValueError(
                    f"a mask of the {side} cannot be scored, of category {entry['category_id']} in image "
                    f"{entry['image_id']!r}: {problem}. Encode it from its pixels again"
                )


def params_to_settings(params: Params) -> CocoSettings:
    """Carry every setting of a pycocotools parameter object over to the other engine."""
    extra = {name: _as_list(getattr(params, name)) for name in _PARAM_NAMES}
    return CocoSettings(oks_sigmas=getattr(params, "kpt_oks_sigmas", None), extra=extra)


def _as_list(value: Any) -> Any:
    return np.asarray(value).tolist() if isinstance(value, (np.ndarray, list, tuple)) else value


def start_pycocotools(
    evaluator_class: type[COCOeval],
    dataset: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    iou_type: str,
) -> COCOeval:
    """Make an evaluator of pycocotools' kind, with its own copies of the result entries."""
    truth = make_coco(_with_empty_masks(dataset))
    copies = [dict(d) for d in detections]  # loadRes adds keys to what it is given
    with contextlib.redirect_stdout(io.StringIO()):
        results = truth.loadRes(copies) if copies else make_coco({**dataset, "annotations": []})
    return evaluator_class(truth, results, iou_type)


def make_coco(dataset: Mapping[str, Any]) -> COCO:
    """Build a `pycocotools` data set from a dictionary, without the lines that it prints."""
    coco = COCO()
    # loadRes reads these two keys without asking whether they are there.
    coco.dataset = {"info": {}, "licenses": [], **dataset}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _with_empty_masks(dataset: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write masks that are empty lists, which pycocotools cannot read, as run lengths without a pixel."""
    annotations = dataset.get("annotations", ())
    if not any(annotation.get("segmentation") == [] for annotation in annotations):
        return dataset
    sizes = {i["id"]: (i["height"], i["width"]) for i in dataset["images"] if "height" in i and "width" in i}
    completed = []
    for annotation in annotations:
        if annotation.get("segmentation") == [] and annotation["image_id"] in sizes:
            height, width = sizes[annotation["image_id"]]
            mask = rle.as_json(rle.from_counts([height * width], height, width))
            annotation = {**annotation, "segmentation": mask}
        completed.append(annotation)
    return {**dataset, "annotations": completed}


def _plain_json(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Only what scoring reads: other keys of published files do not always have the type that hotcoco
    expects.
    """
    image_keys, category_keys = (
        ("id", "width", "height", "file_name"),
        ("id", "name", "keypoints", "skeleton"),
    )
    return {
        "images": [{k: i[k] for k in image_keys if k in i} for i in dataset["images"]],
        "categories": [{k: c[k] for k in category_keys if k in c} for c in dataset["categories"]],
        "annotations": dataset["annotations"],
    }
