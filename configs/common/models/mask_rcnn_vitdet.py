"""ViTDet: Mask R-CNN on a plain ViT-B, with a pyramid made from its last map."""

from functools import partial

from torch import nn

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid, ViT

from ..data.constants import constants
from .mask_rcnn_fpn import model

model.update(
    pixel_mean=constants.imagenet_rgb256_mean, pixel_std=constants.imagenet_rgb256_std, input_format="RGB"
)

_depth = 12
# Four blocks, evenly spread, attend to the whole image; the others stay inside windows.
_windowed = [i for i in range(_depth) if (i + 1) % 3]

model.backbone = L(SimpleFeaturePyramid)(
    net=L(ViT)(
        out_feature="last_feat",
        img_size=1024,
        depth=_depth,
        num_heads=12,
        embed_dim=768,
        patch_size=16,
        qkv_bias=True,
        drop_path_rate=0.1,
        mlp_ratio=4,
        use_rel_pos=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        window_size=14,
        window_block_indexes=_windowed,
        residual_block_indexes=[],
    ),
    in_feature="${.net.out_feature}",
    scale_factors=(4.0, 2.0, 1.0, 0.5),
    out_channels=256,
    norm="LN",
    top_block=L(LastLevelMaxPool)(),
    square_pad=1024,
)

model.proposal_generator.head.conv_dims = [-1, -1]
model.roi_heads.box_head.update(conv_dims=[256] * 4, fc_dims=[1024], conv_norm="LN")
model.roi_heads.mask_head.conv_norm = "LN"
