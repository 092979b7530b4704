"""Count floating point operations, activations and parameters of models, with fvcore's rules.

A FLOP here is a multiply-add, as in most papers. Operators without a rule (element-wise ones, NMS, ROIAlign,
pasting of masks, deformable convolution) count as nothing.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from detectron2.export.flatten import TracingAdapter
from detectron2.utils.user_errors import UserValueError

with warnings.catch_warnings():
    # fvcore.nn compiles a loss function with torch.jit.script when it is imported, and torch warns.
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    import fvcore.nn as fvcore_nn
    from fvcore.nn import parameter_count as parameter_count
    from fvcore.nn import parameter_count_table as parameter_count_table

FLOPS_MODE = "flops"
ACTIVATIONS_MODE = "activations"

# Operators that a detector uses and that are not worth a warning.
_IGNORED_OPS = {
    f"aten::{name}"
    for name in """
    add add_ all argsort clamp clone constant_pad_nd cos div div_ exp exp_ isfinite log2 max_pool2d maximum
    meshgrid minimum mul mul_ nonzero_numpy pad repeat roll rsqrt rsub sigmoid sigmoid_ sin softmax sort sqrt
    sub sum topk unflatten
    """.split()
} | {
    f"detectron2::{name}"
    for name in """
    batched_nms batched_nms_rotated deform_conv nms nms_rotated paste_masks paste_masks_rle roi_align
    roi_align_rotated
    """.split()
}


class FlopCountAnalysis(fvcore_nn.FlopCountAnalysis):  # type: ignore[misc]  # fvcore has no types
    """fvcore's `FlopCountAnalysis` for models whose inputs and outputs are dicts and `Instances`."""

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        """
        Args:
            model: any model, in the mode to be counted.
            inputs: its argument, or a tuple of its arguments; for a detector a list of dicts.
        """
        adapter = TracingAdapter(model, inputs, allow_non_tensor=True)
        super().__init__(adapter, adapter.flattened_inputs)
        self.set_op_handle(**dict.fromkeys(_IGNORED_OPS))

    def _analyze(self) -> Any:
        with _tracer_warnings_off():
            return super()._analyze()


class _ActivationCountAnalysis(fvcore_nn.ActivationCountAnalysis):  # type: ignore[misc]  # fvcore has no types
    def _analyze(self) -> Any:
        with _tracer_warnings_off():
            return super()._analyze()


def flop_count_operators(model: nn.Module, inputs: list[Any]) -> defaultdict[str, float]:
    """Count the GFLOPs of inference, by operator.

    Two-stage detectors do more work where they find more: the count of an untrained model, or of an image of
    noise, means little.

    Args:
        model: a detector; it is put into eval mode for the count.
        inputs: one batch, as the model takes it.
    """
    with _eval_mode(model):
        return _in_units(FlopCountAnalysis(model, inputs), 1e9)


def activation_count_operators(model: nn.Module, inputs: list[Any], **kwargs: Any) -> defaultdict[str, float]:
    """Count the millions of numbers that convolutions and matrix products of inference put out, by operator.

    Args:
        model: a detector; it is put into eval mode for the count.
        inputs: one batch, as the model takes it.
        kwargs: handles of operators, by name, as fvcore's `set_op_handle` takes them.
    """
    with _eval_mode(model):
        adapter = TracingAdapter(model, inputs, allow_non_tensor=True)
        analysis = _ActivationCountAnalysis(adapter, adapter.flattened_inputs)
        analysis.set_op_handle(**kwargs)
        return _in_units(analysis, 1e6)


def count_operators(model: nn.Module, inputs: list[Any], mode: str, **kwargs: Any) -> defaultdict[str, float]:
    """Count FLOPs or activations, as `mode` says: FLOPS_MODE or ACTIVATIONS_MODE. Others' code calls it.

    Args:
        model, inputs: as in `flop_count_operators`.
        mode: what to count.
        kwargs: handles of operators, for activations.
    """
    if mode == ACTIVATIONS_MODE:
        return activation_count_operators(model, inputs, **kwargs)
    return flop_count_operators(model, inputs)


def find_unused_parameters(model: nn.Module, inputs: Any) -> list[str]:
    """Find the parameters that a training step leaves without gradient, which DistributedDataParallel minds.

    Args:
        model: in training mode, returning a dict of losses.
        inputs: one batch, as the model takes it. Gradients that are there are dropped.

    Returns:
        Names of the parameters.
    """
    if not model.training:
        raise UserValueError("find_unused_parameters looks at a training step: call model.train() first")
    model.zero_grad(set_to_none=True)
    losses = model(inputs)
    total: Any = sum(losses.values()) if isinstance(losses, dict) else losses
    total.backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    model.zero_grad(set_to_none=True)
    return unused


def _in_units(analysis: Any, unit: float) -> defaultdict[str, float]:
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return defaultdict(float, {name: count / unit for name, count in analysis.by_operator().items()})


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def _tracer_warnings_off() -> Iterator[None]:
    """A trace that is only counted may fix sizes of its example, of which the tracer would warn at length."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
