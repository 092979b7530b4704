"""Feature extractors; importing this package registers all of them."""

from .backbone import Backbone as Backbone
from .build import BACKBONE_REGISTRY as BACKBONE_REGISTRY
from .build import build_backbone as build_backbone
from .fpn import FPN as FPN
from .res2net import DeepStem as DeepStem
from .res2net import DeformRes2NetBottleneckBlock as DeformRes2NetBottleneckBlock
from .res2net import Res2NetBottleneckBlock as Res2NetBottleneckBlock
from .res2net import build_res2net_backbone as build_res2net_backbone
from .res2net import build_res2net_fpn_backbone as build_res2net_fpn_backbone
from .res2net import build_retinanet_res2net_fpn_backbone as build_retinanet_res2net_fpn_backbone
from .resnet import BasicStem as BasicStem
from .resnet import BottleneckBlock as BottleneckBlock
from .resnet import DeformBottleneckBlock as DeformBottleneckBlock
from .resnet import ResNet as ResNet
from .resnet import ResNetBlockBase as ResNetBlockBase
from .resnet import build_resnet_backbone as build_resnet_backbone
from .resnet import make_stage as make_stage
