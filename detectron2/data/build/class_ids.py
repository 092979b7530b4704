"""Whether a model's numbers of classes fit its training data, found before a GPU stops at a bad index."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.config.model_registry import class_counts
from detectron2.utils.user_errors import UserValueError

from ..catalog import MetadataCatalog
from ..detection_utils.sem_seg import has_sem_seg

logger = logging.getLogger(__name__)


def check_class_ids(cfg: Any, dataset_dicts: list[dict[str, Any]]) -> None:
    """Compare the class ids of training data with the numbers of classes that the model declares.

    Args:
        cfg: a config. A model that declares no `class_count_keys` is not checked.
        dataset_dicts: with `dataset_name`.

    Raises:
        ValueError: an id is too large; the message names data set, id and key.
    """
    counts = class_counts(cfg)
    if "thing" in counts:
        _check_things(*counts["thing"], dataset_dicts)
    if "stuff" in counts:
        _check_stuff(*counts["stuff"], dataset_dicts)


def _check_things(key: str, num_classes: int, dataset_dicts: list[dict[str, Any]]) -> None:
    num_used = 0
    for record in dataset_dicts:
        for annotation in record.get("annotations", ()):
            id = annotation["category_id"]
            if not 0 <= id < num_classes:
                names = MetadataCatalog.get(record["dataset_name"]).get("thing_classes") or []
                raise UserValueError(
                    f"Data set {record['dataset_name']!r} has category_id {id} (image "
                    f"{record.get('file_name')!r}), "
                    f"but {key} is {num_classes}, so ids must lie in [0, {num_classes - 1}]. "
                    + (f"Set {key} to {len(names)}, the number of its thing_classes." if names else "")
                )
            num_used = max(num_used, id + 1)
    for name in sorted({record["dataset_name"] for record in dataset_dicts}):
        num_named = len(MetadataCatalog.get(name).get("thing_classes") or ())
        if num_used and num_named and num_named < num_classes:
            logger.warning(
                "%s is %d, but data set %s has only %d thing_classes; the other outputs are never trained.",
                key, num_classes, name, num_named,
            )  # fmt: skip


def _check_stuff(key: str, num_classes: int, dataset_dicts: list[dict[str, Any]]) -> None:
    checked = set()
    for record in dataset_dicts:
        name = record["dataset_name"]
        if name in checked or not has_sem_seg(record):
            continue
        checked.add(name)
        classes: list[str] = MetadataCatalog.get(name).get("stuff_classes") or []
        if len(classes) > num_classes:
            raise UserValueError(
                f"Data set {name!r} has {len(classes)} stuff_classes, so its maps have labels up to "
                f"{len(classes) - 1} ({classes[-1]!r}), but {key} is {num_classes}. Set {key} to "
                f"{len(classes)}."
            )
