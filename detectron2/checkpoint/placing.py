"""Where the tensors of a file belong in a model: their names taken apart, translated, and matched."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from detectron2.utils.user_errors import UserValueError

from .c2_model_loading import convert_c2_detectron_names, match_by_suffix
from .weight_translation import explain_conflicts, find_translator, read_layout

__all__ = ["Placed", "as_tensors", "describe_no_match", "find_aliases", "find_places", "is_obsolete"]

logger = logging.getLogger(__name__)


def as_tensors(state: Any) -> OrderedDict[str, Tensor]:
    """Turn arrays into tensors and take off the wrapper that DistributedDataParallel leaves in names."""
    if not isinstance(state, Mapping):
        raise UserValueError(f"the model must be a dict of tensors, the file has a {type(state).__name__}")
    is_wrapped = bool(state) and all(str(name).startswith("module.") for name in state)
    tensors: OrderedDict[str, Tensor] = OrderedDict()
    for name, value in state.items():
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value)
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserValueError(
                f"the model must be a dict of tensors, the file has a {type(value).__name__} at {name!r}"
            )
        tensors[name.removeprefix("module.") if is_wrapped else name] = value
    if not is_wrapped and hasattr(state, "_metadata"):
        tensors._metadata = state._metadata  # type: ignore[attr-defined]  # versions of modules, which torch asks for
    return tensors


class Placed(NamedTuple):
    """Tensors of a file under the names that a model has for them.

    Attributes:
        weights: those without a place keep their own names.
        skipped: names in the file that were left out on purpose.
        is_part: the file was made for a part of the model, such as its backbone.
    """

    weights: OrderedDict[str, Tensor]
    skipped: list[str]
    is_part: bool


def find_places(
    weights: OrderedDict[str, Tensor], model_state: Mapping[str, Tensor], notes: Mapping[str, Any]
) -> Placed:
    """Translate names of other packages, and match names by their endings where the file is for a part.

    Raises:
        ValueError: the weights are of a backbone of another architecture than the model's.
    """
    skipped: list[str] = []
    flag = notes.get("matching_heuristics")
    match_endings = isinstance(flag, (bool, int, str, np.bool_)) and bool(flag)
    has_own_names = any(name in model_state for name in weights)
    if has_own_names and all(name in model_state or is_obsolete(name) for name in weights):
        match_endings = False  # nothing is left to match, whatever kind of file it is
    if match_endings and str(notes.get("__author__")) == "Caffe2":
        weights = OrderedDict(convert_c2_detectron_names(weights)[0])
    elif not has_own_names and (translator := find_translator(weights)) is not None:
        converted = translator.translate(weights)
        logger.info("These are the weights of a %s, under another package's names", converted.layout.title)
        weights = OrderedDict(converted.weights)
        skipped = [name for name in converted.dropped if not is_obsolete(name)]
    _refuse_other_architecture(weights, model_state)
    if has_own_names and not match_endings:
        return Placed(weights, skipped, is_part=False)
    partners = match_by_suffix(model_state, weights)
    renamed = OrderedDict((partners.get(name, name), value) for name, value in weights.items())
    return Placed(renamed, skipped, is_part=True)


def _refuse_other_architecture(weights: Mapping[str, Tensor], model_state: Mapping[str, Tensor]) -> None:
    """Raise where both have a backbone that is known and it is not the same one."""
    in_file, in_model = read_layout(weights), read_layout(model_state)
    conflict = explain_conflicts(in_file, in_model) if in_file and in_model else None
    if conflict:
        raise UserValueError(conflict)


def describe_no_match(
    names: list[str],
    model_names: list[str],
    incorrect_shapes: list[tuple[str, tuple[int, ...], tuple[int, ...]]],
) -> str:
    if incorrect_shapes:
        name, found, expected = incorrect_shapes[0]
        return (
            f"no tensor of the file fits the model: {name}, for one, has shape {found} instead of {expected}"
        )
    return (
        f"none of the {len(names)} tensors in the file belongs to the model: the file has names such"
        f" as {names[:3]}, the model such as {model_names[:3]}; check MODEL.WEIGHTS and the config"
    )


def is_obsolete(name: str) -> bool:
    """Tell whether older versions and batch norms wrote this tensor, which models now do without."""
    return (
        name.endswith("num_batches_tracked")
        or "anchor_generator.cell_anchors" in name
        or name.rpartition(".")[2] in ("pixel_mean", "pixel_std")
    )


def find_aliases(model: nn.Module, names: list[str]) -> set[str]:
    """Return every name of the parameters that these names stand for, modules that share them included."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    loaded = {id(parameters[name]) for name in names if name in parameters}
    return {name for name, parameter in parameters.items() if id(parameter) in loaded}
