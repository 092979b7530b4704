"""The registry of whole models; `modeling` fills it.

It lies below the models because data loading reads what the model of a config declares about its data.
"""

from __future__ import annotations

from typing import Any

from detectron2.utils.registry import Registry

META_ARCH_REGISTRY = Registry("META_ARCH")
META_ARCH_REGISTRY.__doc__ = """
Modules made by `(cfg)` and called with a list of dicts, one per image, in the format of `DatasetMapper`.

A class may declare `class_count_keys`, the config keys of its numbers of classes: `{"thing": key}` for the
classes of `instances`, `{"stuff": key}` for those of `sem_seg`. Training data is checked against them.
"""


def class_counts(cfg: Any) -> dict[str, tuple[str, int]]:
    """Look up how many classes the model of a config has.

    Args:
        cfg: a config.

    Returns:
        By kind, "thing" and "stuff", the config key and its value; only the kinds that the model's class
        declares, so nothing for a class that declares none or is not registered (yet).
    """
    name = cfg.MODEL.META_ARCHITECTURE
    keys = getattr(META_ARCH_REGISTRY.get(name), "class_count_keys", {}) if name in META_ARCH_REGISTRY else {}
    return {kind: (key, _value(cfg, key)) for kind, key in keys.items()}


def _value(cfg: Any, key: str) -> int:
    for part in key.split("."):
        cfg = cfg[part]
    return int(cfg)
