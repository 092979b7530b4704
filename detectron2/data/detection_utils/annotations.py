"""The annotations of a data set dict, moved along with their image by transforms.

An annotation is a dict with `bbox` and `bbox_mode`, `category_id`, `iscrowd`, and optionally
`segmentation` (polygons as lists of x, y, ..., an RLE dict, or an (H, W) array) and `keypoints` (x, y,
visibility, ...). Coordinates are pixels of the image; image sizes are (height, width).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fvcore.transforms.transform import HFlipTransform, Transform, TransformList

from detectron2.structures import rle
from detectron2.structures.boxes import Boxes, BoxMode
from detectron2.structures.instances import Instances
from detectron2.utils.user_errors import UserValueError

logger = logging.getLogger(__name__)

Annotation = dict[str, Any]
# One transform; a list of them is one too. fvcore has no types, and lets types be registered at run time.
Transforms = Any


def get_bbox(annotation: Annotation) -> np.ndarray:
    """(1, 4) XYXY box of an annotation."""
    box = np.asarray(annotation["bbox"], dtype=np.float64)[None]  # integers would cut what transforms compute
    return np.asarray(BoxMode.convert(box, annotation["bbox_mode"], BoxMode.XYXY_ABS))


def transform_proposals(
    dataset_dict: dict[str, Any],
    image_shape: tuple[int, int],
    transforms: Transforms,
    *,
    proposal_topk: int,
    min_box_size: float = 0,
) -> None:
    """Replace the precomputed proposals of a dict by `proposals`, transformed `Instances` for the model.

    Args:
        dataset_dict: changed in place. Without `proposal_boxes` nothing happens.
        image_shape: size of the transformed image.
        transforms: what was applied to the image.
        proposal_topk: how many proposals are kept, best first.
        min_box_size: proposals with a side of at most this are dropped.
    """
    if "proposal_boxes" not in dataset_dict:
        return
    mode = dataset_dict.pop("proposal_bbox_mode")
    boxes = transforms.apply_box(
        BoxMode.convert(dataset_dict.pop("proposal_boxes"), mode, BoxMode.XYXY_ABS)  # (R, 4)
    )
    proposals = Instances(image_shape)
    proposals.proposal_boxes = Boxes(torch.as_tensor(np.asarray(boxes, dtype=np.float32)))
    proposals.objectness_logits = torch.as_tensor(
        np.asarray(dataset_dict.pop("proposal_objectness_logits"), dtype=np.float32)
    )
    proposals.proposal_boxes.clip(image_shape)
    keep = proposals.proposal_boxes.nonempty(threshold=min_box_size)
    dataset_dict["proposals"] = proposals[keep][:proposal_topk]


def transform_instance_annotations(
    annotation: Annotation,
    transforms: Transforms | Sequence[Transform],
    image_size: tuple[int, int],
    *,
    keypoint_hflip_indices: Sequence[int] | np.ndarray | None = None,
) -> Annotation:
    """Transform box, segmentation and keypoints of one annotation, in place.

    The box becomes XYXY (XYWHA boxes stay so) and is clipped to the image. An RLE segmentation becomes a mask
    array.

    Args:
        annotation: see the top of this module.
        transforms: what was applied to the image.
        image_size: size of the transformed image.
        keypoint_hflip_indices: for each keypoint the one whose place it takes in a mirrored image.

    Returns:
        The same dict.
    """
    if isinstance(transforms, (tuple, list)):
        transforms = TransformList(list(transforms))
    _transform_box(annotation, transforms, image_size)
    if "segmentation" in annotation:
        annotation["segmentation"] = _transform_segmentation(
            annotation["segmentation"], transforms, image_size
        )
    if "keypoints" in annotation:
        annotation["keypoints"] = transform_keypoint_annotations(
            annotation["keypoints"], transforms, image_size, keypoint_hflip_indices
        )
    return annotation


def _transform_box(annotation: Annotation, transforms: Transforms, image_size: tuple[int, int]) -> None:
    if annotation["bbox_mode"] == BoxMode.XYWHA_ABS:
        rotated = np.asarray([annotation["bbox"]], dtype=np.float64)  # (1, 5)
        annotation["bbox"] = transforms.apply_rotated_box(rotated)[0]
        return
    height, width = image_size
    box = transforms.apply_box(get_bbox(annotation))[0]
    annotation["bbox"] = box.clip(min=0, max=[width, height, width, height])
    annotation["bbox_mode"] = BoxMode.XYXY_ABS


def _transform_segmentation(segmentation: Any, transforms: Transforms, image_size: tuple[int, int]) -> Any:
    if isinstance(segmentation, list):
        # Whole numbers stay such, and are scaled to whole numbers: so published models were trained.
        polygons = [np.asarray(polygon).reshape(-1, 2) for polygon in segmentation]
        return [polygon.reshape(-1) for polygon in transforms.apply_polygons(polygons)]
    mask = transforms.apply_segmentation(as_mask(segmentation))
    if tuple(mask.shape[:2]) != tuple(image_size):
        raise UserValueError(
            f"A mask has size {tuple(mask.shape[:2])} after the transforms, but its image has "
            f"{tuple(image_size)}. The mask in the annotation must be as large as the image file."
        )
    return mask


def as_mask(segmentation: Any) -> np.ndarray:
    """Decode the mask of an annotation.

    Args:
        segmentation: a COCO RLE dict, or an (H, W) array of 0 and 1.

    Returns:
        (H, W) uint8.

    Raises:
        ValueError: it is neither, or the RLE does not fit its size.
    """
    if isinstance(segmentation, dict):
        return rle.decode(segmentation)
    if isinstance(segmentation, np.ndarray):
        if segmentation.ndim != 2:
            raise UserValueError(f"A mask array must be (H, W), got shape {segmentation.shape}.")
        return segmentation.astype(np.uint8, copy=False)
    raise UserValueError(
        f"Cannot use a segmentation of type {type(segmentation).__name__}. It must be a list of polygons "
        "([[x, y, x, y, ...], ...]), a COCO RLE dict with 'size' and 'counts', or an (H, W) array of 0 and 1."
    )


def transform_keypoint_annotations(
    keypoints: Sequence[float] | np.ndarray,
    transforms: Transforms,
    image_size: tuple[int, int],
    keypoint_hflip_indices: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """Transform the keypoints of one instance.

    Points that fall outside the image become invisible (v = 0); the coordinates of invisible points
    become 0. After an odd number of horizontal flips left and right points are exchanged.

    Args:
        keypoints: K triples (x, y, visibility).
        transforms: what was applied to the image.
        image_size: size of the transformed image.
        keypoint_hflip_indices: for each keypoint the one whose place it takes in a mirrored image, from
            `create_keypoint_hflip_indices`; needed when a flip occurs.

    Returns:
        (K, 3).
    """
    points = np.asarray(keypoints, dtype=np.float64).reshape(-1, 3)
    xy = transforms.apply_coords(points[:, :2].copy())
    height, width = image_size
    is_inside = ((xy >= 0) & (xy <= [width, height])).all(axis=1)
    points = np.concatenate([xy, np.where(is_inside, points[:, 2], 0)[:, None]], axis=1)

    # Vertical flips would need their own exchange; a pose upside down is not a mirrored one.
    parts = transforms.transforms if isinstance(transforms, TransformList) else [transforms]
    num_flips = sum(isinstance(part, HFlipTransform) for part in _flatten(parts))
    if num_flips % 2 == 1:
        if keypoint_hflip_indices is None:
            raise UserValueError(
                "A horizontal flip of keypoints needs keypoint_hflip_indices. Give the data set "
                "keypoint_names and keypoint_flip_map in its metadata, or turn flipping off "
                "(INPUT.RANDOM_FLIP 'none')."
            )
        if len(keypoint_hflip_indices) != len(points):
            raise UserValueError(
                f"The annotation has {len(points)} keypoints, but the metadata's keypoint_names has "
                f"{len(keypoint_hflip_indices)}."
            )
        points = points[np.asarray(keypoint_hflip_indices)]
    points[points[:, 2] == 0] = 0
    return points


def _flatten(parts: Sequence[Transform]) -> list[Transform]:
    """Transforms of lists within lists."""
    flat: list[Transform] = []
    for part in parts:
        flat.extend(_flatten(part.transforms) if isinstance(part, TransformList) else [part])
    return flat
