"""The RegNets of 4 GFLOPs that the configs use, by the names of their ImageNet weights."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import RegNet
from detectron2.modeling.backbone.regnet import ResBottleneckBlock, SimpleStem

# The networks were trained on BGR images in [0, 1]; this is the standard deviation in [0, 255].
pixel_std = [57.375, 57.12, 58.395]


def _regnet(**sizes):
    return L(RegNet)(
        stem_class=SimpleStem,
        stem_width=32,
        block_class=ResBottleneckBlock,
        w_0=96,
        **sizes,
        norm="SyncBN",
        out_features=["s1", "s2", "s3", "s4"],
    )


regnetx_4gf_dds = _regnet(depth=23, w_a=38.65, w_m=2.43, group_width=40)
regnety_4gf_dds = _regnet(depth=22, w_a=31.41, w_m=2.24, group_width=64, se_ratio=0.25)
