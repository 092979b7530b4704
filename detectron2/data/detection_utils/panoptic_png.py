"""Reading panoptic PNGs, and turning their segments into labels. H x W is the image; id 0 is unlabelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from detectron2.structures.panoptic_ids import color_of_id, ids_from_colors
from detectron2.utils.user_errors import UserValueError

from .image_io import read_image

IGNORE_LABEL = 255
LABEL_OF_THINGS = 0


def read_panoptic_ids(file_name: str) -> np.ndarray:
    """(H, W) int32 segment ids of a panoptic PNG."""
    return ids_from_colors(read_image(file_name, "RGB"))


def read_segment_masks(file_name: str, segment_ids: Sequence[int]) -> list[np.ndarray]:
    """(H, W) uint8 masks of some segments of a panoptic PNG."""
    ids = read_panoptic_ids(file_name)
    return [(ids == segment_id).astype(np.uint8) for segment_id in segment_ids]


def draw_labels(
    ids: np.ndarray, labels: Mapping[int, int], file_name: str, ignore_label: int = IGNORE_LABEL
) -> np.ndarray:
    """Replace segment ids by labels.

    Args:
        ids: (H, W) segment ids.
        labels: segment id -> label in [0, 255]. Id 0 gets `ignore_label`.
        file_name: the PNG, for the error.
        ignore_label: label of what is unlabelled.

    Returns:
        (H, W) uint8.

    Raises:
        ValueError: a pixel has an id that `labels` lacks.
    """
    flat = ids.reshape(-1)
    if flat.size == 0:
        return np.zeros(ids.shape, dtype=np.uint8)
    # Segments are connected, so runs of equal ids are few and much faster to look up than pixels.
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    run_ids = flat[starts]
    known = np.array(sorted({0, *labels}))
    label_of_known = np.array(
        [ignore_label if id == 0 and 0 not in labels else labels[id] for id in known.tolist()]
    )
    place = np.searchsorted(known, run_ids).clip(max=len(known) - 1)
    is_unknown = known[place] != run_ids
    if is_unknown.any():
        _raise_unknown_id(ids, int(run_ids[is_unknown][0]), labels, file_name)
    run_lengths = np.diff(starts, append=flat.size)
    return np.repeat(label_of_known[place].astype(np.uint8), run_lengths).reshape(ids.shape)


def _raise_unknown_id(ids: np.ndarray, unknown: int, labels: Mapping[int, int], file_name: str) -> None:
    shown = ", ".join(str(id) for id in sorted(labels)[:8]) or "none"
    raise UserValueError(
        f"Panoptic PNG {str(file_name)!r} has {int((ids == unknown).sum())} pixels of segment id {unknown} "
        f"(colour {color_of_id(unknown)}), which the 'segments_info' of its JSON does not list; it lists "
        f"{len(labels)} ids: {shown} ... Do PNG and JSON belong together, and was the PNG resized or "
        "compressed with loss?"
    )
