"""Multiscale vision transformer, version 2: stages of falling resolution and growing width.

Shapes: N images, maps are channels-last (N, H, W, C).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from detectron2.layers.batch_norm import MakeNorm
from detectron2.utils.user_errors import UserValueError

from .backbone import Backbone
from .mvit_blocks import BlockOptions, MultiScaleAttention, MultiScaleBlock, attention_pool
from .utils import PatchEmbed, embed_positions, init_transformer, make_abs_pos, spread_drop_path

__all__ = ["MViT", "MultiScaleAttention", "MultiScaleBlock", "attention_pool"]


class MViT(Backbone):
    """MViTv2: stages that double channels and heads where they halve the resolution.

    Args:
        img_size: side of the images that tables of relative positions are made for; others work too.
        patch_kernel, patch_stride, patch_padding: of the convolution that embeds patches.
        embed_dim: channels of the first stage.
        depth: number of blocks.
        num_heads: heads of the first stage.
        last_block_indexes: the last block of each stage.
        adaptive_kv_stride: stride of keys and values in the first stage; it halves from stage to stage.
        adaptive_window_size: side of the windows in the first stage; it halves too.
        drop_path_rate: that of the last block; it grows from 0 at the first.
        use_abs_pos: add learned positions to the patches, interpolated where sizes differ.
        use_act_checkpoint: recompute activations in the backward pass, which saves memory.
        pretrain_img_size: side of the images that the positions were learned on.
        pretrain_use_cls_token: the learned positions include one for a class token.
        out_features: stages to give, of "scale2", "scale3", ...

    The others are those of `MultiScaleBlock`.
    """

    def __init__(
        self,
        img_size: int = 224,
        patch_kernel: tuple[int, int] = (7, 7),
        patch_stride: tuple[int, int] = (4, 4),
        patch_padding: tuple[int, int] = (3, 3),
        in_chans: int = 3,
        embed_dim: int = 96,
        depth: int = 16,
        num_heads: int = 1,
        last_block_indexes: Sequence[int] = (0, 2, 11, 15),
        qkv_pool_kernel: tuple[int, int] = (3, 3),
        adaptive_kv_stride: int = 4,
        adaptive_window_size: int = 56,
        residual_pooling: bool = True,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: MakeNorm = nn.LayerNorm,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        use_abs_pos: bool = False,
        use_rel_pos: bool = True,
        rel_pos_zero_init: bool = True,
        use_act_checkpoint: bool = False,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        out_features: Sequence[str] = ("scale2", "scale3", "scale4", "scale5"),
    ) -> None:
        super().__init__()
        self.pretrain_use_cls_token = pretrain_use_cls_token
        self.use_act_checkpoint = use_act_checkpoint
        self.patch_embed = PatchEmbed(patch_kernel, patch_stride, patch_padding, in_chans, embed_dim)
        self.pos_embed: nn.Parameter | None = None
        if use_abs_pos:
            num_patches = (pretrain_img_size // patch_stride[0]) * (pretrain_img_size // patch_stride[1])
            self.pos_embed = make_abs_pos(num_patches + int(pretrain_use_cls_token), embed_dim)

        lasts = tuple(last_block_indexes)
        self._name_of_last = _name_lasts(lasts, out_features)
        side = img_size // patch_stride[0]
        first = BlockOptions(
            dim=embed_dim,
            dim_out=embed_dim,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            norm_layer=norm_layer,
            act_layer=act_layer,
            qkv_pool_kernel=qkv_pool_kernel,
            stride_kv=adaptive_kv_stride,
            residual_pooling=residual_pooling,
            window_size=adaptive_window_size,
            use_rel_pos=use_rel_pos,
            rel_pos_zero_init=rel_pos_zero_init,
            input_size=(side, side),
        )
        self._add_blocks(first, lasts, spread_drop_path(drop_path_rate, depth), patch_stride[0])
        init_transformer(self, self.pos_embed)

    def _add_blocks(
        self, first: BlockOptions, lasts: Sequence[int], drop_paths: Sequence[float], stride: int
    ) -> None:
        """Make the blocks, and the norms of the maps that go out.

        Args:
            first: options of the first stage.
            lasts: the last block of each stage.
            drop_paths: per block.
            stride: of the patches.
        """
        self.blocks = nn.ModuleList()
        self._out_features, self._out_feature_channels, self._out_feature_strides = [], {}, {}
        for i, drop_path in enumerate(drop_paths):
            options = replace(_plan_block(first, i, lasts), drop_path=drop_path)
            self.blocks.append(MultiScaleBlock(**vars(options)))
            if i in self._name_of_last:
                name = self._name_of_last[i]
                self.add_module(f"{name}_norm", options.norm_layer(options.dim_out))
                self._out_features.append(name)
                self._out_feature_channels[name] = options.dim_out
                self._out_feature_strides[name] = stride << _stage_of(i, lasts)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C_in, H, W) images -> {"scale2": (N, C, H / 4, W / 4), ...}."""
        x = embed_positions(self.patch_embed(x), self.pos_embed, self.pretrain_use_cls_token)
        outputs = {}
        for i, block in enumerate(self.blocks):
            x = checkpoint(block, x, use_reentrant=False) if self.use_act_checkpoint else block(x)
            # What a stage gives is normalised; the next stage starts from it as it is.
            if i in self._name_of_last:
                name = self._name_of_last[i]
                outputs[name] = self.get_submodule(f"{name}_norm")(x).permute(0, 3, 1, 2)
        return outputs


def _name_lasts(lasts: Sequence[int], out_features: Sequence[str]) -> dict[int, str]:
    """Name the maps behind the last blocks of those stages that go out."""
    names = [f"scale{i + 2}" for i in range(len(lasts))]
    if not set(out_features) <= set(names):
        raise UserValueError(f"out_features must be some of {names}, got {list(out_features)}")
    return {last: name for last, name in zip(lasts, names) if name in out_features}


def _stage_of(block: int, lasts: Sequence[int]) -> int:
    """Number of the stage that a block lies in; `lasts` are the last blocks of the stages."""
    return sum(block > last for last in lasts)


def _plan_block(first: BlockOptions, block: int, lasts: Sequence[int]) -> BlockOptions:
    """Work out one block's options from those of the first stage; its `drop_path` is not touched.

    Channels and heads double in a stage's first block, which also halves the resolution; windows and input
    shrink behind it.
    """
    stage = _stage_of(block, lasts)
    num_shrunk = sum(block > last + 1 for last in lasts)
    opens_stage = block - 1 in lasts
    kv_stride = max(first.stride_kv >> stage, 1)
    dim_out = first.dim_out << stage
    return replace(
        first,
        dim=dim_out // 2 if opens_stage else dim_out,
        dim_out=dim_out,
        num_heads=first.num_heads << stage,
        stride_q=2 if opens_stage else 1,
        # The last blocks of these stages attend to the whole map: coarser keys keep that cheap.
        stride_kv=2 * kv_stride if block in lasts[1:3] else kv_stride,
        window_size=0 if block in lasts[1:] else first.window_size >> num_shrunk,
        input_size=(first.input_size[0] >> num_shrunk, first.input_size[1] >> num_shrunk),
    )
