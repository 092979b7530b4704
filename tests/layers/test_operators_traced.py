"""The compiled operators under torch.compile and torch.export."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from .operator_cases import OPERATORS, gradients, make_inputs, needs_operators, nms


class Module(torch.nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def traced_functions() -> dict[str, tuple[Callable[..., Tensor], str]]:
    """Functions that use an operator between others, and whose inputs they take."""
    return {name: (lambda *inputs, f=op.call: f(*inputs) * 2, name) for name, op in OPERATORS.items()} | {
        "nms of a selection": (
            lambda boxes, scores: boxes[scores > 0.3][
                nms.nms(boxes[scores > 0.3], scores[scores > 0.3], 0.4)
            ],
            "nms",
        )
    }


@needs_operators
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", traced_functions())
def test_compiles_without_a_graph_break(name: str) -> None:
    function, inputs_of = traced_functions()[name]
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    inputs = make_inputs(inputs_of, "random", torch.float32)
    assert torch.equal(compiled(*inputs), function(*inputs))
    count = OPERATORS[inputs_of].num_differentiable
    if count:
        for actual, expected in zip(gradients(compiled, inputs, count), gradients(function, inputs, count)):
            torch.testing.assert_close(actual, expected)


@needs_operators
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", traced_functions())
def test_exports_with_any_number_of_rows(name: str) -> None:
    function, inputs_of = traced_functions()[name]
    inputs = make_inputs(inputs_of, "random", torch.float32)
    is_ragged = [len(tensor) == 60 for tensor in inputs]
    shapes = tuple({0: torch.export.Dim.AUTO} if ragged else {} for ragged in is_ragged)
    program = torch.export.export(Module(function), tuple(inputs), dynamic_shapes=(shapes,), strict=False)
    for rows in (60, 23):
        chosen = [t[:rows] if ragged else t for t, ragged in zip(inputs, is_ragged)]
        assert torch.equal(program.module()(*chosen), function(*chosen))
