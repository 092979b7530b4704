"""The augmentations that ship with the package, under the path that users import."""

from ._coloring import RandomBrightness as RandomBrightness
from ._coloring import RandomContrast as RandomContrast
from ._coloring import RandomLighting as RandomLighting
from ._coloring import RandomSaturation as RandomSaturation
from ._cropping import FixedSizeCrop as FixedSizeCrop
from ._cropping import MinIoURandomCrop as MinIoURandomCrop
from ._cropping import RandomCrop as RandomCrop
from ._cropping import RandomCrop_CategoryAreaConstraint as RandomCrop_CategoryAreaConstraint
from ._moving import RandomApply as RandomApply
from ._moving import RandomExtent as RandomExtent
from ._moving import RandomFlip as RandomFlip
from ._moving import RandomRotation as RandomRotation
from ._resizing import RandomResize as RandomResize
from ._resizing import Resize as Resize
from ._resizing import ResizeScale as ResizeScale
from ._resizing import ResizeShortestEdge as ResizeShortestEdge

__all__ = [
    "FixedSizeCrop",
    "MinIoURandomCrop",
    "RandomApply",
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomCrop_CategoryAreaConstraint",
    "RandomExtent",
    "RandomFlip",
    "RandomLighting",
    "RandomResize",
    "RandomRotation",
    "RandomSaturation",
    "Resize",
    "ResizeScale",
    "ResizeShortestEdge",
]
