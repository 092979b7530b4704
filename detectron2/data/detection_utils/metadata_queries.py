"""What the metadata of several data sets, used together, has to say."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from detectron2.utils.user_errors import UserValueError

from ..catalog import MetadataCatalog

logger = logging.getLogger(__name__)


def _as_list(dataset_names: str | Sequence[str]) -> list[str]:
    return [dataset_names] if isinstance(dataset_names, str) else list(dataset_names)


def check_metadata_consistency(key: str, dataset_names: str | Sequence[str]) -> None:
    """Check that data sets which are used together agree.

    Args:
        key: name of a metadata entry.
        dataset_names: the data sets.

    Raises:
        ValueError: a data set lacks the entry, or two differ in it.
    """
    names = _as_list(dataset_names)
    if not names:
        return
    first = getattr(MetadataCatalog.get(names[0]), key)
    for name in names[1:]:
        other = getattr(MetadataCatalog.get(name), key)
        if other != first:
            raise UserValueError(
                f"Data sets that are used together must have the same {key!r}: {names[0]!r} has "
                f"{_summary(first)}, {name!r} has {_summary(other)}."
            )


def _summary(value: object) -> str:
    text = repr(value)
    return text if len(text) < 200 else f"{text[:190]} ..."


def create_keypoint_hflip_indices(dataset_names: str | Sequence[str]) -> list[int]:
    """Which keypoint takes the place of each when an image is mirrored.

    Args:
        dataset_names: data sets whose metadata has `keypoint_names` and `keypoint_flip_map` (pairs of
            names).

    Returns:
        One index per keypoint.
    """
    names = _as_list(dataset_names)
    check_metadata_consistency("keypoint_names", names)
    check_metadata_consistency("keypoint_flip_map", names)
    metadata = MetadataCatalog.get(names[0])
    partner = {a: b for pair in metadata.keypoint_flip_map for a, b in (pair, pair[::-1])}
    position = {name: i for i, name in enumerate(metadata.keypoint_names)}
    return [position[partner.get(name, name)] for name in metadata.keypoint_names]


def get_fed_loss_cls_weights(
    dataset_names: str | Sequence[str], freq_weight_power: float = 1.0
) -> torch.Tensor:
    """Weight of each class when the federated loss draws negative classes.

    Args:
        dataset_names: data sets whose metadata has `class_image_count`, a list of {"id", "image_count"}
            with ids that start at 1.
        freq_weight_power: power of the image count.

    Returns:
        (number of classes,) float tensor.
    """
    names = _as_list(dataset_names)
    check_metadata_consistency("class_image_count", names)
    counts = MetadataCatalog.get(names[0]).class_image_count
    per_class = np.array([entry["image_count"] for entry in sorted(counts, key=lambda entry: entry["id"])])
    return torch.tensor(per_class, dtype=torch.float32) ** freq_weight_power
