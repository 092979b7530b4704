"""ROIAlign: average-pool bilinear samples of a feature map within boxes.

Shapes: N images, C channels, H rows, W columns, R boxes over all images, PH x PW output cells per box.
Boxes are XYXY in input-image pixels, with the image's index in front: (R, 5).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .extension import differentiate, fake_kernel, find_operator, needs_determinism
from .roi_sampling import check_roi_inputs, plan_chunks, sum_rows, to_rows
from .wrappers import disable_torch_compiler

# Of an adaptive output cell along an axis: float32 cannot count further.
_MAX_SAMPLES = 1 << 24


def roi_align(
    input: Tensor,
    boxes: Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Pool the features inside each box into a grid of fixed size.

    Every output cell is the mean of bilinear samples on a regular grid inside it. A sample more than one cell
    outside the map is 0; one nearer takes the value at the border. Gradients flow to `input` alone. On CUDA
    they are summed in no fixed order; under `torch.use_deterministic_algorithms` plain PyTorch computes them.

    Args:
        input: (N, C, H, W) features.
        boxes: (R, 5): image index, x1, y1, x2, y2 in input-image pixels.
        output_size: (PH, PW), or one number for both.
        spatial_scale: feature cells per input-image pixel.
        sampling_ratio: samples per output cell and axis; 0 or less for one per feature cell covered, rounded
            up.
        aligned: feature cell (i, j) has its centre at (i + 0.5, j + 0.5). False is the first published
            operator: half a cell off, and boxes are at least one cell wide and high.

    Returns:
        (R, C, PH, PW) in the dtype of `input`; half precision is accumulated in float32.
    """
    size = (output_size, output_size) if isinstance(output_size, int) else output_size
    check_roi_inputs(input, boxes, box_dim=5)
    operator = find_operator("roi_align", input.device)
    if operator is not None and not needs_determinism(input):
        pooled: Tensor = operator(input, boxes, spatial_scale, size[0], size[1], sampling_ratio, aligned)
        return pooled
    return _roi_align_reference(input, boxes, size, spatial_scale, sampling_ratio, aligned)


@fake_kernel("roi_align")
def _(
    input: Tensor,
    boxes: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    torch._check(input.ndim == 4, lambda: f"input: {tuple(input.shape)}")
    torch._check(boxes.ndim == 2 and boxes.shape[1] == 5, lambda: f"boxes: {tuple(boxes.shape)}")
    return input.new_empty(boxes.shape[0], input.shape[1], pooled_height, pooled_width)


@fake_kernel("roi_align_backward")
def _(
    grad: Tensor,
    boxes: Tensor,
    spatial_scale: float,
    batch_size: int,
    channels: int,
    height: int,
    width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    return grad.new_empty(batch_size, channels, height, width)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, boxes, ctx.spatial_scale, _, _, ctx.sampling_ratio, ctx.aligned = inputs
    ctx.save_for_backward(boxes)
    ctx.input_shape = input.shape


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (boxes,) = ctx.saved_tensors
    settings = (ctx.sampling_ratio, ctx.aligned)
    grad_input = torch.ops.detectron2.roi_align_backward(
        grad, boxes, ctx.spatial_scale, *ctx.input_shape, *settings
    )
    return grad_input, None, None, None, None, None, None


differentiate("roi_align", _backward, _save_for_backward)


class ROIAlign(nn.Module):
    """Module form of `roi_align`, with its settings.

    Args:
        output_size: (PH, PW).
        spatial_scale: feature cells per input-image pixel.
        sampling_ratio: samples per output cell and axis; 0 for one per feature cell covered.
        aligned: whether pixel centres lie at half-integers, which shifts boxes by half a cell.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = True,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """(N, C, H, W) features, (R, 5) boxes with image index -> (R, C, PH, PW)."""
        return roi_align(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )


class _Axis(NamedTuple):
    """The samples of R boxes along one axis, in feature cells."""

    start: Tensor  # (R,) first edge of the box
    cell_size: Tensor  # (R,) extent of an output cell
    num_samples: Tensor  # (R,) int64, per output cell; 0 for a box that pools nothing
    num_cells: int  # P
    map_size: int  # S, the size of the feature map

    def select(self, chosen: Tensor) -> _Axis:
        return self._replace(
            start=self.start[chosen], cell_size=self.cell_size[chosen], num_samples=self.num_samples[chosen]
        )

    def step(self) -> Tensor:
        """(R,) distance of neighbouring samples."""
        return self.cell_size / self.num_samples.clamp(min=1)

    def num_candidates(self) -> Tensor:
        """(R,) int64 upper bound of the samples of one output cell that can lie on the feature map."""
        on_map = (self.map_size + 1) / self.step().clamp(min=1e-6) + 4
        return torch.minimum(self.num_samples, on_map.long())

    def extent(self) -> Tensor:
        """(R,) int64 upper bound of what an output cell needs in index tables: feature cells, or samples."""
        touched = (self.cell_size.ceil().clamp(0, self.map_size) + 2).long()
        return torch.maximum(touched, self.num_candidates())


@disable_torch_compiler
def _roi_align_reference(
    input: Tensor,
    boxes: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Bilinear weights are products of one weight per axis, and so are their means over a grid of samples.

    An output cell is hence a weighted sum over a rectangle of feature cells, whose weights are an outer
    product.
    """
    height, width = input.shape[2:]
    rows = to_rows(input)
    edges = boxes[:, 1:].detach().to(rows.dtype) * spatial_scale - (0.5 if aligned else 0.0)
    x1, y1, x2, y2 = edges.unbind(dim=1)
    y_axis = _make_axis(y1, y2, output_size[0], height, sampling_ratio, aligned)
    x_axis = _make_axis(x1, x2, output_size[1], width, sampling_ratio, aligned)
    first_row = boxes[:, 0].long() * (height * width)

    order, chunks = plan_chunks(y_axis.extent(), x_axis.extent(), output_size[0] * output_size[1])
    pooled = []
    for chosen in order.split(chunks):
        y_index, y_weight = _axis_weights(y_axis.select(chosen))  # (r, PH, Ky)
        x_index, x_weight = _axis_weights(x_axis.select(chosen))  # (r, PW, Kx)
        row_index = first_row[chosen][:, None, None] + y_index * width
        index = row_index[:, :, None, :, None] + x_index[:, None, :, None, :]  # (r, PH, PW, Ky, Kx)
        weight = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]
        pooled.append(sum_rows(rows, index.flatten(0, 2).flatten(1), weight.flatten(0, 2).flatten(1)))
    output: Tensor = torch.cat(pooled).unflatten(0, (-1, *output_size))  # (R, PH, PW, C), sorted by `order`
    output = output[torch.argsort(order)].permute(0, 3, 1, 2)
    return output.to(input.dtype, memory_format=torch.contiguous_format)


def _make_axis(
    start: Tensor, end: Tensor, num_cells: int, map_size: int, sampling_ratio: int, aligned: bool
) -> _Axis:
    extent = end - start if aligned else (end - start).clamp(min=1)
    # A box without finite edges pools nothing.
    finite = torch.isfinite(start) & torch.isfinite(extent)
    start, extent = start.where(finite, 0), extent.where(finite, 0)
    cell_size = extent / num_cells
    if sampling_ratio > 0:
        num_samples = torch.full_like(start, sampling_ratio, dtype=torch.int64)
    else:
        num_samples = cell_size.ceil().clamp(0, _MAX_SAMPLES).long()
    return _Axis(start, cell_size, num_samples * finite, num_cells, map_size)


def _axis_weights(axis: _Axis) -> tuple[Tensor, Tensor]:
    """Which feature cells each output cell averages along an axis, and with which weights.

    Returns:
        (r, P, K) cell indices in [0, S) and (r, P, K) weights; K is the largest number of cells touched.
    """
    step = axis.step()[:, None]  # (r, 1)
    num_samples = axis.num_samples[:, None]
    cell = torch.arange(axis.num_cells, device=step.device)
    cell_start = axis.start[:, None] + cell * axis.cell_size[:, None]  # (r, P)
    # A huge box has more samples than any table holds: begin with the last one before the map.
    skipped = torch.where(step > 0, (-1 - cell_start) / step - 2, 0).clamp(0, _MAX_SAMPLES).long()
    most = int(axis.num_candidates().max()) if len(step) else 0
    sample = skipped[:, :, None] + torch.arange(max(most, 1), device=step.device)  # (r, P, G)
    position = cell_start[:, :, None] + (sample + 0.5) * step[:, :, None]

    is_used = (position >= -1) & (position <= axis.map_size) & (sample < num_samples[:, :, None])
    sample_weight = is_used / num_samples.clamp(min=1).to(position.dtype)[:, :, None]
    position = position.clamp(0, axis.map_size - 1)
    low = position.floor()
    high_weight = (position - low) * sample_weight

    low = low.long()
    first = low.where(is_used, axis.map_size - 1).amin(dim=2, keepdim=True)  # (r, P, 1)
    slot = (low - first) * is_used
    size = int(slot.max()) + 2 if slot.numel() else 1
    weight = high_weight.new_zeros(*slot.shape[:2], size)
    weight.scatter_add_(2, slot, sample_weight - high_weight)
    weight.scatter_add_(2, slot + 1, high_weight)
    # Beyond the border weights are 0, and any cell will do.
    index = (first + torch.arange(size, device=step.device)).clamp(max=axis.map_size - 1)
    return index, weight
