"""The augmentations that ship with the package, under the path that users import."""

from .coloring import RandomBrightness as RandomBrightness
from .coloring import RandomContrast as RandomContrast
from .coloring import RandomLighting as RandomLighting
from .coloring import RandomSaturation as RandomSaturation
from .cropping import FixedSizeCrop as FixedSizeCrop
from .cropping import MinIoURandomCrop as MinIoURandomCrop
from .cropping import RandomCrop as RandomCrop
from .cropping import RandomCrop_CategoryAreaConstraint as RandomCrop_CategoryAreaConstraint
from .moving import RandomApply as RandomApply
from .moving import RandomExtent as RandomExtent
from .moving import RandomFlip as RandomFlip
from .moving import RandomRotation as RandomRotation
from .resizing import RandomResize as RandomResize
from .resizing import Resize as Resize
from .resizing import ResizeScale as ResizeScale
from .resizing import ResizeShortestEdge as ResizeShortestEdge

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
