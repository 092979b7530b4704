"""What is looked at before a tensor of a file reaches a model, and the way back when a load fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .reading import CheckpointFileError

__all__ = ["refuse_unusable", "restored_on_error"]


def refuse_unusable(weights: Mapping[str, Tensor], model_state: Mapping[str, Tensor]) -> None:
    """Raise where a tensor that the model would take has its shape but not usable values.

    NaN is never a weight: a run that diverged wrote it, or a file was damaged. Infinities pass, masks hold
    them.

    Args:
        weights: by the model's names; those that the model has must have its shapes.
        model_state: the state of the model.

    Raises:
        CheckpointFileError: names the tensor and says what it is.
    """
    for name in weights.keys() & model_state.keys():
        problem = _find_problem(weights[name], model_state[name])
        if problem:
            raise CheckpointFileError(f"{name} {problem}; nothing of the file was loaded")


def _find_problem(value: Tensor, target: Tensor) -> str | None:
    if value.layout is not torch.strided or value.is_quantized or value.is_meta:
        return "is sparse, quantized or without data, where plain numbers are expected"
    if value.is_complex() and not target.is_complex():
        return f"has complex numbers, the model has {target.dtype}"
    if not (value.is_floating_point() or value.is_complex()):
        return None
    # Numbers of 8 bits have few functions of their own.
    num_nan = int((value if value.element_size() > 1 else value.float()).isnan().sum())
    if num_nan:
        share = f"{num_nan} of {value.numel()} values"
        return f"is NaN in {share}: the run that wrote it diverged, or the file is damaged"
    return None


@contextmanager
def restored_on_error(model: nn.Module) -> Iterator[None]:
    """Put the weights and buffers of a model back when the block raises."""
    before = {
        name: value.detach().clone()
        for name, value in model.state_dict().items()
        if isinstance(value, Tensor)  # a module may keep other things there
    }
    try:
        yield
    except BaseException:
        state = model.state_dict()
        with torch.no_grad():
            for name, value in before.items():
                state[name].copy_(value)
        raise
