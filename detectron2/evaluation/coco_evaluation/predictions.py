"""Model outputs in COCO's result format.

Shapes: R instances of one image, H x W its size, P keypoints. Boxes are XYXY in pixels of the original image
in `Instances`, XYWH in the JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from detectron2.structures import rle
from detectron2.structures.boxes import BoxMode
from detectron2.structures.instances import Instances
from detectron2.structures.masks import BitMasks, PolygonMasks
from detectron2.utils.user_errors import UserValueError

# Annotations place a keypoint on a pixel, by its index; models regress to the pixel's centre.
_KEYPOINT_PIXEL_CENTER = 0.5


def encode_masks(
    masks: Tensor | BitMasks | PolygonMasks, image_size: tuple[int, int]
) -> list[dict[str, Any]]:
    """Turn masks into compressed run lengths that `json` can write.

    Args:
        masks: R masks; a tensor is (R, H, W), bool or 0/1.
        image_size: (height, width), needed for polygons.

    Returns:
        R dictionaries with "size" and "counts", the counts as text.
    """
    if isinstance(masks, PolygonMasks):
        codes = [rle.from_polygons(polygons, *image_size) for polygons in masks.polygons]
    else:
        codes = rle.encode(masks.tensor if isinstance(masks, BitMasks) else torch.as_tensor(masks))
    return [rle.as_json(code) for code in codes]


def instances_to_coco_json(instances: Instances, img_id: int) -> list[dict[str, Any]]:
    """Turn the detections of one image into entries of a COCO result file.

    Args:
        instances: on the CPU, with `pred_boxes`, `scores`, `pred_classes` and optionally `pred_masks` and
            `pred_keypoints`, in the frame of the original image.
        img_id: the image's id in the data set.

    Returns:
        One dictionary per detection. Category ids are the model's contiguous ones.
    """
    num_instances = len(instances)
    if num_instances == 0:
        return []
    boxes = BoxMode.convert(instances.pred_boxes.tensor, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    columns: dict[str, Sequence[Any]] = {
        "category_id": instances.pred_classes.tolist(),
        "bbox": torch.as_tensor(boxes).tolist(),
        "score": instances.scores.tolist(),
    }
    if instances.has("pred_masks"):
        columns["segmentation"] = encode_masks(instances.pred_masks, instances.image_size)
    if instances.has("pred_keypoints"):
        keypoints = torch.as_tensor(instances.pred_keypoints).clone()  # (R, P, 3): x, y, score
        keypoints[..., :2] -= _KEYPOINT_PIXEL_CENTER
        columns["keypoints"] = keypoints.flatten(1).tolist()
    names = list(columns)
    return [{"image_id": img_id, **dict(zip(names, row))} for row in zip(*columns.values())]


def to_dataset_categories(
    predictions: Sequence[dict[str, Any]], contiguous_to_dataset: Mapping[int, int], dataset_name: str
) -> list[dict[str, Any]]:
    """Give result entries the category ids of the data set.

    Raises:
        ValueError: a prediction has a class that the data set does not have.
    """
    unknown = sorted({p["category_id"] for p in predictions} - contiguous_to_dataset.keys())
    if unknown:
        raise UserValueError(
            f"The model predicted class {unknown[0]}, but '{dataset_name}' has "
            f"{len(contiguous_to_dataset)} classes, 0 to {len(contiguous_to_dataset) - 1}. Set "
            "MODEL.ROI_HEADS.NUM_CLASSES (or the head's own key) to the number of classes of the data set, "
            "or evaluate on the data set that the weights were trained for"
        )
    return [{**p, "category_id": contiguous_to_dataset[p["category_id"]]} for p in predictions]


def tasks_in_predictions(predictions: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The IoU types that these result entries can be scored for."""
    keys = {key for entry in predictions for key in entry}
    return ("bbox",) + tuple(
        task for key, task in (("keypoints", "keypoints"), ("segmentation", "segm")) if key in keys
    )
