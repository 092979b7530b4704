"""What would stop the evaluation at the end of a run, found before the run begins."""

from __future__ import annotations

import logging
import os

from detectron2.checkpoint.class_names import describe_difference
from detectron2.config.config.node import CfgNode
from detectron2.config.model_registry import class_counts
from detectron2.data.build.class_ids import find_class_count_mismatch
from detectron2.data.catalog import MetadataCatalog
from detectron2.data.class_names import find_class_names
from detectron2.engine.evaluators import find_evaluator_type
from detectron2.utils.file_io import PathManager
from detectron2.utils.user_errors import UserValueError

logger = logging.getLogger(__name__)

_NEEDED_METADATA = {
    "sem_seg": ("stuff_classes",),
    "coco_panoptic_seg": ("panoptic_json", "panoptic_root", "stuff_classes"),
    "pascal_voc": ("dirname", "split", "year", "thing_classes"),
}


def check_test_sets(cfg: CfgNode, has_own_evaluators: bool) -> None:
    """Look whether the data sets of `DATASETS.TEST` can be evaluated with the model of a config.

    Args:
        cfg: the config, with numbers of classes filled in.
        has_own_evaluators: the trainer makes other evaluators than `build_evaluator` does. They may get along
            with anything, so that findings are logged only.

    Raises:
        ValueError: a data set has more or fewer classes than the model, or other ones than the training
            data, or lacks what its evaluator needs.
    """
    for name in cfg.DATASETS.TEST:
        missing = _find_missing_file(name)
        if missing is not None:
            logger.warning(
                "Data set %r of DATASETS.TEST cannot be evaluated, since %s does not exist. Put it there, or "
                "take the data set out of DATASETS.TEST.",
                name, missing,
            )  # fmt: skip
            continue
        mismatch = find_class_count_mismatch(cfg, name)
        if has_own_evaluators:
            if MetadataCatalog.get(name).get("evaluator_type") is None:
                logger.warning(
                    "Data set %r of DATASETS.TEST has no evaluator_type in its metadata, which the trainer's "
                    "build_evaluator may ask for.",
                    name,
                )
            if mismatch is not None:
                logger.warning("%s It stands in DATASETS.TEST.", mismatch)
            continue
        try:
            evaluator_type = find_evaluator_type(name)
        except NotImplementedError as error:
            logger.warning("%s will not be evaluated. %s", name, error)
            continue
        _check_needed_metadata(name, evaluator_type)
        if mismatch is not None:
            raise UserValueError(
                f"{mismatch} It stands in DATASETS.TEST, and its evaluation would fail after the training."
            )
    _check_names(cfg, has_own_evaluators)


def _check_names(cfg: CfgNode, has_own_evaluators: bool) -> None:
    trained = find_class_names(cfg.DATASETS.TRAIN)
    kinds = [f"{kind}_classes" for kind in class_counts(cfg)]
    for name in cfg.DATASETS.TEST if trained and cfg.TEST.CHECK_CLASS_NAMES else ():
        for kind, names in find_class_names([name]).items():
            learned = trained.get(kind, names)
            if kind not in kinds or names == learned:
                continue
            message = (
                f"Data set {name!r} of DATASETS.TEST has other {kind} than the training data:"
                f" {describe_difference(learned, names)}"
            )
            # No evaluator wants the same classes in another order.
            if not has_own_evaluators or set(names) == set(learned):
                raise UserValueError(
                    f"{message}. Register both with the same list, or set TEST.CHECK_CLASS_NAMES False to"
                    " take classes by their position."
                )
            logger.warning("%s.", message)


def _check_needed_metadata(dataset_name: str, evaluator_type: str) -> None:
    metadata = MetadataCatalog.get(dataset_name)
    for key in _NEEDED_METADATA.get(evaluator_type, ()):
        if metadata.get(key) is None:
            raise UserValueError(
                f"Data set {dataset_name!r} of DATASETS.TEST is evaluated as {evaluator_type!r}, which needs "
                f"{key!r} in its metadata. Set MetadataCatalog.get({dataset_name!r}).{key}."
            )


def _find_missing_file(dataset_name: str) -> str | None:
    """Path of an annotation file that the metadata names and that is not there."""
    metadata = MetadataCatalog.get(dataset_name)
    paths = [metadata.get(key) for key in ("json_file", "panoptic_json")]
    folder, split = metadata.get("dirname"), metadata.get("split")
    if metadata.get("evaluator_type") == "pascal_voc" and folder and split:
        paths.append(os.path.join(folder, "ImageSets", "Main", f"{split}.txt"))
    # Evaluators of others may keep something else under these keys, such as several files.
    named = (os.fspath(path) for path in paths if path and isinstance(path, (str, os.PathLike)))
    return next((path for path in named if not PathManager.exists(path)), None)
