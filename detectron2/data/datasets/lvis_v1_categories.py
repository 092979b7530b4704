"""Facade: the 1203 categories of LVIS v1, read from `lvis/lvis_v1_train.json` when they are looked at."""

from .compat_names import LVIS_V1_CATEGORIES as LVIS_CATEGORIES

__all__ = ["LVIS_CATEGORIES"]
