"""Thin layers over torch: convolution with norm and activation, and functions that accept empty inputs.

Shapes: N images (may be 0), C channels, H rows, W columns.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .tracing import constant

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

Linear = nn.Linear
ConvTranspose2d = nn.ConvTranspose2d
interpolate = F.interpolate


def shapes_to_tensor(x: Sequence[int | Tensor], device: torch.device | None = None) -> Tensor:
    """Make a 1-D integer tensor of sizes, which stay symbolic where a tracer made them 0-d tensors."""
    if not any(isinstance(size, Tensor) for size in x):
        return constant([*x], device=device)  # type: ignore[list-item]  # numbers all of them
    sizes = [size if isinstance(size, Tensor) else constant([size])[0] for size in x]
    return torch.stack([size.to(device) for size in sizes])


def check_if_dynamo_compiling() -> bool:
    """Tell whether torch.compile is tracing this very call."""
    return torch.compiler.is_dynamo_compiling()


def disable_torch_compiler(func: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Keep torch.compile out of `func`; unlike torch.compiler.disable, decorating loads no compiler."""

    @functools.wraps(func)
    def run_eagerly(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        if not check_if_dynamo_compiling():
            return func(*args, **kwargs)
        hidden: Callable[_Arguments, _Result] = torch.compiler.disable(func)
        return hidden(*args, **kwargs)

    return run_eagerly


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """torch.cat that returns the tensor itself, without a copy, where there is only one."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tuple(tensors), dim)


def empty_input_loss_func_wrapper(loss_func: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make a mean-reduced loss of nothing zero, with a gradient path, where torch returns NaN."""

    @functools.wraps(loss_func)
    def loss_or_zero(input: Tensor, target: Tensor, *, reduction: str = "mean", **kwargs: Any) -> Tensor:
        if reduction == "mean" and target.numel() == 0:
            return 0.0 * input.sum()
        return loss_func(input, target, reduction=reduction, **kwargs)

    return loss_or_zero


cross_entropy = empty_input_loss_func_wrapper(F.cross_entropy)


class Conv2d(nn.Conv2d):
    """2-D convolution, then an optional norm, then an optional activation.

    Args:
        norm: module for the output, stored as `norm` (a checkpoint name), or None.
        activation: function or module for the normalised output, or None.

    Everything else goes to `torch.nn.Conv2d`.
    """

    def __init__(
        self,
        *args: Any,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        y = super().forward(x)
        if self.norm is not None:
            y = self.norm(y)
        return y if self.activation is None else self.activation(y)


class BatchNorm2d(nn.BatchNorm2d):
    """torch.nn.BatchNorm2d that trains on empty batches, too: nothing out, zero gradients, no update."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or input.numel() > 0:
            return super().forward(input)
        # The parameters take part, so that they get gradients like on other workers.
        for parameter in self.parameters(recurse=False):
            input = input + parameter.sum()
        return input


def smaller_size(size: int, limit: int) -> int:
    """Return the smaller of a size and a limit.

    The size may be a symbol (of torch.export) or a 0-d tensor (of torch.jit.trace); so is the result then.
    """
    if isinstance(size, Tensor):
        return size.clamp(max=limit)
    if isinstance(size, torch.SymInt) or isinstance(limit, torch.SymInt):
        return torch.sym_min(size, limit)
    return min(size, limit)


def nonzero_tuple(x: Tensor) -> tuple[Tensor, ...]:
    """Return one int64 index tensor per dimension; a 0-d tensor counts as one-dimensional."""
    at_least_1d: Tensor = torch.atleast_1d(x)
    return at_least_1d.nonzero(as_tuple=True)


def move_device_like(src: Tensor, dst: Tensor) -> Tensor:
    """Return `src` on the device of `dst`."""
    return src.to(dst.device)
