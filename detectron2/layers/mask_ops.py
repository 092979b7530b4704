"""Put masks that were predicted inside boxes back into the image.

Shapes: R masks of M x M pixels. Boxes are XYXY in pixels of the image to paste into.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from detectron2.utils.user_errors import UserValueError

from .extension import fake_kernel, find_operator, is_concrete
from .tracing import is_tracing, script_in_traces
from .wrappers import disable_torch_compiler, shapes_to_tensor

BYTES_PER_FLOAT = 4
GPU_MEM_LIMIT = 1024**3  # bytes; larger pastes on a GPU are done in chunks


def paste_masks_in_image(
    masks: Tensor, boxes: Tensor | Any, image_shape: tuple[int, int], threshold: float = 0.5
) -> Tensor:
    """Resize every mask to its box, place it in an otherwise empty image, and binarise it.

    The mask's outer edges lie on the edges of the box. Pixels take bilinear samples at their centres.

    Args:
        masks: (R, M, M) probabilities.
        boxes: (R, 4), or an object with such a `tensor`.
        image_shape: (height, width).
        threshold: smallest probability that counts as foreground; negative for no binarisation.

    Returns:
        (R, height, width), bool; or uint8 in 0..255 if the threshold is negative.
    """
    boxes = getattr(boxes, "tensor", boxes)
    _check_inputs(masks, boxes)
    masks = masks if masks.is_floating_point() else masks.float()
    operator = find_operator("paste_masks", masks.device)
    if is_tracing():
        return _trace_paste(masks, boxes, image_shape, threshold, has_operator=operator is not None)
    height, width = (size if isinstance(size, torch.SymInt) else int(size) for size in image_shape)
    if operator is not None:
        images: Tensor = operator(masks, boxes, height, width, threshold)
        return images
    return _paste_masks_reference(masks, boxes, height, width, threshold)


def _trace_paste(
    masks: Tensor, boxes: Tensor, image_shape: Any, threshold: float, has_operator: bool
) -> Tensor:
    """Record the paste into an image whose height and width may be tensors."""
    if not isinstance(image_shape, Tensor):
        image_shape = shapes_to_tensor(image_shape)
    if has_operator:
        return _paste_by_operator(masks, boxes, image_shape, float(threshold))
    pasted = sample_masks(masks, boxes, 0, image_shape[0], 0, image_shape[1])
    return _binarize(pasted, threshold)


@script_in_traces
def _paste_by_operator(masks: Tensor, boxes: Tensor, image_size: Tensor, threshold: float) -> Tensor:
    # An operator called in Python takes numbers, which would be constants of the trace.
    height, width = int(image_size[0]), int(image_size[1])
    pasted: Tensor = torch.ops.detectron2.paste_masks(masks, boxes, height, width, threshold)
    return pasted


@fake_kernel("paste_masks")
def _(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> Tensor:
    torch._check(masks.ndim == 3, lambda: f"masks: {tuple(masks.shape)}")
    torch._check(boxes.ndim == 2 and boxes.shape[1] == 4, lambda: f"boxes: {tuple(boxes.shape)}")
    torch._check(boxes.shape[0] == masks.shape[0], lambda: "as many boxes as masks")
    dtype = torch.bool if threshold >= 0 else torch.uint8
    return masks.new_empty(masks.shape[0], height, width, dtype=dtype)


def paste_masks_to_rle(
    masks: Tensor, boxes: Tensor | Any, image_shape: tuple[int, int], threshold: float = 0.5
) -> list[dict[str, Any]]:
    """Do what `paste_masks_in_image` does, but return run-length codes, without ever filling images.

    Args:
        masks: (R, M, M) probabilities, on any device.
        boxes: (R, 4), or an object with such a `tensor`.
        image_shape: (height, width).
        threshold: smallest probability that counts as foreground, more than 0.

    Returns:
        R masks as COCO has them: `size` [height, width] and `counts`, a compressed code in bytes.
    """
    if threshold <= 0:
        raise UserValueError(f"expected a threshold above 0, got {threshold}: everything would be foreground")
    boxes = getattr(boxes, "tensor", boxes).detach().cpu()
    masks = masks.detach().cpu()
    _check_inputs(masks, boxes)
    height, width = (int(size) for size in image_shape)
    masks = masks if masks.is_floating_point() else masks.float()
    operator = find_operator("paste_masks_rle", masks.device)
    if operator is None:
        return _paste_masks_to_rle_reference(masks, boxes, height, width, threshold)
    codes, ends = operator(masks, boxes, height, width, threshold)
    data, starts = codes.numpy().tobytes(), [0, *ends.tolist()]
    return [{"size": [height, width], "counts": data[start:end]} for start, end in itertools.pairwise(starts)]


@fake_kernel("paste_masks_rle")
def _(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> tuple[Tensor, Tensor]:
    num_bytes = torch.library.get_ctx().new_dynamic_size()
    return (
        masks.new_empty(num_bytes, dtype=torch.uint8),
        masks.new_empty(masks.shape[0], dtype=torch.int64),
    )


def _paste_masks_to_rle_reference(
    masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float
) -> list[dict[str, Any]]:
    codes = []
    for mask, box in zip(masks, boxes):
        bitmap = _paste_masks_reference(mask[None], box[None], height, width, threshold)[0]
        codes.append({"size": [height, width], "counts": _run_length_code(bitmap.numpy())})
    return codes


def _run_length_code(bitmap: np.ndarray) -> bytes:
    """COCO's compressed code of the runs of an (H, W) bitmap in column-major order, background first."""
    pixels = bitmap.ravel(order="F")
    changes = np.flatnonzero(np.diff(pixels, prepend=False))  # with a run of nothing where the first is set
    runs = np.diff(changes, prepend=0, append=len(pixels))
    numbers = runs.copy()
    numbers[3:] -= runs[1:-2]  # from the fourth on, the difference to the one before last
    code = bytearray()
    for number in numbers.tolist():
        is_complete = False
        while not is_complete:  # five bits a character and a sixth that says whether more follow
            digit, number = number & 31, number >> 5
            is_complete = number == (-1 if digit & 16 else 0)  # all that is left is the sign
            code.append(48 + (digit if is_complete else digit | 32))
    return bytes(code)


def _check_inputs(masks: Tensor, boxes: Tensor) -> None:
    if not is_concrete(masks):
        return
    if masks.ndim != 3 or masks.shape[1] != masks.shape[2]:
        raise UserValueError(f"expected masks of shape (R, M, M), got {tuple(masks.shape)}")
    if boxes.shape != (len(masks), 4):
        raise UserValueError(f"expected a box per mask, shape ({len(masks)}, 4), got {tuple(boxes.shape)}")


@disable_torch_compiler
def _paste_masks_reference(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> Tensor:
    dtype = torch.bool if threshold >= 0 else torch.uint8
    # Around the masks values are 0, which may reach the threshold.
    images = torch.full((len(masks), height, width), threshold == 0, dtype=dtype, device=masks.device)
    masks = masks.to(torch.promote_types(masks.dtype, torch.float32))
    boxes = boxes.to(masks.dtype)
    # A box whose edges are not finite and in order becomes one without extent, which shows nothing.
    is_proper = boxes.isfinite().all(dim=1) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    boxes = boxes.where(is_proper[:, None], 0)
    if masks.device.type == "cpu":
        # One box at a time, and of the image only the part around it.
        windows = _windows(boxes, masks.shape[1], height, width)
        for mask, box, (y0, y1, x0, x1), image in zip(masks, boxes, windows, images):
            if y0 < y1 and x0 < x1:
                pasted = sample_masks(mask[None], box[None], y0, y1, x0, x1)[0]
                image[y0:y1, x0:x1] = _binarize(pasted, threshold)
        return images
    num_chunks = math.ceil(len(masks) * height * width * BYTES_PER_FLOAT / GPU_MEM_LIMIT)
    for chunk in torch.arange(len(masks), device=masks.device).chunk(max(num_chunks, 1)):
        if len(chunk):
            pasted = sample_masks(masks[chunk], boxes[chunk], 0, height, 0, width)
            images[chunk] = _binarize(pasted, threshold)
    return images


def _windows(boxes: Tensor, mask_size: int, height: int, width: int) -> list[list[int]]:
    """For each box, the rows [y0, y1) and columns [x0, x1) of the image that its mask can reach.

    Interpolation with the zeros around a mask reaches half a mask pixel beyond the box.
    """
    start, end = boxes[:, :2].detach().double(), boxes[:, 2:].detach().double()
    reach = (end - start).abs() / (2 * mask_size) + 1
    start, end = (start - reach).floor(), (end + reach).ceil()
    edges = [
        start[:, 1].clamp(0, height),
        end[:, 1].clamp(0, height),
        start[:, 0].clamp(0, width),
        end[:, 0].clamp(0, width),
    ]
    return torch.stack(edges, dim=1).long().tolist()


def sample_masks(masks: Tensor, boxes: Tensor, y0: int, y1: int, x0: int, x1: int) -> Tensor:
    """(R, M, M) masks and their boxes -> (R, y1 - y0, x1 - x0) values at pixel centres, 0 outside the box."""
    left, top, right, bottom = boxes.unsqueeze(-1).unbind(dim=1)  # each (R, 1)
    y = torch.arange(y0, y1, device=masks.device, dtype=boxes.dtype) + 0.5
    x = torch.arange(x0, x1, device=masks.device, dtype=boxes.dtype) + 0.5
    # The box spans [-1, 1] in the frame of grid_sample. One without extent gets infinite positions: outside.
    y = (y - top) / (bottom - top) * 2 - 1  # (R, rows)
    x = (x - left) / (right - left) * 2 - 1  # (R, columns)
    shape = (masks.shape[0], y1 - y0, x1 - x0)
    grid = torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], dim=3)
    return F.grid_sample(masks[:, None], grid.to(masks.dtype), align_corners=False)[:, 0]


def _binarize(values: Tensor, threshold: float) -> Tensor:
    return (
        values >= threshold if threshold >= 0 else (values * 255).nan_to_num(0).clamp(0, 255).to(torch.uint8)
    )


def paste_mask_in_image_old(mask: Tensor, box: Tensor, img_h: int, img_w: int, threshold: float) -> Tensor:
    """Paste one mask the way of the first Mask R-CNN: integer box corners, resized by Pillow.

    Kept for comparisons; `paste_masks_in_image` is exact for boxes of any coordinates.

    Args:
        mask: (M, M) probabilities.
        box: (4,), truncated to integers; both corners are inside.
        img_h: height of the image.
        img_w: width of the image.
        threshold: probability above which a pixel is foreground; negative for no binarisation.

    Returns:
        (img_h, img_w) uint8, 0 and 1, or 0..255 if the threshold is negative.
    """
    from PIL import Image

    x0, y0, x1, y1 = box.to(torch.int32).tolist()
    size = (x1 - x0 + 1, y1 - y0 + 1)
    values = np.asarray(Image.fromarray(mask.float().cpu().numpy()).resize(size, Image.Resampling.BILINEAR))
    resized = torch.from_numpy(values > threshold if threshold >= 0 else values * 255).to(torch.uint8)
    image = torch.zeros(img_h, img_w, dtype=torch.uint8)
    top, bottom = max(y0, 0), min(y1 + 1, img_h)
    left, right = max(x0, 0), min(x1 + 1, img_w)
    if top < bottom and left < right:
        image[top:bottom, left:right] = resized[top - y0 : bottom - y0, left - x0 : right - x0]
    return image


def pad_masks(masks: Tensor, padding: int) -> tuple[Tensor, float]:
    """Surround masks with zeros.

    Args:
        masks: (R, M, M).
        padding: pixels on every side.

    Returns:
        (R, M + 2 * padding, M + 2 * padding) masks, and by how much they grew (new size / M).
    """
    padded = F.pad(masks, (padding,) * 4)
    return padded, padded.shape[-1] / masks.shape[-1]


def scale_boxes(boxes: Tensor, scale: float) -> Tensor:
    """Scale (R, 4) boxes about their centres."""
    start, end = boxes[:, :2], boxes[:, 2:]
    center = (start + end) / 2
    half_size = (end - start) * (scale / 2)
    return torch.cat([center - half_size, center + half_size], dim=1)
