import torch.nn.functional as F
from torch import nn

from detectron2.layers import Conv2d, FrozenBatchNorm2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool


class StripedBackbone(Backbone):
    def __init__(self, channels, out_features, in_channels=3):
        super().__init__()
        self.stem = Conv2d(
            in_channels,
            channels,
            kernel_size=3,
            stride=2,
            padding=1,
            norm=get_norm("BN", channels),
            activation=F.relu_,
        )
        self.s4 = Conv2d(
            channels, channels, kernel_size=3, stride=2, padding=1, norm=FrozenBatchNorm2d(channels)
        )
        self.s8 = nn.Conv2d(channels, 2 * channels, kernel_size=3, stride=2, padding=1)
        self._out_features = out_features
        self._out_feature_strides = {"s4": 4, "s8": 8}
        self._out_feature_channels = {"s4": channels, "s8": 2 * channels}

    def forward(self, x):
        outputs = {}
        x = self.s4(self.stem(x))
        outputs["s4"] = x
        outputs["s8"] = self.s8(x)
        return {name: outputs[name] for name in self._out_features}

    @property
    def size_divisibility(self):
        return 8


@BACKBONE_REGISTRY.register()
def build_striped_backbone(cfg, input_shape: ShapeSpec):
    return StripedBackbone(cfg.MODEL.STRIPED.CHANNELS, cfg.MODEL.STRIPED.OUT_FEATURES, input_shape.channels)


@BACKBONE_REGISTRY.register()
def build_striped_fpn_backbone(cfg, input_shape: ShapeSpec):
    top_block = LastLevelMaxPool()
    top_block.in_feature = "p3"  # its own is p5
    return FPN(
        bottom_up=build_striped_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
