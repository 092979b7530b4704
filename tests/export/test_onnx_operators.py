"""The ONNX forms of our operators compute what the operators compute."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from detectron2.export.onnx_operators import (
    STABLE_ONNX_OPSET_VERSION,
    make_translation_table,
    replace_operators,
)
from detectron2.layers import batched_nms, ms_deform_attn, nms, roi_align
from detectron2.layers.extension import missing_reason

MISSING = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.skipif(bool(missing_reason()), reason=missing_reason() or "-"),
    pytest.mark.skipif(bool(MISSING), reason=f"the optional packages {', '.join(MISSING)} are not installed"),
    # torch's exporter itself uses what torch deprecates.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
]


class Suppress(nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor, idxs: Tensor) -> tuple[Tensor, Tensor]:
        return nms(boxes, scores, 0.5), batched_nms(boxes, scores, idxs, 0.3)


class Pool(nn.Module):
    def forward(self, features: Tensor, boxes: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            roi_align(features, boxes, (3, 2), 0.5, ratio, aligned)
            for ratio in (0, 2)
            for aligned in (False, True)
        )


class Attend(nn.Module):
    def forward(self, value: Tensor, sizes: Tensor, starts: Tensor, where: Tensor, weights: Tensor) -> Tensor:
        return ms_deform_attn(value, sizes, starts, where, weights)


def make_runner(
    module: nn.Module, inputs: dict[str, Tensor], dynamic: dict[str, int], folder: Path, in_steps: bool = True
) -> Callable[..., list[Tensor]]:
    """Write a module as ONNX, with a dynamic dimension for some inputs; by way of a program, or at once."""
    import onnxruntime

    shapes = tuple({dynamic[name]: torch.export.Dim.DYNAMIC} if name in dynamic else None for name in inputs)
    example = tuple(inputs.values())
    if in_steps:
        program = torch.export.export(module, example, dynamic_shapes=shapes, strict=False)
    torch.onnx.export(
        replace_operators(program) if in_steps else module,
        () if in_steps else example,
        f=folder / "operators.onnx",
        dynamic_shapes=None if in_steps else shapes,
        dynamo=True,
        input_names=list(inputs),
        opset_version=STABLE_ONNX_OPSET_VERSION,
        custom_translation_table=make_translation_table(),
        verbose=False,
    )
    session = onnxruntime.InferenceSession(folder / "operators.onnx", providers=["CPUExecutionProvider"])

    def run(*values: Tensor) -> list[Tensor]:
        feed = {name: value.numpy() for name, value in zip(inputs, values)}
        return [torch.from_numpy(value) for value in session.run(None, feed)]

    return run


def make_boxes(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    corner, size = torch.rand(2, count, 2, generator=generator) * 20
    return torch.cat((corner, corner + size), dim=1)


def test_suppression_keeps_the_same_boxes_in_the_same_order(tmp_path: Path) -> None:
    def make_inputs(count: int) -> tuple[Tensor, Tensor, Tensor]:
        # Few distinct scores, negative ones too: many ties.
        scores = (torch.rand(count, generator=torch.Generator().manual_seed(1)) * 12).floor() - 6
        return make_boxes(count), scores, torch.arange(count) * 7 % 5

    names = ("boxes", "scores", "idxs")
    run = make_runner(Suppress(), dict(zip(names, make_inputs(20))), dict.fromkeys(names, 0), tmp_path)
    for count in (0, 1, 2, 33, 400):
        inputs = make_inputs(count)
        expected = Suppress()(*inputs)
        assert [x.tolist() for x in run(*inputs)] == [x.tolist() for x in expected]
        assert count < 33 or max(len(x) for x in expected) < count


def test_roi_align_pools_the_same(tmp_path: Path) -> None:
    features = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(0))

    def make_rois(count: int) -> Tensor:
        return torch.cat((torch.arange(count)[:, None] % 2, make_boxes(count) - 3), dim=1)

    run = make_runner(Pool(), {"features": features, "boxes": make_rois(5)}, {"boxes": 0}, tmp_path)
    for count in (0, 1, 12):
        rois = make_rois(count)
        for actual, expected in zip(run(features, rois), Pool()(features, rois)):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("in_steps", [True, False])
def test_attention_sees_the_same_at_other_levels(in_steps: bool, tmp_path: Path) -> None:
    def make_inputs(num_queries: int, *levels: tuple[int, int]) -> list[Tensor]:
        generator = torch.Generator().manual_seed(num_queries)
        sizes = torch.tensor(levels)
        num_cells = sizes.prod(dim=1)
        value = torch.randn(2, int(num_cells.sum()), 3, 4, generator=generator)
        where = torch.rand(2, num_queries, 3, 2, 2, 2, generator=generator) * 1.6 - 0.3
        where[0, 0, 0, 0, 0, 0] = float("nan")
        weights = torch.rand(2, num_queries, 3, 2, 2, generator=generator)
        return [value, sizes, num_cells.cumsum(0) - num_cells, where, weights]

    names = ("value", "sizes", "starts", "where", "weights")
    example = dict(zip(names, make_inputs(7, (4, 5), (2, 3))))
    run = make_runner(Attend().eval(), example, {"value": 1, "where": 1, "weights": 1}, tmp_path, in_steps)
    for inputs in (
        make_inputs(7, (4, 5), (2, 3)),
        make_inputs(20, (6, 3), (3, 1)),
        make_inputs(1, (1, 1), (1, 2)),
    ):
        torch.testing.assert_close(run(*inputs)[0], Attend()(*inputs), rtol=1e-5, atol=1e-5)
