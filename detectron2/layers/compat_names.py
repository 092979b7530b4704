"""Names that other people's code takes from modules of this package, and that nothing of ours uses.

Shapes: N masks of M x M pixels; boxes are XYXY.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from detectron2.utils import env
from detectron2.utils.develop import create_dummy_class, create_dummy_func
from detectron2.utils.offer import offer

from .deform_conv import deform_conv, modulated_deform_conv
from .mask_ops import paste_masks_in_image, sample_masks
from .roi_align_rotated import roi_align_rotated


class _NewEmptyTensorOp(torch.autograd.Function):
    """An empty tensor of another shape that stays in the graph: `apply(x, new_shape)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, new_shape: tuple[int, ...]) -> Tensor:
        ctx.shape = x.shape
        return x.new_empty(new_shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.new_zeros(ctx.shape), None


class _ApplyForm:
    """A function of ours in the form `Name.apply(...)`, as autograd functions are called."""

    apply: Callable[..., Tensor]


class _DeformConv(_ApplyForm):
    """`deform_conv` as an autograd function."""

    apply = staticmethod(deform_conv)


class _ModulatedDeformConv(_ApplyForm):
    """`modulated_deform_conv` as an autograd function."""

    apply = staticmethod(modulated_deform_conv)


class _ROIAlignRotated(_ApplyForm):
    """`roi_align_rotated` as an autograd function."""

    apply = staticmethod(roi_align_rotated)


def _do_paste_mask(
    masks: Tensor, boxes: Tensor, img_h: int, img_w: int, skip_empty: bool = True
) -> tuple[Tensor, tuple[slice, ...]]:
    """Resample masks at the pixels of an image, without a threshold.

    Args:
        masks: (N, 1, M, M) probabilities.
        boxes: (N, 4).
        img_h, img_w: size of the image.
        skip_empty: whether to look at the rows and columns around the boxes alone, which pays on the CPU.

    Returns:
        (N, rows, columns) probabilities, and the slices of rows and columns; with `skip_empty` off these are
        the whole image and ().
    """
    top, left, bottom, right = 0, 0, img_h, img_w
    if skip_empty:
        left, top = (boxes.amin(dim=0)[:2].floor() - 1).clamp(min=0).int().tolist()
        right = min(int(boxes[:, 2].amax().ceil().item()) + 1, img_w)
        bottom = min(int(boxes[:, 3].amax().ceil().item()) + 1, img_h)
    values = sample_masks(masks[:, 0], boxes, top, bottom, left, right)
    return values, (slice(top, bottom), slice(left, right)) if skip_empty else ()


def _paste_masks_tensor_shape(
    masks: Tensor, boxes: Tensor, image_shape: tuple[Tensor, Tensor], threshold: float = 0.5
) -> Tensor:
    """`paste_masks_in_image` for a height and width that are tensors."""
    height, width = (int(size) for size in image_shape)
    return paste_masks_in_image(masks, boxes, (height, width), threshold)


offer("detectron2", lazily={"_C": "detectron2._C"})
offer("detectron2.layers.batch_norm", env)
offer(
    "detectron2.layers.deform_conv",
    _DeformConv,
    _ModulatedDeformConv,
    _NewEmptyTensorOp,
    create_dummy_class,
    create_dummy_func,
    lazily={"_C": "detectron2._C"},
)
offer("detectron2.layers.mask_ops", _do_paste_mask, _paste_masks_tensor_shape)
offer("detectron2.layers.roi_align_rotated", _ROIAlignRotated)
offer("detectron2.layers.wrappers", _NewEmptyTensorOp, TORCH_VERSION=env.TORCH_VERSION)
