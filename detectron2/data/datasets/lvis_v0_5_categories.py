"""Facade: the 1230 categories of LVIS v0.5, read from `lvis/lvis_v0.5_train.json` when they are looked at."""

from .compat_names import LVIS_V0_5_CATEGORIES as LVIS_CATEGORIES

__all__ = ["LVIS_CATEGORIES"]
