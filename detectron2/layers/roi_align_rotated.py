"""ROIAlign within rotated boxes.

Shapes: N images, C channels, H rows, W columns, R boxes over all images, PH x PW output cells per box.
Boxes are (image index, centre x, centre y, width, height, angle): input-image pixels, and degrees
counter-clockwise on the screen.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .extension import differentiate, fake_kernel, find_operator, needs_determinism
from .roi_sampling import check_roi_inputs, plan_chunks, sum_rows, to_rows
from .wrappers import disable_torch_compiler

_MAX_SAMPLES = 1 << 10  # of an output cell along an axis; a larger box is sampled more coarsely


def roi_align_rotated(
    input: Tensor,
    boxes: Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
) -> Tensor:
    """Pool the features inside each rotated box into a grid of fixed size.

    The grid turns with the box; sampling is that of `roi_align` with `aligned=True`. So are gradients, which
    on CUDA are summed in no fixed order unless `torch.use_deterministic_algorithms` is on.

    Args:
        input: (N, C, H, W) features.
        boxes: (R, 6): image index, centre x, centre y, width, height, angle.
        output_size: (PH, PW), or one number for both.
        spatial_scale: feature cells per input-image pixel.
        sampling_ratio: samples per output cell and axis; 0 or less for one per feature cell covered, rounded
            up.

    Returns:
        (R, C, PH, PW) in the dtype of `input`; half precision is accumulated in float32.
    """
    size = (output_size, output_size) if isinstance(output_size, int) else output_size
    check_roi_inputs(input, boxes, box_dim=6)
    operator = find_operator("roi_align_rotated", input.device)
    if operator is not None and not needs_determinism(input):
        pooled: Tensor = operator(input, boxes, spatial_scale, size[0], size[1], sampling_ratio)
        return pooled
    return _roi_align_rotated_reference(input, boxes, size, spatial_scale, sampling_ratio)


@fake_kernel("roi_align_rotated")
def _(
    input: Tensor,
    boxes: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
) -> Tensor:
    torch._check(input.ndim == 4, lambda: f"input: {tuple(input.shape)}")
    torch._check(boxes.ndim == 2 and boxes.shape[1] == 6, lambda: f"boxes: {tuple(boxes.shape)}")
    return input.new_empty(boxes.shape[0], input.shape[1], pooled_height, pooled_width)


@fake_kernel("roi_align_rotated_backward")
def _(
    grad: Tensor,
    boxes: Tensor,
    spatial_scale: float,
    batch_size: int,
    channels: int,
    height: int,
    width: int,
    sampling_ratio: int,
) -> Tensor:
    return grad.new_empty(batch_size, channels, height, width)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, boxes, ctx.spatial_scale, _, _, ctx.sampling_ratio = inputs
    ctx.save_for_backward(boxes)
    ctx.input_shape = input.shape


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (boxes,) = ctx.saved_tensors
    grad_input = torch.ops.detectron2.roi_align_rotated_backward(
        grad, boxes, ctx.spatial_scale, *ctx.input_shape, ctx.sampling_ratio
    )
    return grad_input, None, None, None, None, None


differentiate("roi_align_rotated", _backward, _save_for_backward)


class ROIAlignRotated(nn.Module):
    """Module form of `roi_align_rotated`, with its settings.

    Args:
        output_size: (PH, PW).
        spatial_scale: feature cells per input-image pixel.
        sampling_ratio: samples per output cell and axis; 0 for one per feature cell covered.
    """

    def __init__(self, output_size: int | tuple[int, int], spatial_scale: float, sampling_ratio: int) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """(N, C, H, W) features, (R, 6) rotated boxes with image index -> (R, C, PH, PW)."""
        return roi_align_rotated(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio)

    def extra_repr(self) -> str:
        settings = ("output_size", "spatial_scale", "sampling_ratio")
        return ", ".join(f"{name}={getattr(self, name)}" for name in settings)


@disable_torch_compiler
def _roi_align_rotated_reference(
    input: Tensor, boxes: Tensor, output_size: tuple[int, int], spatial_scale: float, sampling_ratio: int
) -> Tensor:
    rows = to_rows(input)
    boxes = boxes.detach().to(torch.promote_types(rows.dtype, boxes.dtype))
    finite = torch.isfinite(boxes).all(dim=1)
    geometry = (boxes[:, 1:5] * spatial_scale).where(finite[:, None], 0)
    geometry[:, :2] -= 0.5  # cell centres to cell indices
    angle = torch.deg2rad(boxes[:, 5]).where(finite, 0)
    cells = geometry.new_tensor([output_size[1], output_size[0]])
    if sampling_ratio > 0:
        num_samples = torch.full_like(geometry[:, 2:], sampling_ratio)
    else:
        num_samples = (geometry[:, 2:] / cells).ceil().clamp(0, _MAX_SAMPLES)
    num_samples *= finite[:, None]
    first_row = boxes[:, 0].long() * (input.shape[2] * input.shape[3])

    across, down = num_samples.long().unbind(dim=1)
    order, chunks = plan_chunks(down, 4 * across, output_size[0] * output_size[1])
    pooled = []
    for chosen in order.split(chunks):
        y, x, weight = _sample_positions(geometry[chosen], angle[chosen], num_samples[chosen], output_size)
        index, taps = _bilinear_taps(y, x, input.shape[2], input.shape[3])  # (r, PH, PW, G, 4)
        index = index + first_row[chosen].view(-1, 1, 1, 1, 1)
        weight = (taps * weight[:, None, None, :, None]).to(rows.dtype)
        pooled.append(sum_rows(rows, index.flatten(0, 2).flatten(1), weight.flatten(0, 2).flatten(1)))
    output: Tensor = torch.cat(pooled).unflatten(0, (-1, *output_size))  # (R, PH, PW, C), sorted by `order`
    output = output[torch.argsort(order)].permute(0, 3, 1, 2)
    return output.to(input.dtype, memory_format=torch.contiguous_format)


def _sample_positions(
    geometry: Tensor, angle: Tensor, num_samples: Tensor, output_size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Where the samples of each output cell lie in the feature map.

    Args:
        geometry: (r, 4) centre x, centre y, width, height in feature cells.
        angle: (r,) radians.
        num_samples: (r, 2) samples per output cell along width and height.
        output_size: (PH, PW).

    Returns:
        (r, PH, PW, G) rows and columns, and (r, G) weights, which are 0 for samples a box does not have.
    """
    center_x, center_y, width, height = geometry.unbind(dim=1)
    across, across_weight = _relative_positions(num_samples[:, 0], output_size[1])  # (r, PW, Gx), (r, Gx)
    down, down_weight = _relative_positions(num_samples[:, 1], output_size[0])  # (r, PH, Gy), (r, Gy)
    across = (across * width[:, None, None])[:, None, :, None, :]  # (r, 1, PW, 1, Gx)
    down = (down * height[:, None, None])[:, :, None, :, None]  # (r, PH, 1, Gy, 1)
    cos, sin, center_x, center_y = (
        v.view(-1, 1, 1, 1, 1) for v in (angle.cos(), angle.sin(), center_x, center_y)
    )
    y = down * cos - across * sin + center_y  # (r, PH, PW, Gy, Gx)
    x = down * sin + across * cos + center_x
    weight = down_weight[:, :, None] * across_weight[:, None, :]  # (r, Gy, Gx)
    return y.flatten(3), x.flatten(3), weight.flatten(1)


def _relative_positions(num_samples: Tensor, num_cells: int) -> tuple[Tensor, Tensor]:
    """Sample positions along one axis of a box that runs from -0.5 to 0.5.

    Args:
        num_samples: (r,) per output cell.
        num_cells: P.

    Returns:
        (r, P, G) positions and (r, G) weights.
    """
    most = int(num_samples.max()) if len(num_samples) else 0
    sample = torch.arange(max(most, 1), device=num_samples.device, dtype=num_samples.dtype)
    cell = torch.arange(num_cells, device=num_samples.device, dtype=num_samples.dtype)
    per_cell = num_samples.clamp(min=1)[:, None]
    in_cell = (sample + 0.5) / per_cell  # (r, G)
    position = (cell[:, None] + in_cell[:, None, :]) / num_cells - 0.5
    return position, (sample < num_samples[:, None]) / per_cell


def _bilinear_taps(y: Tensor, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The four cells around each position and their weights, with ROIAlign's rule at the border.

    Args:
        y: rows, any shape.
        x: columns, the same shape.

    Returns:
        (..., 4) int64 indices into the H*W cells, and (..., 4) weights, 0 for a position more than a cell
        outside.
    """
    is_used = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.floor(), x.floor()
    down, right = y - top, x - left
    weights = torch.stack(
        [(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right], dim=-1
    )
    row = torch.stack([top, top + 1], dim=-1).clamp(max=height - 1).long()  # (..., 2)
    column = torch.stack([left, left + 1], dim=-1).clamp(max=width - 1).long()
    index = (row * width)[..., :, None] + column[..., None, :]  # (..., 2, 2)
    return index.flatten(-2), weights * is_used[..., None]
