"""Multi-scale deformable attention, compiled and plain: numbers, borders, levels, gradients, export."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2 import layers

from .operator_cases import INF, NAN, needs_operators, rand, randn

module = importlib.import_module("detectron2.layers.ms_deform_attn")


def make_levels(*sizes: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Sizes of levels, and where each begins if they follow one another."""
    shapes = torch.tensor(sizes)
    num_cells = shapes.prod(dim=1)
    return shapes, num_cells.cumsum(0) - num_cells


SHAPES, STARTS = make_levels((6, 4), (3, 5), (1, 2))


def make_inputs(channels: int = 4, points: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Value, locations on and around the levels, and weights: 2 images, 7 queries, 2 heads."""
    locations = rand(2, 7, 2, len(SHAPES), points, 2, seed=1) * 1.6 - 0.3
    weights = randn(2, 7, 2, len(SHAPES), points, seed=2)
    return randn(2, int(SHAPES.prod(dim=1).sum()), 2, channels), locations, weights


def attend_in_loops(value: Tensor, shapes: Tensor, starts: Tensor, where: Tensor, weights: Tensor) -> Tensor:
    """The definition, one number after the other, in NumPy."""
    v, w, xy = value.numpy(), weights.numpy(), where.numpy()
    num_images, num_queries, num_heads, num_levels, num_points = w.shape
    output = np.zeros((num_images, num_queries, num_heads, v.shape[3]))
    for n, q, m, level, p in np.ndindex(num_images, num_queries, num_heads, num_levels, num_points):
        height, width = shapes[level].tolist()
        x, y = xy[n, q, m, level, p] * [width, height] - 0.5
        if not (math.isfinite(x) and math.isfinite(y)):
            continue
        for i in range(height):
            for j in range(width):
                share = max(0.0, 1 - abs(y - i)) * max(0.0, 1 - abs(x - j))
                if share > 0:
                    cell = int(starts[level]) + i * width + j
                    output[n, q, m] += w[n, q, m, level, p] * share * v[n, cell, m]
    return torch.from_numpy(output).flatten(2)


def attend_by_grid_sample(value: Tensor, shapes: Tensor, where: Tensor, weights: Tensor) -> Tensor:
    """The same through torch's own sampling, level by level."""
    num_images, _, num_heads, channels = value.shape
    maps = value.split(shapes.prod(dim=1).tolist(), dim=1)
    total = torch.zeros((), dtype=value.dtype)
    for level, (height, width) in enumerate(shapes.tolist()):
        features = maps[level].permute(0, 2, 3, 1).reshape(num_images * num_heads, channels, height, width)
        grid = where[:, :, :, level].transpose(1, 2).flatten(0, 1) * 2 - 1  # (N*M, Q, P, 2)
        sampled = F.grid_sample(features, grid, align_corners=False)  # (N*M, D, Q, P)
        factors = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]  # (N*M, 1, Q, P)
        total = total + (sampled * factors).sum(dim=3)  # (N*M, D, Q)
    return total.unflatten(0, (num_images, num_heads)).permute(0, 3, 1, 2).flatten(2)


def gradients(output: Tensor, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(output, leaves, randn(*output.shape, seed=5).to(output))


# --- numbers


@pytest.mark.parametrize("channels", [1, 7, 8, 32, 43])
def test_is_what_its_definition_says_in_loops(operator_side: str, channels: int) -> None:
    value, where, weights = make_inputs(channels)
    output = layers.ms_deform_attn(value, SHAPES, STARTS, where, weights)
    expected = attend_in_loops(value, SHAPES, STARTS, where, weights)
    torch.testing.assert_close(output, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("channels", [1, 8, 43])
def test_values_and_gradients_are_those_of_grid_sample(operator_side: str, channels: int) -> None:
    leaves = [tensor.requires_grad_() for tensor in make_inputs(channels)]
    value, where, weights = leaves
    output = layers.ms_deform_attn(value, SHAPES, STARTS, where, weights)
    expected = attend_by_grid_sample(value, SHAPES, where, weights)
    torch.testing.assert_close(output, expected, atol=1e-12, rtol=0)
    for one, other in zip(gradients(output, leaves), gradients(expected, leaves)):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=0)


@pytest.mark.parametrize("points", [1, 4])
def test_gradients_match_finite_differences(operator_side: str, points: int) -> None:
    value, where, weights = make_inputs(channels=3, points=points)
    leaves = [tensor.requires_grad_() for tensor in (value[:1], where[:1, :2], weights[:1, :2])]
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    assert torch.autograd.gradcheck(
        lambda v, s, w: layers.ms_deform_attn(v, SHAPES, STARTS, s, w), leaves, check_batched_grad=False
    )


def test_numbers_worked_out_by_hand(operator_side: str) -> None:
    shapes, starts = make_levels((2, 2))
    value = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
    places = [[0.25, 0.25], [0.75, 0.25], [0.5, 0.5], [0.5, 0.25], [0.0, 0.0], [1.0, 1.0], [-0.25, 0.25]]
    where = torch.tensor(places).view(1, 7, 1, 1, 1, 2)
    output = layers.ms_deform_attn(value, shapes, starts, where, torch.full((1, 7, 1, 1, 1), 2.0))
    # Centres of two cells, the middle, between the upper two; corners see a quarter, a cell outside nothing.
    assert output.flatten().tolist() == [2.0, 4.0, 5.0, 3.0, 0.5, 2.0, 0.0]


def test_backward_by_itself_is_that_of_autograd(operator_side: str) -> None:
    value, where, weights = leaves = [tensor.requires_grad_() for tensor in make_inputs()]
    output = layers.ms_deform_attn(value, SHAPES, STARTS, where, weights)
    grad = randn(*output.shape, seed=5)
    for grad_mode in (torch.no_grad, torch.enable_grad):
        with grad_mode():
            found = module.ms_deform_attn_backward(grad, value, SHAPES, STARTS, where, weights)
        for one, other in zip(found, gradients(output, leaves)):
            torch.testing.assert_close(one, other)
            assert not one.requires_grad
        output = layers.ms_deform_attn(value, SHAPES, STARTS, where, weights)


# --- borders and levels


@pytest.mark.parametrize("bad", [NAN, INF, -INF, 1e30, -1e30, 3.5, -2.0])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_location_off_the_level_counts_as_nothing(operator_side: str, bad: float, axis: int) -> None:
    # Nothing of the level leaks into it either, wherever a kernel may look.
    value = torch.full((1, 4, 1, 2), INF, requires_grad=True)
    where = torch.full((1, 1, 1, 1, 1, 2), 0.5)
    where[..., axis] = bad
    where.requires_grad_()
    weights = torch.full((1, 1, 1, 1, 1), NAN, requires_grad=True)
    output = layers.ms_deform_attn(value, *make_levels((2, 2)), where, weights)
    assert output.tolist() == [[[0.0, 0.0]]]
    for grad in gradients(output, [value, where, weights]):
        assert grad.eq(0).all()


def test_cells_around_a_level_are_zeros_not_those_of_the_next(operator_side: str) -> None:
    value = torch.full((1, 6, 1, 1), INF)
    value[0, 1:3] = 1.0  # one level of 1 x 2, in the midst of what belongs to nobody
    where = torch.tensor([[0.0, 0.5], [1.0, 0.5], [0.5, 0.0], [0.5, 1.0]]).view(1, 4, 1, 1, 1, 2)
    shapes, starts = torch.tensor([[1, 2]]), torch.tensor([1])
    output = layers.ms_deform_attn(value, shapes, starts, where, torch.ones(1, 4, 1, 1, 1))
    assert output.flatten().tolist() == [0.5] * 4


def test_levels_may_lie_in_any_order_and_share_cells(operator_side: str) -> None:
    value, where, weights = make_inputs()
    leaves = [tensor.requires_grad_() for tensor in (value, where, weights)]
    # The second begins where the first does; with several threads both add to the same gradients.
    for starts in (torch.tensor([0, 0, 22]), torch.tensor([17, 0, 15])):
        output = layers.ms_deform_attn(value, SHAPES, starts, where, weights)
        expected = attend_in_loops(value.detach(), SHAPES, starts, where.detach(), weights.detach())
        torch.testing.assert_close(output, expected, atol=1e-12, rtol=0)
        apart = [value[:, start : start + h * w] for start, (h, w) in zip(starts.tolist(), SHAPES.tolist())]
        again = layers.ms_deform_attn(torch.cat(apart, dim=1), SHAPES, STARTS, where, weights)
        for one, other in zip(gradients(output, leaves), gradients(again, leaves)):
            torch.testing.assert_close(one, other, atol=1e-11, rtol=0)


def test_levels_that_share_cells_are_not_worked_on_at_once() -> None:
    side_length, starts = 8, torch.zeros(16, dtype=torch.int64)
    shapes = torch.full((16, 2), side_length)
    value = torch.ones(1, side_length**2, 1, 32, requires_grad=True)
    where = rand(1, 2000, 1, 16, 4, 2).float()
    before, grads = torch.get_num_threads(), []
    try:
        for num_threads in (1, 8, 8, 8):
            torch.set_num_threads(num_threads)
            output = layers.ms_deform_attn(value, shapes, starts, where, torch.ones(1, 2000, 1, 16, 4))
            grads.append(torch.autograd.grad(output.sum(), value)[0])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(grads[0], other) for other in grads[1:])


@pytest.mark.parametrize("empty", ["images", "queries", "points", "levels", "channels", "cells", "heads"])
def test_nothing_in_gives_nothing_or_zeros_out(operator_side: str, empty: str) -> None:
    n, q, m, d, p = (
        0 if empty == name else 2 for name in ("images", "queries", "heads", "channels", "points")
    )
    shapes, starts = (SHAPES[:0], STARTS[:0]) if empty == "levels" else make_levels((3, 2), (0, 4))
    if empty == "cells":
        shapes, starts = torch.tensor([[0, 5], [3, 0]]), torch.tensor([0, 0])
    num_cells = 0 if empty == "cells" else 6
    value = torch.ones(n, num_cells, m, d, requires_grad=True)
    where = torch.full((n, q, m, len(shapes), p, 2), 0.5, requires_grad=True)
    weights = torch.ones(n, q, m, len(shapes), p, requires_grad=True)
    output = layers.ms_deform_attn(value, shapes, starts, where, weights)
    assert output.shape == (n, q, m * d)
    assert output.eq(0).all()
    for leaf, grad in zip((value, where, weights), gradients(output, [value, where, weights])):
        assert grad.shape == leaf.shape and grad.eq(0).all()


def test_level_tensors_may_be_int32(operator_side: str) -> None:
    value, where, weights = make_inputs()
    short = layers.ms_deform_attn(value, SHAPES.int(), STARTS.int(), where, weights)
    assert torch.equal(short, layers.ms_deform_attn(value, SHAPES, STARTS, where, weights))


@needs_operators
def test_indices_are_safe_beyond_two_to_the_31() -> None:
    """The last cell of a level lies beyond 2**31; pages of zeros that nobody reads take no memory."""
    height, width = 65537, 32769
    value = torch.from_numpy(np.zeros(height * width, dtype=np.float32)).view(1, -1, 1, 1)
    value[0, -1], value[0, 0] = 3.0, 5.0
    where = torch.tensor([[(width - 0.5) / width, (height - 0.5) / height], [0.5 / width, 0.5 / height]])
    output = layers.ms_deform_attn(
        value, *make_levels((height, width)), where.view(1, 2, 1, 1, 1, 2), torch.ones(1, 2, 1, 1, 1)
    )
    torch.testing.assert_close(output.flatten(), torch.tensor([3.0, 5.0]), atol=0.05, rtol=0)


# --- errors


def test_shapes_that_do_not_fit_are_refused_in_a_sentence(operator_side: str) -> None:
    value, where, weights = make_inputs()
    good = (value, SHAPES, STARTS, where, weights)
    wrong: list[tuple[int, Tensor, str]] = [
        (0, value[0], r"value of shape \(N, S, M, D\), got \(41, 2, 4\)"),
        (0, value[:, :40], "level 2 of 1 x 2 cells from cell 39 on does not fit into a value of 40 cells"),
        (1, SHAPES[0], r"spatial_shapes of shape \(L, 2\)"),
        (1, -SHAPES, "does not fit"),
        (2, STARTS[:2], r"level_start_index of shape \(3,\), got \(2,\)"),
        (2, STARTS - 1, "level 0 of 6 x 4 cells from cell -1"),
        (3, where[..., :1], r"sampling_locations of shape \(2, Q, 2, 3, P, 2\)"),
        (3, where[:, :, :1], r"got \(2, 7, 1, 3, 3, 2\)"),
        (4, weights[..., :2], r"attention_weights of shape \(2, 7, 2, 3, 3\), got \(2, 7, 2, 3, 2\)"),
    ]
    for position, tensor, message in wrong:
        arguments = [*good[:position], tensor, *good[position + 1 :]]
        with pytest.raises(ValueError, match=message):
            layers.ms_deform_attn(*arguments)
        with pytest.raises(ValueError, match=message):
            module.ms_deform_attn_backward(torch.zeros(2, 7, 8), *arguments)
    with pytest.raises(ValueError, match=r"grad_output of shape \(2, 7, 8\), got \(2, 7, 9\)"):
        module.ms_deform_attn_backward(torch.zeros(2, 7, 9), *good)


# --- where the operator is not there


OLDER_LIBRARY = """
import torch

library = torch.library.Library("detectron2", "DEF")  # of all operators it has one
library.define("nms(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")
library.impl("nms", lambda boxes, scores, iou_threshold: torch.arange(len(boxes)), "CPU")
torch.ops.load_library = lambda path: None  # it takes the place of what was built

from detectron2 import layers
from detectron2.layers import extension

cpu = torch.device("cpu")
assert not extension.missing_reason()
assert extension.find_operator("nms", cpu) and not extension.find_operator("ms_deform_attn", cpu)
assert layers.nms(torch.zeros(3, 4), torch.zeros(3), 0.5).tolist() == [0, 1, 2]
value = torch.ones(1, 4, 1, 2, requires_grad=True)
where, weights = torch.full((1, 1, 1, 1, 1, 2), 0.5), torch.ones(1, 1, 1, 1, 1)
output = layers.ms_deform_attn(value, torch.tensor([[2, 2]]), torch.tensor([0]), where, weights)
output.sum().backward()
assert output.tolist() == [[[1.0, 1.0]]] and value.grad.eq(0.25).all()
"""


@needs_operators
def test_a_library_of_older_sources_lacks_this_operator_alone() -> None:
    code = [sys.executable, "-W", "error", "-c", OLDER_LIBRARY]
    env = {**os.environ, "D2_DISABLE_OPS": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(code, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


# --- the plain form elsewhere


class Attention(nn.Module):
    def forward(
        self, value: Tensor, shapes: Tensor, starts: Tensor, where: Tensor, weights: Tensor
    ) -> Tensor:
        return layers.ms_deform_attn(value, shapes, starts, where, weights) + 1


def float_inputs(num_queries: int = 7) -> tuple[Tensor, ...]:
    value, where, weights = (tensor.float() for tensor in make_inputs())
    return value, SHAPES, STARTS, where[:, :num_queries], weights[:, :num_queries]


def test_exports_with_any_number_of_queries_and_other_levels(operator_side: str) -> None:
    rows = torch.export.Dim.DYNAMIC
    dynamic = ({1: rows}, None, None, {1: rows}, {1: rows})
    program = torch.export.export(Attention(), float_inputs(), dynamic_shapes=dynamic, strict=False).module()
    for num_queries in (7, 3):
        inputs = float_inputs(num_queries)
        torch.testing.assert_close(program(*inputs), Attention()(*inputs))
    value, _, _, where, weights = float_inputs()
    other = (value[:, :20], *make_levels((2, 4), (3, 3), (1, 3)), where, weights)
    torch.testing.assert_close(program(*other), Attention()(*other))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_trace_is_right_for_other_sizes_too(operator_side: str) -> None:
    traced = torch.jit.trace(Attention(), float_inputs())
    value, _, _, where, weights = float_inputs(num_queries=4)
    for levels in ((SHAPES, STARTS), make_levels((2, 4), (3, 3), (1, 3))):
        torch.testing.assert_close(
            traced(value, *levels, where, weights), Attention()(value, *levels, where, weights)
        )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiles_without_a_graph_break_and_trains(operator_side: str) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(Attention(), fullgraph=True, backend="aot_eager")
    results = []
    for function in (compiled, Attention()):
        inputs = [t.clone().requires_grad_(t.is_floating_point()) for t in float_inputs()]
        output = function(*inputs)
        results.append([output, *gradients(output, [t for t in inputs if t.is_floating_point()])])
    torch._dynamo.reset()
    for one, other in zip(*results):
        torch.testing.assert_close(one, other)


def test_half_precision_is_summed_in_float32(operator_side: str) -> None:
    value, where, weights = make_inputs(channels=8)
    for dtype in (torch.float16, torch.bfloat16):
        halves = [tensor.to(dtype) for tensor in (value, where, weights)]
        output = layers.ms_deform_attn(halves[0], SHAPES, STARTS, *halves[1:])
        floats = [half.float() for half in halves]
        exact = layers.ms_deform_attn(floats[0], SHAPES, STARTS, *floats[1:])
        assert output.dtype == dtype
        assert torch.equal(output, exact.to(dtype))


@needs_operators
@pytest.mark.gpu
def test_gpu_levels_that_do_not_fit_give_nan_and_no_gradient() -> None:
    value, _, _, where, weights = (tensor.cuda() for tensor in float_inputs())
    value.requires_grad_()
    starts = STARTS.cuda() + 30
    output = layers.ms_deform_attn(value, SHAPES.cuda(), starts, where, weights)
    assert output.isnan().all()
    (grad,) = torch.autograd.grad(output.sum(), value)
    assert grad.isfinite().all()
