"""Bring results from the frame of the resized network input to the frame that the user asked for."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from detectron2.layers.tracing import is_tracing
from detectron2.layers.wrappers import shapes_to_tensor
from detectron2.structures.instances import Instances
from detectron2.structures.masks import ROIMasks
from detectron2.utils.user_errors import UserValueError


def detector_postprocess(
    results: Instances, output_height: int, output_width: int, mask_threshold: float = 0.5
) -> Instances:
    """Rescale one image's detections to another resolution; the argument is left as it is.

    Args:
        results: detections or proposals in the frame of the network input, `results.image_size`.
        output_height: height of the frame wanted.
        output_width: width of the frame wanted.
        mask_threshold: pixels of a pasted mask above this probability belong to the object.

    Returns:
        The detections in the new frame: boxes clipped to it, those left without area dropped; mask
        probabilities (R, 1, M, M) pasted into (R, output_height, output_width) bool.
    """
    scale_x = output_width / results.image_size[1]
    scale_y = output_height / results.image_size[0]
    output_size: Any = (output_height, output_width)
    if is_tracing():
        output_size = shapes_to_tensor(output_size)
    output = Instances(output_size, **results.get_fields())

    name = next((n for n in ("pred_boxes", "proposal_boxes") if output.has(n)), None)
    if name is None:
        raise UserValueError(
            f"Expected instances with pred_boxes or proposal_boxes, got {list(results.get_fields())}"
        )
    boxes = output.get(name).clone()
    boxes.scale(scale_x, scale_y)
    boxes.clip(output.image_size)
    output.set(name, boxes)
    output = output[boxes.nonempty()]

    if output.has("pred_masks"):
        masks = output.pred_masks
        if not isinstance(masks, ROIMasks):
            masks = ROIMasks(masks.squeeze(1))  # (R, 1, M, M): a head predicts one channel, that of the class
        pasted = masks.to_bitmasks(output.get(name).tensor, output_height, output_width, mask_threshold)
        output.pred_masks = pasted.tensor
    if output.has("pred_keypoints"):
        keypoints = output.pred_keypoints.clone()  # (R, K, 3) x, y, score
        keypoints[..., 0] *= scale_x
        keypoints[..., 1] *= scale_y
        output.pred_keypoints = keypoints
    return output


def sem_seg_postprocess(
    result: Tensor, img_size: tuple[int, int], output_height: int, output_width: int
) -> Tensor:
    """Rescale one image's semantic logits to another resolution.

    Args:
        result: (K, H, W) logits of the padded network input.
        img_size: (height, width) of the input without padding.
        output_height: height of the frame wanted.
        output_width: width of the frame wanted.

    Returns:
        (K, output_height, output_width) logits.
    """
    height, width = img_size[0], img_size[1]
    unpadded = result[None, :, :height, :width]
    size = (output_height, output_width)
    return F.interpolate(unpadded, size=size, mode="bilinear", align_corners=False)[0]
