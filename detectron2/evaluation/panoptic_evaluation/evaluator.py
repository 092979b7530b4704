"""Panoptic quality on data sets in COCO's panoptic format."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from detectron2.data.catalog import MetadataCatalog
from detectron2.evaluation.evaluator import DatasetEvaluator
from detectron2.evaluation.panoptic_evaluation.quality import (
    PanopticEngine,
    PanopticScores,
    score_panoptic,
)
from detectron2.evaluation.tables import format_category_table, format_rows
from detectron2.structures.panoptic_ids import colors_from_ids
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager, atomic_write
from detectron2.utils.user_errors import UserValueError

logger = logging.getLogger(__name__)

_GROUP_SUFFIXES = {"All": "", "Things": "_th", "Stuff": "_st"}


class COCOPanopticEvaluator(DatasetEvaluator):
    """Score panoptic predictions with PQ, SQ and RQ.

    Predictions are kept as PNG bytes and written, on evaluation, in COCO's panoptic format:
    `predictions.json` and one PNG per image.
    """

    _engine: PanopticEngine = "hotcoco"

    def __init__(self, dataset_name: str, output_dir: str | None = None) -> None:
        """
        Args:
            dataset_name: a registered data set with `panoptic_json` and `panoptic_root` in its metadata.
            output_dir: where the predictions are kept; None uses a folder that is removed afterwards.
        """
        self._metadata = MetadataCatalog.get(dataset_name)
        missing = [key for key in ("panoptic_json", "panoptic_root") if self._metadata.get(key) is None]
        if missing:
            raise UserValueError(
                f"'{dataset_name}' has no panoptic ground truth: its metadata lacks {' and '.join(missing)}. "
                "Register it with register_panoptic() or register_coco_panoptic()"
            )
        self._thing_dataset_ids = _inverse(self._metadata.get("thing_dataset_id_to_contiguous_id"))
        self._stuff_dataset_ids = _inverse(self._metadata.get("stuff_dataset_id_to_contiguous_id"))
        self._output_dir = output_dir
        self._predictions: list[dict[str, Any]] = []
        if output_dir is not None:
            PathManager.mkdirs(output_dir)

    def reset(self) -> None:
        self._predictions = []

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Take in one batch.

        Args:
            inputs: with "image_id" and "file_name", one per image.
            outputs: with "panoptic_seg": an (H, W) label map and its segments ("id", "category_id" and
                "isthing"), or None in place of the segments for a map of `category * label_divisor +
                instance`, -1 for void.
        """
        for image, output in zip(inputs, outputs):
            panoptic_img, segments_info = output["panoptic_seg"]
            label_map = np.asarray(panoptic_img.cpu())
            if segments_info is None:
                label_map, segments_info = self._decode_labels(label_map)
            if self._metadata.get("thing_dataset_id_to_contiguous_id") == {}:
                label_map, segments_info = _without_things(label_map, segments_info)
            stem = os.path.splitext(os.path.basename(image["file_name"]))[0]
            self._predictions.append(
                {
                    "image_id": image["image_id"],
                    "file_name": f"{stem}.png",
                    "png_string": _encode_png(colors_from_ids(label_map)),
                    "segments_info": [self._convert_category_id(segment) for segment in segments_info],
                }
            )

    def _decode_labels(self, label_map: np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Find the segments of a `category * label_divisor + instance` map. Ids are shifted up: 0 is void."""
        divisor = self._metadata.label_divisor
        things = set(self._metadata.thing_dataset_id_to_contiguous_id.values())
        labels = [int(label) for label in np.unique(label_map) if label != -1]
        segments = [
            {"id": label + 1, "category_id": label // divisor, "isthing": label // divisor in things}
            for label in labels
        ]
        return label_map + 1, segments

    def _convert_category_id(self, segment: Mapping[str, Any]) -> dict[str, Any]:
        """Give a segment the category id of the data set. Without "isthing" it has that already."""
        converted = {key: _plain(value) for key, value in segment.items() if key != "isthing"}
        if "isthing" in segment:
            kind = "thing" if segment["isthing"] else "stuff"
            mapping = self._thing_dataset_ids if segment["isthing"] else self._stuff_dataset_ids
            if converted["category_id"] not in mapping:
                raise UserValueError(
                    f"a predicted {kind} segment has class {converted['category_id']}, but the metadata of "
                    f"'{self._metadata.name}' maps the {kind} classes {sorted(mapping)}. Does the model's "
                    "number of classes belong to this data set?"
                )
            converted["category_id"] = mapping[converted["category_id"]]
        return converted

    def evaluate(self) -> dict[str, Any] | None:
        """Write the predictions and score them.

        Returns:
            On the main process {"panoptic_seg": PQ, SQ, RQ, and the same with _th for things and _st for
            stuff}, in percent; nan for a group without any segment.
        """
        comm.synchronize()
        predictions = list(itertools.chain(*comm.gather(self._predictions, dst=0)))
        if not comm.is_main_process():
            return None
        with self._prediction_folder() as folder:
            predictions_json = os.path.join(folder, "predictions.json")
            self._write_predictions(predictions, folder, predictions_json)
            scores = score_panoptic(
                PathManager.get_local_path(self._metadata.panoptic_json),
                PathManager.get_local_path(self._metadata.panoptic_root),
                predictions_json,
                folder,
                engine=self._engine,
            )
        results: OrderedDict[str, float] = OrderedDict()
        for group, suffix in _GROUP_SUFFIXES.items():
            for metric in ("PQ", "SQ", "RQ"):
                results[metric + suffix] = 100 * scores.groups[group][metric]
        self._log(scores)
        return OrderedDict(panoptic_seg=results)

    @contextlib.contextmanager
    def _prediction_folder(self) -> Iterator[str]:
        if self._output_dir is not None:
            yield self._output_dir
            return
        with tempfile.TemporaryDirectory(prefix="panoptic_eval") as folder:
            yield folder

    def _write_predictions(
        self, predictions: Sequence[Mapping[str, Any]], folder: str, json_path: str
    ) -> None:
        logger.info("Writing %d panoptic predictions to %s", len(predictions), folder)
        annotations = []
        for prediction in predictions:
            with open(os.path.join(folder, prediction["file_name"]), "wb") as file:
                file.write(prediction["png_string"])
            annotations.append({k: v for k, v in prediction.items() if k != "png_string"})
        with PathManager.open(self._metadata.panoptic_json, "r") as file:
            truth = json.load(file)
        content = {"images": truth["images"], "categories": truth["categories"], "annotations": annotations}
        with atomic_write(json_path, "w") as file:
            file.write(json.dumps(content))

    def _log(self, scores: PanopticScores) -> None:
        rows = [
            [group, *(f"{100 * values[m]:.3f}" for m in ("PQ", "SQ", "RQ")), str(values["num_categories"])]
            for group, values in scores.groups.items()
        ]
        table = format_rows(["", "PQ", "SQ", "RQ", "#categories"], rows)
        logger.info("Panoptic Evaluation Results:\n%s", table)
        for group, values in scores.groups.items():
            if not values["num_categories"]:
                logger.warning(
                    "PQ of %s is nan: no such segment in the ground truth or the predictions", group.lower()
                )
        names = self._category_names()
        per_category = {
            names[c]: 100 * n.quality()[0] for c, n in scores.per_category.items() if not n.is_empty
        }
        if len(per_category) > 1:
            logger.info("Per-category PQ:\n%s", format_category_table(per_category, "PQ"))

    def _category_names(self) -> dict[int, str]:
        with PathManager.open(self._metadata.panoptic_json, "r") as file:
            return {c["id"]: c.get("name", str(c["id"])) for c in json.load(file)["categories"]}


def _inverse(mapping: Mapping[int, int] | None) -> dict[int, int]:
    return {contiguous: dataset_id for dataset_id, contiguous in (mapping or {}).items()}


def _without_things(
    label_map: np.ndarray, segments: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, list[Mapping[str, Any]]]:
    """The prediction on data without things: what a model takes for some is void."""
    things = [segment["id"] for segment in segments if segment.get("isthing")]
    kept = [segment for segment in segments if not segment.get("isthing")]
    return np.where(np.isin(label_map, things), 0, label_map), kept


def _encode_png(rgb: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    """NumPy and torch scalars as what `json` can write."""
    return value.item() if hasattr(value, "item") else value
