"""The colours of panoptic PNGs: every pixel's colour is the id of its segment, R + 256 G + 65536 B.

Id 0 is unlabelled. H x W is the image.
"""

from __future__ import annotations

import numpy as np

from detectron2.utils.user_errors import UserValueError

NUM_IDS = 1 << 24
"""Ids lie in [0, NUM_IDS)."""


def ids_from_colors(colors: np.ndarray) -> np.ndarray:
    """Read segment ids.

    Args:
        colors: (H, W, 3) uint8 RGB.

    Returns:
        (H, W) int32.

    Raises:
        ValueError: it is no picture of three channels of 8 bits.
    """
    if colors.ndim != 3 or colors.shape[2] != 3 or colors.dtype != np.uint8:
        raise UserValueError(
            f"a panoptic PNG has shape (H, W, 3) and 8 bits a channel, got {colors.shape} {colors.dtype}"
        )
    red, green, blue = (colors[:, :, channel].astype(np.int32) for channel in range(3))
    ids: np.ndarray = red + (green << 8) + (blue << 16)
    return ids


def colors_from_ids(ids: np.ndarray) -> np.ndarray:
    """Write segment ids.

    Args:
        ids: (H, W) integers in [0, `NUM_IDS`).

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: an id does not fit into a colour.
    """
    if ids.size and not (0 <= ids.min() and ids.max() < NUM_IDS):
        raise UserValueError(
            f"segment ids of a panoptic PNG lie in [0, {NUM_IDS}), got {ids.min()} to {ids.max()}"
        )
    return np.stack([(ids >> shift) & 0xFF for shift in (0, 8, 16)], axis=-1).astype(np.uint8)


def color_of_id(segment_id: int) -> tuple[int, int, int]:
    """The (red, green, blue) of one segment."""
    return segment_id & 0xFF, segment_id >> 8 & 0xFF, segment_id >> 16 & 0xFF


def id_of_color(color: tuple[int, int, int]) -> int:
    """The segment of one (red, green, blue)."""
    red, green, blue = color
    return red + (green << 8) + (blue << 16)
