"""What the package's compiled operators are in ONNX.

ONNX has NonMaxSuppression and RoiAlign; the functions here say, in ONNX operators, how to get from our
arguments to theirs. They are for `custom_translation_table` of `torch.onnx.export`. What ONNX has no operator
for is replaced by its plain PyTorch form before.

Shapes: R boxes, K boxes kept, G groups. Boxes are XYXY.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.export import ExportedProgram

from detectron2.layers.ms_deform_attn_reference import ms_deform_attn_reference

# Of the operators below, RoiAlign with half-pixel centres is the youngest (16); torch's exporter writes 18.
STABLE_ONNX_OPSET_VERSION = 18


def replace_operators(program: ExportedProgram) -> ExportedProgram:
    """Put the plain PyTorch form where a program uses a compiled operator that has no translation.

    `torch.onnx.export` of a module does that by itself; a program that was exported before needs it.
    """
    operator = getattr(torch.ops.detectron2, "ms_deform_attn", None)
    if operator is None or all(node.target != operator.default for node in program.graph.nodes):
        return program
    replaced: ExportedProgram = program.run_decompositions({operator.default: ms_deform_attn_reference})
    return replaced


def make_translation_table() -> dict[Any, Callable[..., Any]]:
    """Make the table of our operators; needs the package `onnxscript` and the compiled operators.

    The parts stand inside because they are written in `op`, which exists only once onnxscript is imported.
    """
    import onnxscript

    op: Any = onnxscript.opset18  # records what it is called with

    def keep_best_first(selected: Any, scores: Any) -> Any:
        """(K, 3) batch, group and box of ONNX -> (K,) boxes, best first, equal ones by index, as ours."""
        rows = op.Gather(selected, op.Constant(value_int=2), axis=1)
        ones = op.Expand(op.Constant(value_float=1.0), op.Shape(rows))
        nothing = op.Expand(op.Constant(value_float=0.0), op.Shape(scores))
        is_kept = op.ScatterElements(nothing, rows, ones, axis=0)
        ascending = op.Squeeze(op.NonZero(is_kept), op.Constant(value_ints=[0]))
        # Where values are equal, TopK puts the lower index first.
        _, order = op.TopK(op.Gather(scores, ascending), op.Shape(ascending))
        return op.Gather(ascending, order)

    def suppress(boxes: Any, scores_per_group: Any, iou_threshold: float) -> Any:
        """(R, 4) boxes and (G, R) scores, -inf outside the group -> (K, 3)."""
        first = op.Constant(value_ints=[0])
        return op.NonMaxSuppression(
            op.Unsqueeze(boxes, first),
            op.Unsqueeze(scores_per_group, first),
            op.Shape(boxes, start=0, end=1),
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[_LOWEST]),
        )

    def nms(boxes: Any, scores: Any, iou_threshold: float) -> Any:
        scores_per_group = op.Unsqueeze(scores, op.Constant(value_ints=[0]))
        return keep_best_first(suppress(boxes, scores_per_group, iou_threshold), scores)

    def batched_nms(boxes: Any, scores: Any, idxs: Any, iou_threshold: float) -> Any:
        # One row of scores per group. The zero in front keeps the maximum defined where there are no boxes.
        zero = op.Constant(value_ints=[0])
        num_groups = op.Add(op.ReduceMax(op.Concat(zero, idxs, axis=0), keepdims=0), op.Constant(value_int=1))
        groups = op.Range(op.Constant(value_int=0), num_groups, op.Constant(value_int=1))
        is_member = op.Equal(op.Unsqueeze(groups, op.Constant(value_ints=[1])), op.Unsqueeze(idxs, zero))
        scores_per_group = op.Where(
            is_member, op.Unsqueeze(scores, zero), op.Constant(value_float=-float("inf"))
        )
        return keep_best_first(suppress(boxes, scores_per_group, iou_threshold), scores)

    def roi_align(
        input: Any,
        boxes: Any,
        spatial_scale: float,
        pooled_height: int,
        pooled_width: int,
        sampling_ratio: int,
        aligned: bool,
    ) -> Any:
        image_index = op.Gather(boxes, op.Constant(value_int=0), axis=1)
        corners = op.Gather(boxes, op.Constant(value_ints=[1, 2, 3, 4]), axis=1)
        return op.RoiAlign(
            input,
            corners,
            op.Cast(image_index, to=_INT64),
            coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
            mode="avg",
            output_height=pooled_height,
            output_width=pooled_width,
            sampling_ratio=max(sampling_ratio, 0),
            spatial_scale=spatial_scale,
        )

    operators = torch.ops.detectron2
    return {
        operators.nms.default: nms,
        operators.batched_nms.default: batched_nms,
        operators.roi_align.default: roi_align,
    }


_LOWEST = torch.finfo(torch.float32).min  # the score of a box has to be greater
_INT64 = 7  # TensorProto.INT64
