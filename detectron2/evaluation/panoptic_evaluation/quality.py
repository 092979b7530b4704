"""Panoptic quality over folders of COCO panoptic PNGs, with two engines that give the same numbers.

`hotcoco` is the default and bit-equal to the published evaluator. `numpy` is ours: it walks runs of equal
pixels, and takes segment areas from the pixels, where the other believes the JSON file.

A label map is an (H, W) integer image; a pixel holds the id of its segment, 0 is void. Categories are data
set ids.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from detectron2.structures.panoptic_ids import ids_from_colors
from detectron2.utils.user_errors import UserValueError

logger = logging.getLogger(__name__)

PanopticEngine = Literal["hotcoco", "numpy"]
_VOID = 0
_MATCH_IOU = 0.5
_NUM_CHECKED_AREAS = 50


def read_label_map(path: str) -> np.ndarray:
    """Read a panoptic PNG as an (H, W) int32 label map."""
    with Image.open(path) as image:
        return ids_from_colors(np.asarray(image.convert("RGB")))


@dataclass
class CategoryCounts:
    """What panoptic quality needs to know about one category."""

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    @property
    def is_empty(self) -> bool:
        return self.tp + self.fp + self.fn == 0

    def quality(self) -> tuple[float, float, float]:
        """(PQ, SQ, RQ) as fractions."""
        if self.is_empty:
            return (float("nan"),) * 3
        denominator = self.tp + 0.5 * self.fp + 0.5 * self.fn
        return self.iou / denominator, self.iou / self.tp if self.tp else 0.0, self.tp / denominator


@dataclass(frozen=True)
class PanopticScores:
    """Panoptic quality: group name ("All", "Things", "Stuff") to fractions, and the counts they come from."""

    groups: dict[str, dict[str, float]]
    per_category: dict[int, CategoryCounts]


def overlap_counts(first: np.ndarray, second: np.ndarray) -> dict[tuple[int, int], int]:
    """Count the pixels of every pair of ids that two label maps of the same size have in one place."""
    if first.shape != second.shape:
        raise UserValueError(f"label maps of different size: {first.shape} and {second.shape}")
    keys = first.astype(np.int64).ravel() << 32 | second.astype(np.int64).ravel()
    if not keys.size:
        return {}
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    lengths = np.diff(starts, append=keys.size)
    pairs, run_of = np.unique(keys[starts], return_inverse=True)
    counts = np.bincount(run_of, weights=lengths).astype(np.int64)
    return {(int(pair >> 32), int(pair & 0xFFFFFFFF)): int(n) for pair, n in zip(pairs, counts)}


def match_segments(
    gt_map: np.ndarray,
    gt_segments: Sequence[Mapping[str, Any]],
    pred_map: np.ndarray,
    pred_segments: Sequence[Mapping[str, Any]],
    counts: Mapping[int, CategoryCounts],
    where: str = "",
) -> None:
    """Match the segments of one image and add the outcome to the counts of their categories.

    A predicted and a true segment of one category match when their IoU, without the pixels that are void in
    the ground truth, exceeds one half. An unmatched prediction that lies, by more than half, in void or in a
    crowd of its own category is not counted as false.

    Args:
        gt_map, pred_map: label maps of the same size.
        gt_segments, pred_segments: entries with "id", "category_id" and, in the ground truth, "iscrowd".
        counts: category id to counts, added to in place.
        where: names the image in errors.
    """
    overlaps = overlap_counts(gt_map, pred_map)
    gt_area, pred_area = Counter[int](), Counter[int]()
    for (gt_id, pred_id), pixels in overlaps.items():
        gt_area[gt_id] += pixels
        pred_area[pred_id] += pixels
    truth = {s["id"]: s for s in gt_segments}
    predicted = {s["id"]: s for s in pred_segments}
    _check_ids(truth, gt_area, f"ground truth of {where}")
    _check_ids(predicted, pred_area, f"prediction for {where}")

    matched_gt, matched_pred = set(), set()
    for (gt_id, pred_id), pixels in overlaps.items():
        if gt_id not in truth or pred_id not in predicted or truth[gt_id].get("iscrowd", 0):
            continue
        category = truth[gt_id]["category_id"]
        if category != predicted[pred_id]["category_id"]:
            continue
        union = gt_area[gt_id] + pred_area[pred_id] - pixels - overlaps.get((_VOID, pred_id), 0)
        if pixels / union > _MATCH_IOU:
            counts[category].tp += 1
            counts[category].iou += pixels / union
            matched_gt.add(gt_id)
            matched_pred.add(pred_id)

    crowds = {s["category_id"]: i for i, s in truth.items() if s.get("iscrowd", 0)}
    for gt_id, segment in truth.items():
        if gt_id not in matched_gt and not segment.get("iscrowd", 0):
            counts[segment["category_id"]].fn += 1
    for pred_id, segment in predicted.items():
        if pred_id in matched_pred:
            continue
        category = segment["category_id"]
        excused = overlaps.get((_VOID, pred_id), 0) + overlaps.get((crowds.get(category, -1), pred_id), 0)
        if excused / pred_area[pred_id] <= _MATCH_IOU:
            counts[category].fp += 1


def _check_ids(segments: Mapping[int, Any], areas: Mapping[int, int], where: str) -> None:
    unknown = areas.keys() - segments.keys() - {_VOID}
    if unknown:
        raise UserValueError(
            f"{where}: the PNG holds segment id {min(unknown)}, which its segments_info does not list"
        )
    absent = segments.keys() - areas.keys()
    if absent:
        raise UserValueError(
            f"{where}: segments_info lists segment id {min(absent)}, which the PNG does not hold"
        )


def score_panoptic(
    gt_json: str, gt_folder: str, pred_json: str, pred_folder: str, *, engine: PanopticEngine = "hotcoco"
) -> PanopticScores:
    """Compute panoptic quality of predictions on disk.

    Args:
        gt_json, pred_json: files in COCO's panoptic layout; the categories come from the ground truth.
        gt_folder, pred_folder: where their PNGs are.
        engine: "hotcoco", or "numpy". The first is left for the second, with a warning, where the ground
            truth states areas that its PNGs do not have: they would give qualities above 100.

    Raises:
        ValueError: an image without a prediction, or segment ids that PNG and JSON do not share.
    """
    with open(gt_json) as file:
        truth = json.load(file)
    with open(pred_json) as file:
        predictions = json.load(file)
    _check_every_image_is_predicted(truth, predictions)
    things = {c["id"]: bool(c.get("isthing", 1)) for c in truth["categories"]}
    _check_categories(predictions, things)
    if engine == "hotcoco":
        problem = _area_problem(truth, gt_folder)
        if problem is None:
            with _with_numbers_for_ids((gt_json, truth), (pred_json, predictions)) as paths:
                counts = _count_with_hotcoco(paths[0], gt_folder, paths[1], pred_folder)
            return summarize_counts(counts, things)
        logger.warning(
            "%s. Areas are counted from the PNGs instead; correct the JSON file to evaluate faster", problem
        )
    elif engine != "numpy":
        raise UserValueError(f"engine should be 'hotcoco' or 'numpy', got {engine!r}")
    return summarize_counts(_count_with_numpy(truth, gt_folder, predictions, pred_folder), things)


@contextlib.contextmanager
def _with_numbers_for_ids(*files: tuple[str, Mapping[str, Any]]) -> Iterator[list[str]]:
    """Give the paths of the same files with images that are numbered: text for an id is not everyone's.

    Args:
        files: path and content of each.
    """
    ids = {a["image_id"] for _, content in files for a in content["annotations"]}
    if all(isinstance(id, int) and id >= 0 for id in ids):
        yield [path for path, _ in files]
        return
    number_of = {id: number for number, id in enumerate(sorted(ids, key=str), start=1)}
    with tempfile.TemporaryDirectory(prefix="panoptic_eval") as folder:
        paths = []
        for index, (_, content) in enumerate(files):
            paths.append(os.path.join(folder, f"{index}.json"))
            annotations = [{**a, "image_id": number_of[a["image_id"]]} for a in content["annotations"]]
            images = [{"id": number} for number in number_of.values()]
            with open(paths[-1], "w") as file:
                json.dump({**content, "images": images, "annotations": annotations}, file)
        yield paths


def _count_with_hotcoco(
    gt_json: str, gt_folder: str, pred_json: str, pred_folder: str
) -> dict[int, CategoryCounts]:
    from hotcoco.panoptic import PanopticEval

    evaluator = PanopticEval(gt_json, pred_json, gt_folder=gt_folder, pred_folder=pred_folder)
    evaluator.evaluate()
    rows = evaluator.results()["per_class"]
    return {int(c): CategoryCounts(row["iou"], row["tp"], row["fp"], row["fn"]) for c, row in rows.items()}


def _count_with_numpy(
    truth: Mapping[str, Any], gt_folder: str, predictions: Mapping[str, Any], pred_folder: str
) -> dict[int, CategoryCounts]:
    counts: defaultdict[int, CategoryCounts] = defaultdict(CategoryCounts)
    prediction_of = {a["image_id"]: a for a in predictions["annotations"]}
    for annotation in truth["annotations"]:
        prediction = prediction_of[annotation["image_id"]]
        match_segments(
            read_label_map(os.path.join(gt_folder, annotation["file_name"])),
            annotation["segments_info"],
            read_label_map(os.path.join(pred_folder, prediction["file_name"])),
            prediction["segments_info"],
            counts,
            where=f"image {annotation['image_id']} ({annotation['file_name']})",
        )
    return dict(counts)


def summarize_counts(counts: Mapping[int, CategoryCounts], things: Mapping[int, bool]) -> PanopticScores:
    """Average the qualities of the categories that occur, over all, things and stuff; nan where none
    occurs."""
    groups = {
        "All": list(things),
        "Things": [c for c in things if things[c]],
        "Stuff": [c for c in things if not things[c]],
    }
    return PanopticScores({name: _average(counts, members) for name, members in groups.items()}, dict(counts))


def _average(counts: Mapping[int, CategoryCounts], categories: Iterable[int]) -> dict[str, float]:
    present = [counts[c].quality() for c in categories if c in counts and not counts[c].is_empty]
    pq, sq, rq = np.mean(present, axis=0).tolist() if present else [float("nan")] * 3
    return {"PQ": pq, "SQ": sq, "RQ": rq, "num_categories": len(present)}


def _check_every_image_is_predicted(truth: Mapping[str, Any], predictions: Mapping[str, Any]) -> None:
    missing = {a["image_id"] for a in truth["annotations"]} - {
        a["image_id"] for a in predictions["annotations"]
    }
    if missing:
        raise UserValueError(
            f"{len(missing)} of {len(truth['annotations'])} images of the ground truth have no prediction, "
            f"image {min(missing, key=str)} among them. Panoptic quality needs all: run the model over the "
            "whole data set"
        )


def _check_categories(predictions: Mapping[str, Any], things: Mapping[int, bool]) -> None:
    used = {s["category_id"] for a in predictions["annotations"] for s in a["segments_info"]}
    if used - things.keys():
        raise UserValueError(
            f"a predicted segment has category id {min(used - things.keys())}, which the ground truth lacks; "
            "check the thing and stuff id mappings of the metadata"
        )


def _area_problem(truth: Mapping[str, Any], folder: str) -> str | None:
    """Compare the areas in the JSON file with the pixels, for a sample of the images."""
    annotations = truth["annotations"]
    step = max(1, len(annotations) // _NUM_CHECKED_AREAS)
    for annotation in annotations[::step]:
        ids, pixels = np.unique(
            read_label_map(os.path.join(folder, annotation["file_name"])), return_counts=True
        )
        area = dict(zip(ids.tolist(), pixels.tolist()))
        for segment in annotation["segments_info"]:
            found = area.get(segment["id"], segment.get("area"))
            if found != segment.get("area"):
                return (
                    f"the ground truth gives segment {segment['id']} of {annotation['file_name']} an area of "
                    f"{segment.get('area')}, its PNG has {found} pixels"
                )
    return None
