"""Plain vision transformer with windowed blocks, as ViTDet uses it.

Shapes: N images, maps inside the transformer are channels-last (N, H, W, C) with H and W counted in patches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from detectron2.layers.batch_norm import MakeNorm

from .backbone import Backbone
from .simple_pyramid import SimpleFeaturePyramid
from .utils import PatchEmbed, embed_positions, init_transformer, make_abs_pos, spread_drop_path
from .vit_blocks import Attention, Block, BlockOptions, ResBottleneckBlock

__all__ = [
    "Attention",
    "Block",
    "ResBottleneckBlock",
    "SimpleFeaturePyramid",
    "ViT",
    "get_vit_lr_decay_rate",
]


class ViT(Backbone):
    """Vision transformer that gives one map, of the patches' stride.

    Args:
        img_size: side of the images that tables of relative positions are made for; others work too.
        patch_size: side of a patch.
        embed_dim: C.
        depth: number of blocks.
        drop_path_rate: that of the last block; it grows from 0 at the first.
        use_abs_pos: add learned positions to the patches, interpolated where sizes differ.
        window_size: side of the windows of the blocks in `window_block_indexes`.
        residual_block_indexes: blocks with a convolutional block behind them.
        use_act_checkpoint: recompute activations in the backward pass, which saves memory.
        pretrain_img_size: side of the images that the positions were learned on.
        pretrain_use_cls_token: the learned positions include one for a class token.
        out_feature: name of the map.

    The others are those of `Block`.
    """

    def __init__(
        self,
        img_size: int = 1024,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: MakeNorm = nn.LayerNorm,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        use_abs_pos: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        window_size: int = 0,
        window_block_indexes: Sequence[int] = (),
        residual_block_indexes: Sequence[int] = (),
        use_act_checkpoint: bool = False,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        out_feature: str = "last_feat",
    ) -> None:
        super().__init__()
        self.pretrain_use_cls_token = pretrain_use_cls_token
        self.use_act_checkpoint = use_act_checkpoint
        self.patch_embed = PatchEmbed(
            (patch_size, patch_size), (patch_size, patch_size), (0, 0), in_chans, embed_dim
        )
        self.pos_embed: nn.Parameter | None = None
        if use_abs_pos:
            num_positions = (pretrain_img_size // patch_size) ** 2 + int(pretrain_use_cls_token)
            self.pos_embed = make_abs_pos(num_positions, embed_dim)
        common = BlockOptions(
            dim=embed_dim,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            norm_layer=norm_layer,
            act_layer=act_layer,
            use_rel_pos=use_rel_pos,
            rel_pos_zero_init=rel_pos_zero_init,
            input_size=(img_size // patch_size, img_size // patch_size),
        )
        self.blocks = nn.ModuleList()
        for i, drop_path in enumerate(spread_drop_path(drop_path_rate, depth)):
            options = replace(
                common,
                drop_path=drop_path,
                window_size=window_size if i in window_block_indexes else 0,
                use_residual_block=i in residual_block_indexes,
            )
            self.blocks.append(Block(**vars(options)))
        init_transformer(self, self.pos_embed)
        self._out_features = [out_feature]
        self._out_feature_channels = {out_feature: embed_dim}
        self._out_feature_strides = {out_feature: patch_size}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C_in, H_image, W_image) -> one map (N, C, H, W)."""
        x = embed_positions(self.patch_embed(x), self.pos_embed, self.pretrain_use_cls_token)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.use_act_checkpoint else block(x)
        return {self._out_features[0]: x.permute(0, 3, 1, 2)}


def get_vit_lr_decay_rate(name: str, lr_decay_rate: float = 1.0, num_layers: int = 12) -> float:
    """Return the factor on the learning rate of a parameter of a detector with a ViT.

    The patches' embedding counts as layer 0, the blocks as layers 1 to `num_layers`, everything else as one
    more; each layer below the last multiplies the rate once.

    Args:
        name: the parameter's name in the detector.
        lr_decay_rate: factor per layer.
        num_layers: number of blocks.
    """
    layer = num_layers + 1
    if name.startswith("backbone"):
        _, is_block, rest = name.partition(".blocks.")
        if ".pos_embed" in name or ".patch_embed" in name:
            layer = 0
        elif is_block and ".residual." not in name:
            layer = int(rest.split(".")[0]) + 1
    return lr_decay_rate ** (num_layers + 1 - layer)
