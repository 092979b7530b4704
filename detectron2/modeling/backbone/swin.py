"""Swin transformer: attention inside windows that move by half their side in every second block.

Shapes: N images; inside, maps are flat (N, L, C) with L = H * W.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.layers.batch_norm import MakeNorm
from detectron2.utils.user_errors import UserValueError

from .backbone import Backbone
from .swin_attention import WindowAttention, window_partition, window_reverse
from .swin_blocks import BasicLayer, BlockOptions, PatchEmbed, PatchMerging, SwinTransformerBlock
from .utils import Mlp, init_transformer_weights, spread_drop_path

__all__ = [
    "BasicLayer",
    "Mlp",
    "PatchEmbed",
    "PatchMerging",
    "SwinTransformer",
    "SwinTransformerBlock",
    "WindowAttention",
    "window_partition",
    "window_reverse",
]


class SwinTransformer(Backbone):
    """Swin transformer; stage i gives the map `p<i>` of stride 4 * 2^i.

    Args:
        pretrain_img_size: side of the images that absolute positions were learned on.
        patch_size: side of a patch.
        embed_dim: channels of the first stage; they double from stage to stage.
        depths: number of blocks per stage.
        num_heads: heads per stage.
        drop_rate: dropout of embeddings, attention outputs and MLP layers.
        drop_path_rate: that of the last block; it grows from 0 at the first.
        ape: add learned absolute positions to the patches.
        patch_norm: normalise the patches' embeddings.
        out_indices: stages to give.
        frozen_stages: what is not trained: from 0 the patches' embedding, from 1 also absolute positions,
            from k >= 2 also the first k - 1 stages.
        use_checkpoint: recompute activations in the backward pass, which saves memory.

    The others are those of `SwinTransformerBlock`.
    """

    def __init__(
        self,
        pretrain_img_size: int = 224,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        norm_layer: MakeNorm = nn.LayerNorm,
        ape: bool = False,
        patch_norm: bool = True,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.out_indices = _checked_indices(out_indices, len(depths))
        self.frozen_stages = frozen_stages
        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim, norm_layer if patch_norm else None)
        self.absolute_pos_embed: nn.Parameter | None = None
        if ape:
            side = pretrain_img_size // patch_size
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, embed_dim, side, side))
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        self.pos_drop = nn.Dropout(drop_rate)

        rates = spread_drop_path(drop_path_rate, sum(depths))
        widths = [embed_dim << i for i in range(len(depths))]
        self.num_features = widths
        options = BlockOptions(
            window_size=window_size,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            drop=drop_rate,
            attn_drop=attn_drop_rate,
            norm_layer=norm_layer,
        )
        self.layers = nn.ModuleList(
            BasicLayer(
                width,
                depth,
                num_heads[i],
                drop_path=rates[sum(depths[:i]) : sum(depths[: i + 1])],
                downsample=PatchMerging if i + 1 < len(depths) else None,
                use_checkpoint=use_checkpoint,
                **vars(options),
            )
            for i, (width, depth) in enumerate(zip(widths, depths))
        )
        self._add_outputs(widths, patch_size, norm_layer)
        self.apply(init_transformer_weights)
        self._freeze_stages()

    def _add_outputs(self, widths: Sequence[int], patch_size: int, norm_layer: MakeNorm) -> None:
        """Make the norms of the maps that go out, and set what `output_shape` and `size_divisibility` say."""
        for i in self.out_indices:
            self.add_module(f"norm{i}", norm_layer(widths[i]))
        self._out_features = [f"p{i}" for i in self.out_indices]
        self._out_feature_channels = {f"p{i}": widths[i] for i in self.out_indices}
        self._out_feature_strides = {f"p{i}": patch_size << i for i in self.out_indices}
        self._size_divisibility = patch_size << (len(widths) - 1)

    @property
    def size_divisibility(self) -> int:
        return self._size_divisibility

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C_in, H, W) images -> {"p0": (N, C, H / 4, W / 4), "p1": ..., ...}."""
        x = self.patch_embed(x)
        height, width = x.shape[2:]
        if self.absolute_pos_embed is not None:
            x = x + F.interpolate(self.absolute_pos_embed, size=(height, width), mode="bicubic")
        x = self.pos_drop(x.flatten(2).transpose(1, 2))  # (N, L, C)
        outputs = {}
        # A stage gives its own map, which may go out normalised, and the merged one for the next stage.
        for i, layer in enumerate(self.layers):
            out, out_height, out_width, x, height, width = layer(x, height, width)
            if i in self.out_indices:
                normalized = self.get_submodule(f"norm{i}")(out).unflatten(1, (out_height, out_width))
                outputs[f"p{i}"] = normalized.permute(0, 3, 1, 2).contiguous()
        return outputs

    def train(self, mode: bool = True) -> SwinTransformer:
        """Switch between training and evaluation; frozen parts stay as in evaluation."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def _frozen_modules(self) -> list[nn.Module]:
        frozen: list[nn.Module] = [self.patch_embed] if self.frozen_stages >= 0 else []
        if self.frozen_stages >= 2:
            frozen += [self.pos_drop, *self.layers[: self.frozen_stages - 1]]
        return frozen

    def _freeze_stages(self) -> None:
        for module in self._frozen_modules():
            module.eval().requires_grad_(False)
        if self.frozen_stages >= 1 and self.absolute_pos_embed is not None:
            self.absolute_pos_embed.requires_grad = False


def _checked_indices(out_indices: Sequence[int], num_stages: int) -> tuple[int, ...]:
    if not set(out_indices) <= set(range(num_stages)):
        raise UserValueError(f"out_indices must be among the {num_stages} stages, got {tuple(out_indices)}")
    return tuple(out_indices)
