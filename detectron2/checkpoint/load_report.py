"""One table about a load instead of pages of names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["describe_differences", "describe_load"]

_MAX_GROUPS = 8


def describe_load(
    num_matched: int,
    num_tensors: int,
    skipped: Sequence[str],
    missing: Sequence[str],
    unexpected: Sequence[str],
    incorrect_shapes: Sequence[tuple[str, tuple[int, ...], tuple[int, ...]]],
) -> str:
    """Say how many tensors of a file found their place, and which did not.

    Args:
        num_matched: tensors that were loaded.
        num_tensors: tensors in the file that could have been.
        skipped: names left out on purpose, such as an ImageNet classifier.
        missing: names of the model without a tensor in the file.
        unexpected: names in the file without a place in the model.
        incorrect_shapes: (name, shape in the file, shape in the model).
    """
    skipped_text = ", ".join(group_names(skipped)) or "nothing"
    sentence = f"matched {num_matched} of {num_tensors} tensors, skipped: {skipped_text}"
    table = describe_differences(missing, unexpected, incorrect_shapes)
    return f"{sentence}\n{table}" if table else sentence


def describe_differences(
    missing: Sequence[str],
    unexpected: Sequence[str],
    incorrect_shapes: Sequence[tuple[str, tuple[int, ...], tuple[int, ...]]] = (),
) -> str:
    """Tabulate which tensors of a model and a file did not find each other; empty where all did.

    Args:
        missing: names of the model without a tensor in the file.
        unexpected: names in the file without a place in the model.
        incorrect_shapes: (name, shape in the file, shape in the model).
    """
    from tabulate import tabulate

    shapes = [f"{name} {found} -> {expected}" for name, found, expected in incorrect_shapes]
    rows = [
        ("missing in the file, keep their initial values", missing, group_names(missing)),
        ("not in the model, unused", unexpected, group_names(unexpected)),
        ("other shape, keep their initial values", shapes, _shorten(shapes)),
    ]
    table = [(what, len(names), "\n".join(listed)) for what, names, listed in rows if names]
    return tabulate(table, headers=("tensors", "number", "names"), tablefmt="simple") if table else ""


def group_names(names: Iterable[str]) -> list[str]:
    """Collect names by module: `fpn_lateral2.{bias, weight}`."""
    leaves: dict[str, list[str]] = {}
    for name in names:
        module, _, leaf = name.rpartition(".")
        leaves.setdefault(module, []).append(leaf)
    groups = []
    for module, parts in leaves.items():
        inner = parts[0] if len(parts) == 1 else "{" + ", ".join(sorted(parts)) + "}"
        groups.append(f"{module}.{inner}" if module else inner)
    return _shorten(groups)


def _shorten(lines: list[str]) -> list[str]:
    if len(lines) <= _MAX_GROUPS:
        return lines
    return [*lines[:_MAX_GROUPS], f"... and {len(lines) - _MAX_GROUPS} more"]
