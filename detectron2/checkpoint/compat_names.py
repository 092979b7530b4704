"""Names that other people's code takes from modules of this package, and that nothing of ours uses."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from detectron2.utils import comm
from detectron2.utils.offer import offer

from . import catalog
from .c2_model_loading import align_and_update_state_dicts


def _longest_common_prefix_str(names: Sequence[str]) -> str:
    """The longest text with which all names begin."""
    first, last = min(names), max(names)
    ends = (i for i, (a, b) in enumerate(zip(first, last)) if a != b)
    return first[: next(ends, min(len(first), len(last)))]


def _longest_common_prefix(names: Sequence[str]) -> str:
    """The longest path with which all names begin, its last dot included: ["a.bc.d", "a.be"] -> "a."."""
    parts = [name.split(".") for name in names]
    same = itertools.takewhile(lambda level: len(set(level)) == 1, zip(*parts))
    return "".join(f"{level[0]}." for level in same)


def _group_keys_by_module(keys: Sequence[str], original_names: Mapping[str, str]) -> dict[str, list[str]]:
    """Say for the parameters of a module which ones belong together: those that are also called alike.

    Args:
        keys: names of parameters, such as "a.conv.weight"; modules are what stands before their last dots.
        original_names: what the checkpoint calls them; parameters of a module stay apart where these have no
            common beginning.

    Returns:
        Name -> names of the outermost module around it, itself included, without those that stand alone.
    """
    modules = {key[: key.rindex(".") + 1] for key in keys if "." in key}
    groups: dict[str, list[str]] = {}
    for module in sorted(modules, key=len):
        members = [key for key in keys if key.startswith(module)]
        if len(members) > 1 and _longest_common_prefix_str([original_names[key] for key in members]):
            for key in members:
                groups.setdefault(key, members)
    return groups


def _group_str(names: Sequence[str]) -> str:
    """Names of one module in one text, for a log: "conv.{bias,weight}"."""
    prefix = _longest_common_prefix_str(names)
    endings = ",".join(name.removeprefix(prefix) for name in names)
    text = f"{prefix}{{{endings}}}"
    for norm in (
        "bn_{beta,running_mean,running_var,gamma}",
        "bn_beta,bn_running_mean,bn_running_var,bn_gamma",
    ):
        text = text.replace(norm, "bn_*")
    return text


offer("detectron2.checkpoint", _UNUSED=catalog)
offer(
    "detectron2.checkpoint.c2_model_loading",
    _group_keys_by_module,
    _group_str,
    _longest_common_prefix,
    _longest_common_prefix_str,
)
offer("detectron2.checkpoint.detection_checkpoint", align_and_update_state_dicts, comm)
