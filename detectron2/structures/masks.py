"""Instance masks: as polygons, as bitmaps of the image, and as bitmaps of each instance's box.

Shapes: N masks, H x W pixels of the image, S x S pixels of a mask inside a box. A polygon is a float64 array
[x0, y0, x1, y1, ...] in pixels of the image, where the corner of pixel (0, 0) is (0, 0); boxes are XYXY in
the same frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.layers.roi_align import roi_align
from detectron2.utils.user_errors import UserTypeError, UserValueError

from .boxes import Boxes
from .polygons import as_polygons
from .polygons import polygon_area as polygon_area
from .polygons import polygons_to_bitmask as polygons_to_bitmask
from .polygons import rasterize_polygons_within_box as rasterize_polygons_within_box
from .rows import TensorRows, cat_tensors


class BitMasks(TensorRows):
    """The masks of one image's instances, as bitmaps of the whole image.

    Attributes:
        tensor: (N, H, W) bool.
        image_size: (H, W).
    """

    def __init__(self, tensor: Tensor | np.ndarray) -> None:
        """
        Args:
            tensor: (N, H, W), nonzero inside of the instance; only a tensor's device is kept.
        """
        if not isinstance(tensor, Tensor):
            tensor = torch.as_tensor(np.asarray(tensor), device="cpu")
        if tensor.ndim != 3:
            raise UserValueError(f"expected masks of shape (N, H, W), got {tuple(tensor.shape)}")
        super().__init__(tensor.to(torch.bool))
        self.image_size = tuple(tensor.shape[1:])

    def to(self, *args: Any, **kwargs: Any) -> BitMasks:
        """Return the masks moved by torch's `to`."""
        return BitMasks(self.tensor.to(*args, **kwargs))

    def __iter__(self) -> Iterator[Tensor]:
        """Yield one (H, W) tensor per mask."""
        yield from self.tensor

    def __repr__(self) -> str:
        return f"BitMasks(num_instances={len(self)}, image_size={self.image_size})"

    def nonempty(self) -> Tensor:
        """Return (N,) bool: does the mask have any pixel?"""
        return self.tensor.flatten(1).any(dim=1)

    @staticmethod
    def from_polygon_masks(
        polygon_masks: PolygonMasks | list[list[np.ndarray]], height: int, width: int
    ) -> BitMasks:
        """Rasterise the polygons of each instance.

        Args:
            polygon_masks: N instances.
            height: H.
            width: W.
        """
        instances = polygon_masks.polygons if isinstance(polygon_masks, PolygonMasks) else polygon_masks
        masks = np.zeros((len(instances), height, width), dtype=bool)
        for mask, polygons in zip(masks, instances):
            mask[:] = polygons_to_bitmask(polygons, height, width)
        return BitMasks(torch.from_numpy(masks))

    @staticmethod
    def from_roi_masks(roi_masks: ROIMasks, height: int, width: int) -> BitMasks:
        """Resize masks that span the whole image to it; for those that span boxes see `ROIMasks.to_bitmasks`.

        Args:
            roi_masks: N masks.
            height: H.
            width: W.
        """
        whole_image = torch.tensor([0.0, 0.0, width, height], device=roi_masks.device)
        return roi_masks.to_bitmasks(whole_image.expand(len(roi_masks), 4), height, width)

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """Cut each mask out of its box and resize it, by ROIAlign: how the targets of a mask head are made.

        Args:
            boxes: (N, 4).
            mask_size: S.

        Returns:
            (N, S, S) bool.
        """
        _check_box_per_mask(boxes, len(self))
        index = torch.arange(len(boxes), device=self.device, dtype=boxes.dtype)
        rois = torch.cat([index[:, None], boxes.to(self.device)], dim=1)  # (N, 5)
        resized = roi_align(self.tensor[:, None].float(), rois, (mask_size, mask_size), 1.0, 0, True)
        return resized[:, 0] >= 0.5

    def get_bounding_boxes(self) -> Boxes:
        """Return the smallest box around each mask; all zeros for an empty mask."""
        boxes = torch.zeros(len(self), 4, device=self.device)
        _, height, width = self.tensor.shape
        if not self.tensor.numel():
            return Boxes(boxes)
        for axis, (size, is_used) in enumerate(
            ((width, self.tensor.any(dim=1)), (height, self.tensor.any(dim=2)))
        ):
            # argmax of 0 and 1 is the first 1
            boxes[:, axis] = is_used.int().argmax(dim=1)
            boxes[:, axis + 2] = size - is_used.flip(1).int().argmax(dim=1)
        return Boxes(boxes * self.nonempty()[:, None])

    @staticmethod
    def cat(bitmasks_list: Sequence[BitMasks]) -> BitMasks:
        """Concatenate the masks of a list or tuple with at least one entry, all of one image size."""
        if not bitmasks_list:
            raise UserValueError("there are no BitMasks to concatenate")
        return type(bitmasks_list[0])(cat_tensors(bitmasks_list, BitMasks, torch.empty(0, 0, 0)))


class PolygonMasks:
    """The masks of one image's instances, as polygons; each instance is the union of its polygons.

    Attributes:
        polygons: for each instance a list of float64 arrays [x0, y0, x1, y1, ...].
    """

    def __init__(self, polygons: list[list[Tensor | np.ndarray]]) -> None:
        """
        Args:
            polygons: for each instance a list of polygons; a polygon is an array, tensor or list of numbers.

        Raises:
            TypeError: if it is not a list of lists.
            ValueError: if a polygon has fewer than 3 corners, or an odd number of numbers.
        """
        if not isinstance(polygons, (list, tuple)):
            raise UserTypeError(f"expected a list of polygons per instance, got {type(polygons).__name__}")
        self.polygons: list[list[np.ndarray]] = [
            as_polygons(of_instance, index) for index, of_instance in enumerate(polygons)
        ]

    def to(self, *args: Any, **kwargs: Any) -> PolygonMasks:
        """Return the same object: polygons live on the CPU."""
        return self

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def get_bounding_boxes(self) -> Boxes:
        """Return the smallest box around each instance's polygons; all zeros where there are none."""
        boxes = torch.zeros(len(self), 4)
        for box, polygons in zip(boxes, self.polygons):
            if polygons:
                corners = np.concatenate(polygons).reshape(-1, 2)
                box[:2] = torch.from_numpy(corners.min(axis=0))
                box[2:] = torch.from_numpy(corners.max(axis=0))
        return Boxes(boxes)

    def nonempty(self) -> Tensor:
        """Return (N,) bool: does the instance have any polygon?"""
        return torch.tensor([len(polygons) > 0 for polygons in self.polygons], dtype=torch.bool)

    def __getitem__(self, item: int | slice | list[int] | Tensor | Any) -> PolygonMasks:
        """Pick instances by an index, a slice, or a list or tensor of indices or bool."""
        if isinstance(item, slice):
            return _from_checked(self.polygons[item])
        index = torch.as_tensor(item).cpu()
        chosen = torch.arange(len(self))[index if index.numel() else index.long()]  # [] is a float tensor
        if chosen.ndim > 1:
            raise IndexError(f"PolygonMasks are indexed by one dimension, got {item!r}")
        return _from_checked([self.polygons[index] for index in chosen.reshape(-1).tolist()])

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        """Yield the list of polygons of each instance."""
        return iter(self.polygons)

    def __repr__(self) -> str:
        return f"PolygonMasks(num_instances={len(self)})"

    def __len__(self) -> int:
        return len(self.polygons)

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """Rasterise each instance inside its box: how the targets of a mask head are made.

        Args:
            boxes: (N, 4).
            mask_size: S.

        Returns:
            (N, S, S) bool, on the device of the boxes.
        """
        _check_box_per_mask(boxes, len(self))
        masks = torch.zeros(len(self), mask_size, mask_size, dtype=torch.bool)
        for mask, polygons, box in zip(masks, self.polygons, boxes.detach().cpu().numpy()):
            mask.copy_(rasterize_polygons_within_box(polygons, box, mask_size))
        return masks.to(boxes.device)

    def area(self) -> Tensor:
        """Return (N,) float64 areas: sums over polygons, too large where those of an instance overlap."""
        areas = [
            sum(polygon_area(polygon[0::2], polygon[1::2]) for polygon in polygons)
            for polygons in self.polygons
        ]
        return torch.tensor(areas, dtype=torch.float64)

    @staticmethod
    def cat(polymasks_list: Sequence[PolygonMasks]) -> PolygonMasks:
        """Concatenate the instances of a list or tuple."""
        for entry in polymasks_list:
            if not isinstance(entry, PolygonMasks):
                raise UserTypeError(f"expected only PolygonMasks to concatenate, got {type(entry).__name__}")
        return _from_checked(list(itertools.chain.from_iterable(entry.polygons for entry in polymasks_list)))


class ROIMasks(TensorRows):
    """Masks inside boxes, as a mask head predicts them.

    Attributes:
        tensor: (N, S, S).
    """

    def __init__(self, tensor: Tensor) -> None:
        """
        Args:
            tensor: (N, S, S) probabilities, or bool.
        """
        if tensor.ndim != 3:
            raise UserValueError(f"expected masks of shape (N, S, S), got {tuple(tensor.shape)}")
        super().__init__(tensor)

    def to(self, device: torch.device | str) -> ROIMasks:
        """Return the masks on `device`."""
        return ROIMasks(self.tensor.to(device))

    def __repr__(self) -> str:
        return f"ROIMasks(num_instances={len(self)}, mask_size={tuple(self.tensor.shape[1:])})"

    def to_bitmasks(self, boxes: Tensor | Boxes, height: int, width: int, threshold: float = 0.5) -> BitMasks:
        """Paste each mask into its box.

        Args:
            boxes: (N, 4).
            height: H.
            width: W.
            threshold: smallest value that counts as foreground.
        """
        return BitMasks(paste_masks_in_image(self.tensor, boxes, (height, width), threshold))


def _check_box_per_mask(boxes: Tensor, num_masks: int) -> None:
    if boxes.shape != (num_masks, 4):
        raise UserValueError(f"expected a box per mask, shape ({num_masks}, 4), got {tuple(boxes.shape)}")


def _from_checked(polygons: list[list[np.ndarray]]) -> PolygonMasks:
    """PolygonMasks of polygons that come from others, without checking each of them again."""
    masks = PolygonMasks([])
    masks.polygons = polygons
    return masks
