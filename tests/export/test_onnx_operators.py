"""The ONNX forms of our operators compute what the operators compute."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from detectron2.export.onnx_operators import STABLE_ONNX_OPSET_VERSION, make_translation_table
from detectron2.layers import batched_nms, nms, roi_align
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


def make_runner(
    module: nn.Module, inputs: dict[str, Tensor], dynamic: set[str], folder: Path
) -> Callable[..., list[Tensor]]:
    import onnxruntime

    rows = torch.export.Dim.DYNAMIC
    shapes = tuple({0: rows} if name in dynamic else None for name in inputs)
    program = torch.export.export(module, tuple(inputs.values()), dynamic_shapes=shapes, strict=False)
    torch.onnx.export(
        program,
        f=folder / "operators.onnx",
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
    run = make_runner(Suppress(), dict(zip(names, make_inputs(20))), set(names), tmp_path)
    for count in (0, 1, 2, 33, 400):
        inputs = make_inputs(count)
        expected = Suppress()(*inputs)
        assert [x.tolist() for x in run(*inputs)] == [x.tolist() for x in expected]
        assert count < 33 or max(len(x) for x in expected) < count


def test_roi_align_pools_the_same(tmp_path: Path) -> None:
    features = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(0))

    def make_rois(count: int) -> Tensor:
        return torch.cat((torch.arange(count)[:, None] % 2, make_boxes(count) - 3), dim=1)

    run = make_runner(Pool(), {"features": features, "boxes": make_rois(5)}, {"boxes"}, tmp_path)
    for count in (0, 1, 12):
        rois = make_rois(count)
        for actual, expected in zip(run(features, rois), Pool()(features, rois)):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
