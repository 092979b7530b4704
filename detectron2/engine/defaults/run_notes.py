"""The config and class names that a checkpoint carries: written by trainers, read where a model is used.

See `detectron2.checkpoint.notes` for where they stand in the file.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from detectron2.checkpoint.class_names import KINDS, MIXED_KEY
from detectron2.checkpoint.notes import plain_data, read_notes
from detectron2.config.config.default_config import get_cfg
from detectron2.config.config.node import CfgNode
from detectron2.config.config.yaml_reader import load_yaml
from detectron2.data.catalog import Metadata, MetadataCatalog
from detectron2.data.class_names import find_class_names
from detectron2.utils.user_errors import UserValueError

__all__ = ["describe_classes", "describe_run", "load_metadata", "load_run"]

logger = logging.getLogger(__name__)

# What predictions need to be understood and drawn; paths and the like stay with the data.
_METADATA_KEYS = (
    "thing_classes thing_colors thing_dataset_id_to_contiguous_id stuff_classes stuff_colors"
    " stuff_dataset_id_to_contiguous_id keypoint_names keypoint_flip_map keypoint_connection_rules"
    " ignore_label label_divisor"
).split()


def describe_run(cfg: CfgNode) -> Mapping[str, Any]:
    """Return what a checkpoint of a run should say about it, for `DetectionCheckpointer.notes`.

    The config is that of this moment. Class names are looked up when the notes are read, which is when a
    checkpoint is written: sets that learn theirs from a file have them once they were loaded. They are
    those of the first data set of `DATASETS.TRAIN` and `DATASETS.TEST` that has any.
    """
    config = {}
    try:
        config["config"] = cfg.dump()
    except TypeError as error:
        logger.warning("Checkpoints of this run will not carry its config: %s", error)
    return _RunNotes(config, cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)


def describe_classes(training_sets: Sequence[str]) -> Mapping[str, Any]:
    """Return the part of `describe_run` that is about classes, for runs without a `CfgNode`.

    Args:
        training_sets: names of the data sets that the model is trained on.
    """
    return _RunNotes({}, training_sets, ())


class _RunNotes(Mapping[str, Any]):
    def __init__(
        self, config: Mapping[str, str], training_sets: Sequence[str], test_sets: Sequence[str]
    ) -> None:
        self._config = config
        # The model learns the classes of its training data, in their order.
        self._dataset_names = (*training_sets, *test_sets)
        self._training_sets = tuple(training_sets)

    def _look_up(self) -> dict[str, Any]:
        for name in self._dataset_names:
            metadata = MetadataCatalog.get(name)
            if metadata.get("thing_classes") or metadata.get("stuff_classes"):
                known = {key: plain_data(metadata.get(key)) for key in _METADATA_KEYS}
                kept = {key: value for key, value in known.items() if value is not None}
                notes: dict[str, Any] = {**self._config, "metadata": {"name": name, **kept}}
                agreed = find_class_names(self._training_sets)
                if name in self._training_sets and any(kind in kept and kind not in agreed for kind in KINDS):
                    notes[MIXED_KEY] = True
                return notes
        return dict(self._config)

    def __getitem__(self, key: str) -> Any:
        return self._look_up()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._look_up())

    def __len__(self) -> int:
        return len(self._look_up())


def load_run(path: str, opts: Sequence[Any] = ()) -> tuple[CfgNode, Metadata]:
    """Read the config and the class names that a checkpoint carries.

    Config keys that the package does not know, those of a project, are taken as they are.

    Args:
        path: a file or address; it becomes `MODEL.WEIGHTS`.
        opts: KEY, VALUE, KEY, VALUE, ... that replace values of the config.

    Returns:
        The config, with the CPU as device where CUDA is not there, and the metadata; this is not
        registered, so that data sets of the same name keep theirs.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or carries no config.
    """
    notes = read_notes(path)
    text = notes.get("config")
    if not isinstance(text, str):
        raise UserValueError(
            f"{path} carries no config: it was written by another package or without a trainer. Give the "
            "config file that it was trained with, and the checkpoint as MODEL.WEIGHTS."
        )
    cfg = get_cfg()
    cfg.set_new_allowed(True)
    cfg.merge_from_other_cfg(CfgNode(load_yaml(io.StringIO(text), f"the config in {path}")))
    cfg.set_new_allowed(False)
    cfg.MODEL.WEIGHTS = path
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        logger.info(
            "The model was trained on '%s', and CUDA is not here: it runs on the CPU", cfg.MODEL.DEVICE
        )
        cfg.MODEL.DEVICE = "cpu"
    cfg.merge_from_list(list(opts))
    return cfg, _to_metadata(notes.get("metadata"))


def load_metadata(path: str) -> Metadata | None:
    """Read the names and colours of classes that a checkpoint carries; None where it carries no names.

    Args:
        path: a file or address.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged.
    """
    metadata = _to_metadata(read_notes(path).get("metadata"))
    return metadata if metadata.get("thing_classes") or metadata.get("stuff_classes") else None


def _to_metadata(values: Any) -> Metadata:
    values = values if isinstance(values, Mapping) else {}
    known = {key: values[key] for key in _METADATA_KEYS if key in values}
    return Metadata(name=str(values.get("name", "checkpoint")), **known)
