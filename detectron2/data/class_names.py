"""The names of classes in data sets."""

from __future__ import annotations

from collections.abc import Iterable

from .catalog import MetadataCatalog

__all__ = ["find_class_names"]


def find_class_names(dataset_names: Iterable[str]) -> dict[str, list[str]]:
    """Return the "thing_classes" and "stuff_classes" of data sets, those that agree where several have them.

    Which class is which is not known where data sets of one training name their classes differently.
    """
    found: dict[str, list[list[str]]] = {}
    for name in dataset_names:
        metadata = MetadataCatalog.get(name)
        for kind in ("thing_classes", "stuff_classes"):
            names = metadata.get(kind)
            if names:
                found.setdefault(kind, []).append(list(names))
    return {kind: lists[0] for kind, lists in found.items() if all(names == lists[0] for names in lists)}
