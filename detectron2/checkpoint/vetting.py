"""What is looked at before a tensor of a file reaches a model, and the way back when a load fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .reading import CheckpointFileError

__all__ = ["Exchange", "refuse_unusable"]


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


class Exchange:
    """Loads weights into a model, and takes them back when something fails afterwards.

    Each tensor of the model is put aside while the file's takes its place and is let go: beside the model and
    the file there is never more than one tensor in memory, and a copy of what the file does not have.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._before: list[tuple[str, Tensor]] = []

    def load(self, weights: dict[str, Tensor]) -> tuple[list[str], list[str]]:
        """Call `load_state_dict` of the model.

        Args:
            weights: by the model's names and of its shapes. Its tensors are exchanged for the model's.

        Returns:
            Names of the model that are missing in `weights`, and names in it that the model does not have.
        """
        state = self._model.state_dict()
        for name, target in state.items():
            if not isinstance(target, Tensor):
                continue  # a module may keep other things there
            self._before.append((name, target.detach().clone()))
            if name in weights:
                with torch.no_grad():
                    target.copy_(weights[name])
                # From here on `load_state_dict` copies the tensor onto itself; what modules do beside that,
                # such as filling what older files do not have, stays their own.
                weights[name] = target
        missing, unexpected = self._model.load_state_dict(weights, strict=False)
        return missing, unexpected

    @contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Put the weights and buffers of the model back when the block raises."""
        try:
            yield
        except BaseException:
            state = self._model.state_dict()
            with torch.no_grad():
                # Backwards: modules may share a tensor, and what was put aside first is its oldest value.
                for name, value in reversed(self._before):
                    state[name].copy_(value)
            raise
        finally:
            self._before.clear()
