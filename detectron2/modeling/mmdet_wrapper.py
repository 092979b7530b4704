"""Names of the bridge to mmdetection 2, which is left out: a use of one says why."""

from __future__ import annotations

from torch import nn

from detectron2.utils.offer import left_out_class

__all__ = ["MMDetBackbone", "MMDetDetector"]

_WHY = "it was made for mmdetection 2, whose mmcv 1 does not build with the torch versions that we support"

MMDetBackbone = left_out_class(
    "MMDetBackbone", _WHY, "Register the backbone as a plug-in, see docs/architecture.md", nn.Module
)
MMDetDetector = left_out_class(
    "MMDetDetector", _WHY, "Write a meta-architecture of your own that calls the detector", nn.Module
)
