"""Whether a model's numbers of classes fit its data, found before a run begins; and numbers taken from the
data."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.config.model_registry import class_counts
from detectron2.utils.user_errors import UserValueError

from ..catalog import MetadataCatalog
from ..detection_utils.sem_seg import has_sem_seg

logger = logging.getLogger(__name__)

AUTO = -1
"""As a number of classes: as many as the data has."""

_NAMES_OF = {"thing": "thing_classes", "stuff": "stuff_classes"}

# Keys that the built-in heads read, whatever model they are part of.
_KEYS_OF_HEADS = {
    "MODEL.ROI_HEADS.NUM_CLASSES": "thing",
    "MODEL.RETINANET.NUM_CLASSES": "thing",
    "MODEL.FCOS.NUM_CLASSES": "thing",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": "stuff",
}


def fill_class_counts(cfg: Any) -> Any:
    """Replace numbers of classes that are -1 by those of the data.

    Args:
        cfg: a config; not changed.

    Returns:
        A config with the number of `thing_classes` or `stuff_classes` of the first data set of
        `DATASETS.TRAIN`, or else `DATASETS.TEST`, that has any; `cfg` itself where nothing is -1. A data set
        of stuff alone counts as one thing class, since a head needs an output.

    Raises:
        ValueError: a number that the model needs is -1, and no data set has names of its classes.
    """
    needed = {key: kind for kind, (key, _) in class_counts(cfg).items()}
    counts = {
        key: _count_classes(cfg, kind, key, is_needed=key in needed)
        for key, kind in {**_KEYS_OF_HEADS, **needed}.items()
        if _look_up(cfg, key) == AUTO
    }
    if all(count is None for count in counts.values()):
        return cfg
    filled = cfg.clone()
    filled.defrost()
    for key, count in counts.items():
        if count is not None:
            filled.merge_from_list([key, count])
            logger.info("%s is %d, the number of classes in the data", key, count)
    if cfg.is_frozen():
        filled.freeze()
    return filled


def _look_up(cfg: Any, key: str) -> Any:
    node = cfg
    for part in key.split("."):
        if part not in node:
            return None
        node = node[part]
    return node


def _count_classes(cfg: Any, kind: str, key: str, is_needed: bool) -> int | None:
    datasets = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    for name in datasets:
        classes = MetadataCatalog.get(name).get(_NAMES_OF[kind])
        if classes is not None:
            return max(len(classes), 1)
    if not is_needed:
        return None
    asked = f"none of {', '.join(datasets)}" if datasets else "no data set in DATASETS.TRAIN or TEST"
    raise UserValueError(
        f"{key} is {AUTO}, which stands for the number of {_NAMES_OF[kind]} of the data, but {asked} has any "
        f"in its metadata. Set {key} to the number, or MetadataCatalog.get(NAME).{_NAMES_OF[kind]}."
    )


def check_class_ids(cfg: Any, dataset_dicts: list[dict[str, Any]]) -> None:
    """Compare training data with the numbers of classes that the model declares.

    Args:
        cfg: a config. A model that declares no `class_count_keys` is not checked.
        dataset_dicts: with `dataset_name`.

    Raises:
        ValueError: an id is too large, or the metadata names more or fewer classes than the model has; the
            message names data set, id and key.
    """
    counts = class_counts(cfg)
    if "thing" in counts:
        _check_things(*counts["thing"], dataset_dicts)
    if "stuff" in counts:
        with_maps = {record["dataset_name"] for record in dataset_dicts if has_sem_seg(record)}
        for name in sorted(with_maps):
            _check_names("stuff", *counts["stuff"], name)


def find_class_count_mismatch(cfg: Any, dataset_name: str) -> str | None:
    """Say which number of classes of the model is not that of a data set; None where all fit or nothing is
    known."""
    for kind, (key, num_classes) in class_counts(cfg).items():
        try:
            _check_names(kind, key, num_classes, dataset_name)
        except UserValueError as error:
            return str(error)
    return None


def _check_things(key: str, num_classes: int, dataset_dicts: list[dict[str, Any]]) -> None:
    annotated = set()
    for record in dataset_dicts:
        for annotation in record.get("annotations", ()):
            annotated.add(record["dataset_name"])
            id = annotation["category_id"]
            if not 0 <= id < num_classes:
                names = MetadataCatalog.get(record["dataset_name"]).get("thing_classes") or []
                raise UserValueError(
                    f"Data set {record['dataset_name']!r} has category_id {id} (image "
                    f"{record.get('file_name')!r}), "
                    f"but {key} is {num_classes}, so ids must lie in [0, {num_classes - 1}]. "
                    + (f"Set {key} to {len(names)}, the number of its thing_classes." if names else "")
                )
    for name in sorted(annotated):
        _check_names("thing", key, num_classes, name)


def _check_names(kind: str, key: str, num_classes: int, dataset_name: str) -> None:
    """Raise where the metadata names another number of classes; one that names none is not checked."""
    classes: list[str] = MetadataCatalog.get(dataset_name).get(_NAMES_OF[kind]) or []
    if not classes or len(classes) == num_classes:
        return
    raise UserValueError(
        f"Data set {dataset_name!r} has {len(classes)} {_NAMES_OF[kind]} (the last is {classes[-1]!r}), but "
        f"{key} is {num_classes}. Set {key} to {len(classes)}, or to {AUTO} to take the number from the data."
    )
