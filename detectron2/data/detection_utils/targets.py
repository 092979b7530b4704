"""From the annotations of an image to the `Instances` that models are trained with.

Shapes: R instances, K keypoints each, H x W the image after the transforms. Boxes are XYXY in its pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from detectron2.structures.boxes import Boxes, BoxMode
from detectron2.structures.instances import Instances
from detectron2.structures.keypoints import Keypoints
from detectron2.structures.masks import BitMasks, PolygonMasks
from detectron2.structures.polygons import polygons_to_bitmask
from detectron2.structures.rotated_boxes import RotatedBoxes
from detectron2.utils.user_errors import UserValueError

from .annotations import Annotation, as_mask


def annotations_to_instances(
    annos: Sequence[Annotation], image_size: tuple[int, int], mask_format: str = "polygon"
) -> Instances:
    """Collect the annotations of one image.

    Args:
        annos: transformed annotations.
        image_size: size of the transformed image.
        mask_format: "polygon" or "bitmask", the type of `gt_masks`.

    Returns:
        `Instances` with `gt_boxes` (R, 4), `gt_classes` (R,), and `gt_masks` and `gt_keypoints`
        where the annotations have them.

    Raises:
        ValueError: a bit mask is not as large as the image, or masks do not fit `mask_format`.
    """
    boxes = [BoxMode.convert(anno["bbox"], anno["bbox_mode"], BoxMode.XYXY_ABS) for anno in annos]
    target = Instances(image_size)
    target.gt_boxes = Boxes(torch.as_tensor(np.asarray(boxes, dtype=np.float32).reshape(-1, 4)))
    target.gt_classes = torch.tensor([int(anno["category_id"]) for anno in annos], dtype=torch.int64)
    if any("segmentation" in anno for anno in annos):
        target.gt_masks = _collect_masks(_collect(annos, "segmentation"), image_size, mask_format)
    if any("keypoints" in anno for anno in annos):
        target.gt_keypoints = Keypoints(np.stack(_collect(annos, "keypoints")))
    return target


def _collect(annos: Sequence[Annotation], key: str) -> list[Any]:
    if not all(key in anno for anno in annos):
        num_missing = sum(key not in anno for anno in annos)
        raise UserValueError(
            f"{num_missing} of the {len(annos)} annotations of an image have no {key!r} while the others do. "
            "Add it to all of them, or remove it from all."
        )
    return [anno[key] for anno in annos]


def _collect_masks(
    segmentations: list[Any], image_size: tuple[int, int], mask_format: str
) -> PolygonMasks | BitMasks:
    if mask_format == "polygon":
        if not all(isinstance(s, list) for s in segmentations):
            raise UserValueError(
                "INPUT.MASK_FORMAT is 'polygon', but the data set has masks as RLE or arrays. "
                "Set INPUT.MASK_FORMAT to 'bitmask'."
            )
        return PolygonMasks(segmentations)
    if mask_format != "bitmask":
        raise UserValueError(f"INPUT.MASK_FORMAT must be 'polygon' or 'bitmask', got {mask_format!r}.")
    masks = np.zeros((len(segmentations), *image_size), dtype=bool)
    for mask, segmentation in zip(masks, segmentations):
        drawn = (
            polygons_to_bitmask(segmentation, *image_size)
            if isinstance(segmentation, list)
            else as_mask(segmentation)
        )
        if drawn.shape != mask.shape:
            raise UserValueError(
                f"A mask has size {drawn.shape} (height, width), but its image has {mask.shape} after the "
                "transforms. The mask in the annotation must be as large as the image file, and the same "
                "transforms must be applied to both."
            )
        mask[:] = drawn
    return BitMasks(torch.from_numpy(masks))


def annotations_to_instances_rotated(annos: Sequence[Annotation], image_size: tuple[int, int]) -> Instances:
    """Collect annotations with XYWHA boxes of one image; boxes are clipped to the image.

    Args:
        annos: transformed annotations.
        image_size: size of the transformed image.

    Returns:
        `Instances` with `gt_boxes` (`RotatedBoxes`) and `gt_classes`.
    """
    target = Instances(image_size)
    boxes = np.asarray([anno["bbox"] for anno in annos], dtype=np.float32).reshape(-1, 5)
    target.gt_boxes = RotatedBoxes(torch.as_tensor(boxes))
    target.gt_boxes.clip(image_size)
    target.gt_classes = torch.tensor([int(anno["category_id"]) for anno in annos], dtype=torch.int64)
    return target


def filter_empty_instances(
    instances: Instances,
    by_box: bool = True,
    by_mask: bool = True,
    box_threshold: float = 1e-5,
    return_mask: bool = False,
) -> Any:
    """Drop instances without area.

    Args:
        instances: with `gt_boxes`.
        by_box: drop boxes that have a side of at most `box_threshold`.
        by_mask: drop empty masks, where there are masks.
        box_threshold: in pixels.
        return_mask: also return which instances were kept.

    Returns:
        The kept instances; with `return_mask` a pair of these and an (R,) bool tensor.
    """
    if not (by_box or by_mask):
        raise UserValueError("filter_empty_instances needs by_box or by_mask.")
    keep = torch.ones(len(instances), dtype=torch.bool)
    if by_box:
        keep = keep & instances.gt_boxes.nonempty(threshold=box_threshold)
    if by_mask and instances.has("gt_masks"):
        keep = keep & instances.gt_masks.nonempty()
    kept = instances[keep]
    return (kept, keep) if return_mask else kept
