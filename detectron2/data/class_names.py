"""The names of classes in data sets."""

from __future__ import annotations

from collections.abc import Iterable

from .catalog import MetadataCatalog

__all__ = ["find_class_names"]


def find_class_names(dataset_names: Iterable[str]) -> dict[str, list[str]]:
    """Return "thing_classes" and "stuff_classes" of the first data set that has any; empty without one."""
    for name in dataset_names:
        metadata = MetadataCatalog.get(name)
        found = {kind: metadata.get(kind) for kind in ("thing_classes", "stuff_classes")}
        if any(found.values()):
            return {kind: list(names) for kind, names in found.items() if names}
    return {}
