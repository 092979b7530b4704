"""Pictures next to each other, with captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detectron2.utils.user_errors import UserValueError
from detectron2.visualization.text import text_coverage

_GAP = 8
_PAPER = 255
_INK = np.array([33, 35, 41], dtype=np.float32)
_MIN_CAPTION_SIZE = 14


def side_by_side(panels: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Put pictures next to each other on white, each below its caption.

    Args:
        panels: captions, each with an (H, W, 3) uint8 RGB picture; sizes may differ.

    Returns:
        (height, width, 3) uint8 RGB picture of all of them.
    """
    if not panels:
        raise UserValueError("side_by_side needs at least one picture, got none")
    tallest = max(picture.shape[0] for _, picture in panels)
    captions = [text_coverage(caption, max(_MIN_CAPTION_SIZE, tallest / 24)) for caption, _ in panels]
    header = captions[0].shape[0] + _GAP // 2
    widths = [picture.shape[1] for _, picture in panels]
    sheet = np.full((header + tallest, sum(widths) + _GAP * (len(panels) - 1), 3), _PAPER, dtype=np.uint8)
    left = 0
    for caption, (_, picture) in zip(captions, panels):
        height, width = picture.shape[:2]
        sheet[header : header + height, left : left + width] = picture
        _print_centred(sheet[:header, left : left + width], caption)
        left += width + _GAP
    return sheet


def stack(sheets: Sequence[np.ndarray]) -> np.ndarray:
    """Put pictures below each other on white.

    Args:
        sheets: (H, W, 3) uint8 RGB pictures; sizes may differ.
    """
    if not sheets:
        raise UserValueError("stack needs at least one picture, got none")
    height = sum(sheet.shape[0] for sheet in sheets) + _GAP * (len(sheets) - 1)
    page = np.full((height, max(sheet.shape[1] for sheet in sheets), 3), _PAPER, dtype=np.uint8)
    top = 0
    for sheet in sheets:
        page[top : top + sheet.shape[0], : sheet.shape[1]] = sheet
        top += sheet.shape[0] + _GAP
    return page


def _print_centred(strip: np.ndarray, caption: np.ndarray) -> None:
    """Print a caption, (h, w) coverage, into the middle of a strip; what does not fit is cut off."""
    caption = caption[: strip.shape[0], : strip.shape[1]]
    left = (strip.shape[1] - caption.shape[1]) // 2
    region = strip[: caption.shape[0], left : left + caption.shape[1]]
    weight = caption[..., None] / np.float32(255)
    region[...] = np.rint(region + (_INK - region) * weight)
