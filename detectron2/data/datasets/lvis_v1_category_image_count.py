"""Facade: in how many images each category of LVIS v1 is, read from its file when it is looked at."""

from .compat_names import LVIS_V1_CATEGORY_IMAGE_COUNT as LVIS_CATEGORY_IMAGE_COUNT

__all__ = ["LVIS_CATEGORY_IMAGE_COUNT"]
