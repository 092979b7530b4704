"""Res2Net as a plug-in: its blocks, stem, builders, config keys (`config_keys.yaml`) and weight names.

Gao et al., "Res2Net: A New Multi-scale Backbone Architecture", TPAMI 2020. Depth, width, groups, dilation,
norm and strides are those of `MODEL.RESNETS`; what only Res2Net has stands in `MODEL.RES2NET`.
"""

from .block import DeformRes2NetBottleneckBlock as DeformRes2NetBottleneckBlock
from .block import Res2NetBottleneckBlock as Res2NetBottleneckBlock
from .block import StagePool as StagePool
from .builders import build_res2net_backbone as build_res2net_backbone
from .builders import build_res2net_fpn_backbone as build_res2net_fpn_backbone
from .builders import build_retinanet_res2net_fpn_backbone as build_retinanet_res2net_fpn_backbone
from .published import RES2NET_WEIGHTS as RES2NET_WEIGHTS
from .stem import DeepStem as DeepStem
from .weights import Res2NetLayout as Res2NetLayout
from .weights import Res2NetWeights as Res2NetWeights

__all__ = [
    "RES2NET_WEIGHTS",
    "DeepStem",
    "DeformRes2NetBottleneckBlock",
    "Res2NetBottleneckBlock",
    "Res2NetLayout",
    "Res2NetWeights",
    "StagePool",
    "build_res2net_backbone",
    "build_res2net_fpn_backbone",
    "build_retinanet_res2net_fpn_backbone",
]
