"""Boundary regions of label maps, for boundary IoU (Cheng et al., "Boundary IoU", CVPR 2021).

Shapes: H x W the image.
"""

from __future__ import annotations

import math

import numpy as np

_DILATION_RATIO = 0.02
"""Width of the boundary region over the image diagonal, as published."""


def keep_boundaries(labels: np.ndarray, elsewhere: int) -> np.ndarray:
    """Keep the labels near the outline of their region, inside it, and replace the others.

    A pixel is near when the square window of the boundary width around it holds another label or leaves the
    image.

    Args:
        labels: (H, W) integers below 2**15.
        elsewhere: the value for pixels that are not near.

    Returns:
        (H, W) int64.
    """
    import cv2

    height, width = labels.shape
    reach = max(1, round(_DILATION_RATIO * math.hypot(height, width)))
    window = np.ones((2 * reach + 1, 2 * reach + 1), dtype=np.uint8)
    values = labels.astype(np.int16)
    outside = -1
    lowest = cv2.erode(values, window, borderType=cv2.BORDER_CONSTANT, borderValue=outside)
    highest = cv2.dilate(values, window, borderType=cv2.BORDER_CONSTANT, borderValue=outside)
    near = (lowest != values) | (highest != values)
    return np.where(near, labels, elsewhere).astype(np.int64)
