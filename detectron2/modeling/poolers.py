"""Pool fixed-size features of regions from the pyramid level that fits each region.

Shapes: N images, R boxes over all images, L feature levels, C channels. Boxes are in pixels of the padded
input image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.layers.roi_align import ROIAlign
from detectron2.layers.roi_align_rotated import ROIAlignRotated
from detectron2.layers.tracing import is_tracing
from detectron2.structures.boxes import Boxes
from detectron2.utils.user_errors import UserValueError


def assign_boxes_to_levels(
    box_lists: list[Boxes], min_level: int, max_level: int, canonical_box_size: int, canonical_level: int
) -> Tensor:
    """Choose a pyramid level for every box by its size (FPN, eq. 1): a level up for each doubling.

    Args:
        box_lists: N `Boxes` or `RotatedBoxes`.
        min_level: finest level there is; level i has stride 2**i.
        max_level: coarsest level there is.
        canonical_box_size: square root of the area of a box that belongs to `canonical_level`.
        canonical_level: the level of boxes of that size.

    Returns:
        (R,) int64 index into the levels, 0 for `min_level`.
    """
    size = torch.cat([boxes.area() for boxes in box_lists]).sqrt()
    # The small constant is part of the contract: a box of exactly the canonical size must not fall a level.
    level = torch.floor(canonical_level + torch.log2(size / canonical_box_size + 1e-8))
    return level.clamp(min=min_level, max=max_level).to(torch.int64) - min_level


def convert_boxes_to_pooler_format(box_lists: list[Boxes]) -> Tensor:
    """Put the boxes of all images into one tensor for the pooling operators.

    Args:
        box_lists: N `Boxes` or `RotatedBoxes`.

    Returns:
        (R, 5) image index and XYXY, or (R, 6) image index and XYWHA.
    """
    boxes = torch.cat([b.tensor for b in box_lists])
    # Not len(b): an exporter does not know it.
    image_index = torch.cat([b.tensor.new_full((b.tensor.shape[0], 1), i) for i, b in enumerate(box_lists)])
    return torch.cat((image_index, boxes), dim=1)


class _ROIPool(nn.Module):
    """Max pooling of the cells of a region whose corners are rounded to whole features (Fast R-CNN).

    Kept for old configs: a plain loop over regions. ROIAlign is both faster here and more accurate.
    """

    def __init__(self, output_size: tuple[int, int], spatial_scale: float) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """(N, C, H, W) features, (R, 5) regions -> (R, C, *output_size); cells outside the image are 0."""
        if not len(rois):
            return input.new_zeros(0, input.shape[1], *self.output_size) + input.sum() * 0
        # Halves round away from zero, as C does.
        scaled = rois[:, 1:] * self.spatial_scale
        corners = torch.floor(scaled.abs() + 0.5).mul(scaled.sign()).long().tolist()
        images = rois[:, 0].long().tolist()
        return torch.stack([self._pool_one(input[i], *corner) for i, corner in zip(images, corners)])

    def _pool_one(self, features: Tensor, x1: int, y1: int, x2: int, y2: int) -> Tensor:
        height, width = features.shape[1:]
        x2, y2 = max(x2, x1), max(y2, y1)  # at least one feature
        left, top = min(max(x1, 0), width), min(max(y1, 0), height)
        right, bottom = min(max(x2 + 1, left), width), min(max(y2 + 1, top), height)
        inside = features[:, top:bottom, left:right]
        pads = (left - x1, x2 + 1 - right, top - y1, y2 + 1 - bottom)
        pooled = F.adaptive_max_pool2d(F.pad(inside, pads, value=-math.inf), self.output_size)
        return pooled.masked_fill(pooled == -math.inf, 0)


_POOLERS: dict[str, Callable[[tuple[int, int], float, int], nn.Module]] = {
    # ROIAlign is the operator as first published, off by half a pixel; V2 is the corrected one.
    "ROIAlign": lambda size, scale, ratio: ROIAlign(size, scale, ratio, aligned=False),
    "ROIAlignV2": lambda size, scale, ratio: ROIAlign(size, scale, ratio, aligned=True),
    "ROIAlignRotated": ROIAlignRotated,
    "ROIPool": lambda size, scale, ratio: _ROIPool(size, scale),
}


class ROIPooler(nn.Module):
    """Pool every box from one of L feature maps, chosen by the box's size."""

    def __init__(
        self,
        output_size: int | tuple[int, int] | list[int],
        scales: list[float] | tuple[float, ...],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: int = 224,
        canonical_level: int = 4,
    ) -> None:
        """
        Args:
            output_size: side, or (height, width), of the pooled features.
            scales: 1 / stride of each level, finest first, each level twice as coarse as the one before.
            sampling_ratio: samples per pooled cell and axis of ROIAlign; 0 for as many as the cell has
                features.
            pooler_type: "ROIAlign", "ROIAlignV2", "ROIAlignRotated" or "ROIPool".
            canonical_box_size: square root of the area of a box that belongs to `canonical_level`; 224 is the
                side of an ImageNet image.
            canonical_level: level i has stride 2**i.
        """
        super().__init__()
        if pooler_type not in _POOLERS:
            raise UserValueError(
                f"Unknown pooler type {pooler_type!r}, expected one of {', '.join(_POOLERS)}"
            )
        size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        if len(size) != 2:
            raise UserValueError(f"output_size must be a number or (height, width), got {output_size}")
        if canonical_box_size <= 0:
            raise UserValueError(f"canonical_box_size must be positive, got {canonical_box_size}")
        self.output_size = size
        self.min_level, self.max_level = _level_range(scales)
        self.canonical_box_size = canonical_box_size
        self.canonical_level = canonical_level
        self.level_poolers = nn.ModuleList(
            _POOLERS[pooler_type](size, scale, sampling_ratio) for scale in scales
        )

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """Pool the boxes of all images.

        Args:
            x: L feature maps (N, C, Hi, Wi), in the order of `scales`.
            box_lists: N `Boxes` (`RotatedBoxes` for ROIAlignRotated).

        Returns:
            (R, C, *output_size), image by image.
        """
        if len(x) != len(self.level_poolers):
            raise UserValueError(f"Expected {len(self.level_poolers)} feature maps, got {len(x)}")
        if not is_tracing() and len(box_lists) != len(x[0]):
            raise UserValueError(f"Got boxes of {len(box_lists)} images with features of {len(x[0])}")
        if not box_lists:
            return x[0].new_zeros(0, x[0].shape[1], *self.output_size)
        rois = convert_boxes_to_pooler_format(box_lists)
        if len(x) == 1:
            pooled_rois: Tensor = self.level_poolers[0](x[0], rois)
            return pooled_rois
        level = assign_boxes_to_levels(
            box_lists, self.min_level, self.max_level, self.canonical_box_size, self.canonical_level
        )
        # Pool level by level, then bring the results back into the order of the boxes.
        rows_per_level = [(level == i).nonzero().flatten() for i in range(len(x))]
        pooled = [pooler(f, rois[rows]) for pooler, f, rows in zip(self.level_poolers, x, rows_per_level)]
        return torch.cat(pooled)[torch.cat(rows_per_level).argsort()]


def _level_range(scales: list[float] | tuple[float, ...]) -> tuple[int, int]:
    """First and last level, where level i has scale 2**-i."""
    levels = [-math.log2(scale) for scale in scales]
    first = round(levels[0])
    if any(not math.isclose(level, first + i) for i, level in enumerate(levels)) or first < 0:
        raise UserValueError(
            "A pooler's feature levels must have strides that are powers of two and double from level to "
            f"level; got strides {[1 / scale for scale in scales]}"
        )
    return first, first + len(levels) - 1
