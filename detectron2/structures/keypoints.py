"""Keypoints, and the heatmaps that a network predicts for them.

Shapes: N instances, K keypoints each, R boxes, S x S cells of a heatmap. Keypoints are (x, y, visibility) in
pixels of one image, x and y continuous: the centre of pixel (0, 0) is (0.5, 0.5). Boxes are XYXY there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from detectron2.layers.tracing import script_in_traces
from detectron2.utils.user_errors import UserTypeError, UserValueError

from .rows import TensorRows


class Keypoints(TensorRows):
    """The keypoints of the instances of one image.

    Visibility is 0 for not labelled, 1 for labelled but hidden, 2 for visible.

    Attributes:
        tensor: (N, K, 3) float32.
    """

    def __init__(self, keypoints: Tensor | np.ndarray | list[list[float]]) -> None:
        """
        Args:
            keypoints: (N, K, 3); only a tensor's device is kept.
        """
        device = keypoints.device if isinstance(keypoints, Tensor) else torch.device("cpu")
        tensor = torch.as_tensor(keypoints, dtype=torch.float32, device=device)
        if tensor.ndim != 3 or tensor.shape[2] != 3:
            raise UserValueError(f"expected keypoints of shape (N, K, 3), got {tuple(tensor.shape)}")
        super().__init__(tensor)

    def to(self, *args: Any, **kwargs: Any) -> Keypoints:
        """Return the keypoints moved by torch's `to`."""
        return Keypoints(self.tensor.to(*args, **kwargs))

    def to_heatmap(self, boxes: Tensor, heatmap_size: int) -> tuple[Tensor, Tensor]:
        """Find the cell of each keypoint in the heatmap of its instance's box.

        Args:
            boxes: (N, 4).
            heatmap_size: S.

        Returns:
            (N, K) int64 cell, row * S + column; 0 where there is none.
            (N, K) int64, 1 where the keypoint is labelled and lies in the box.
        """
        return _keypoints_to_heatmap(self.tensor, boxes, heatmap_size)

    def __repr__(self) -> str:
        return f"Keypoints(num_instances={len(self)}, num_keypoints={self.tensor.shape[1]})"

    @staticmethod
    def cat(keypoints_list: Sequence[Keypoints]) -> Keypoints:
        """Concatenate the instances of a list or tuple with at least one entry."""
        if not keypoints_list:
            raise UserValueError("there are no Keypoints to concatenate")
        for entry in keypoints_list:
            if not isinstance(entry, Keypoints):
                raise UserTypeError(f"expected only Keypoints to concatenate, got {type(entry).__name__}")
        return Keypoints(torch.cat([entry.tensor for entry in keypoints_list]))


def _keypoints_to_heatmap(keypoints: Tensor, rois: Tensor, heatmap_size: int) -> tuple[Tensor, Tensor]:
    """(R, K, 3) keypoints, (R, 4) boxes -> (R, K) int64 cells and (R, K) int64 validity; see `to_heatmap`."""
    location, visibility = keypoints[..., :2], keypoints[..., 2]
    start, end = rois[:, None, :2], rois[:, None, 2:]  # (R, 1, 2)
    cell = ((location - start) * (heatmap_size / (end - start))).floor()
    # The right and bottom edges belong to the last cell.
    cell = cell.where(location != end, heatmap_size - 1)
    is_valid = ((cell >= 0) & (cell < heatmap_size)).all(dim=2) & (visibility > 0)
    column, row = cell.where(is_valid[..., None], 0).long().unbind(dim=2)
    return row * heatmap_size + column, is_valid.long()


@torch.no_grad()
def heatmaps_to_keypoints(maps: Tensor, rois: Tensor) -> Tensor:
    """Locate each keypoint at the peak of its heatmap, resized to the box with bicubic interpolation.

    Args:
        maps: (R, K, S, S) logits.
        rois: (R, 4).

    Returns:
        (R, K, 4): x and y of the centre of the peak's pixel in the image, the logit there, and its
        probability in a softmax over the S x S cells.
    """
    start, size = rois[:, :2], (rois[:, 2:] - rois[:, :2]).clamp(min=1)
    pixels_per_box = size.ceil()
    # Boxes are not whole pixels wide.
    return _locate_peaks(maps, start, pixels_per_box.long(), size / pixels_per_box)


@script_in_traces
def _locate_peaks(maps: Tensor, start: Tensor, pixels_per_box: Tensor, pixel_size: Tensor) -> Tensor:
    """See `heatmaps_to_keypoints`.

    Args:
        maps: (R, K, S, S) logits.
        start: (R, 2) left and top edge of each box.
        pixels_per_box: (R, 2) int64 width and height to resize the map to.
        pixel_size: (R, 2) width and height of such a pixel in the image.
    """
    keypoints = maps.new_zeros([maps.shape[0], maps.shape[1], 4])
    sizes: list[list[int]] = pixels_per_box.tolist()
    for index, (width, height) in enumerate(sizes):
        logits = maps[index]
        resized = F.interpolate(logits[None], size=[height, width], mode="bicubic", align_corners=False)[0]
        peak, position = resized.flatten(1).max(dim=1)  # (K,)
        pixel = torch.stack([position % width, position // width], dim=1)  # (K, 2)
        keypoints[index, :, :2] = start[index] + (pixel + 0.5) * pixel_size[index]
        keypoints[index, :, 2] = peak
        # The probability of the peak, in a softmax that the resized map is no part of.
        keypoints[index, :, 3] = 1 / (logits - peak[:, None, None]).exp().sum(dim=[1, 2])
    return keypoints
