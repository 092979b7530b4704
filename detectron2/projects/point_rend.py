"""PointRend is left out. Its names are here so that files can import them; a call says why."""

from __future__ import annotations

from torch import nn

from detectron2.utils.offer import left_out, left_out_class

_REASON = "PointRend is a project on top of detectron2, and not part of this package"
_INSTEAD = "Install that project, or register a mask head of your own"

ColorAugSSDTransform = left_out_class("ColorAugSSDTransform", _REASON, _INSTEAD)
ImplicitPointRendMaskHead = left_out_class("ImplicitPointRendMaskHead", _REASON, _INSTEAD, nn.Module)
PointRendMaskHead = left_out_class("PointRendMaskHead", _REASON, _INSTEAD, nn.Module)
PointRendSemSegHead = left_out_class("PointRendSemSegHead", _REASON, _INSTEAD, nn.Module)
add_pointrend_config = left_out("add_pointrend_config", _REASON, _INSTEAD)

__all__ = [
    "ColorAugSSDTransform",
    "ImplicitPointRendMaskHead",
    "PointRendMaskHead",
    "PointRendSemSegHead",
    "add_pointrend_config",
]
