"""Multiscale vision transformer, version 2: attention that pools queries, keys and values.

Shapes: N images, maps are channels-last (N, H, W, C); h heads of D channels, B = N * h (or all windows of
them); queries have (qh, qw) pixels and keys (kh, kw).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from detectron2.utils.user_errors import UserValueError

from .backbone import Backbone
from .utils import (
    DropPath,
    Mlp,
    PatchEmbed,
    decomposed_rel_pos,
    embed_positions,
    init_transformer_weights,
    make_rel_pos,
    spread_drop_path,
    window_partition,
    window_unpartition,
)

__all__ = ["MViT"]

MakeNorm = Callable[[int], nn.Module]


def attention_pool(
    x: Tensor, pool: Callable[[Tensor], Tensor], norm: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Run a channels-first `pool` on a channels-last map, then `norm`.

    Args:
        x: (B, H, W, C).
        pool: (B, C, H, W) -> (B, C', H', W').
        norm: works on the last axis; None for none.

    Returns:
        (B, H', W', C').
    """
    pooled = pool(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return pooled if norm is None else norm(pooled)


class MultiScaleAttention(nn.Module):
    """Self-attention whose queries, keys and values are pooled by depthwise convolutions."""

    def __init__(
        self,
        dim: int,
        dim_out: int,
        num_heads: int,
        qkv_bias: bool = True,
        norm_layer: MakeNorm = nn.LayerNorm,
        pool_kernel: tuple[int, int] = (3, 3),
        stride_q: int = 1,
        stride_kv: int = 1,
        residual_pooling: bool = True,
        window_size: int = 0,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        """
        Args:
            dim: channels of the input.
            dim_out: channels of the output, a multiple of `num_heads`.
            num_heads: h.
            norm_layer: makes the norms of pooled queries, keys and values.
            pool_kernel: of the pooling convolutions.
            stride_q: of the queries' pooling; the output is coarser by it.
            stride_kv: of the keys' and values' pooling.
            residual_pooling: add the pooled queries to what is attended.
            window_size: attend inside windows that have this side in the input; 0 attends to the whole map.
            use_rel_pos: add embeddings of relative positions to the logits.
            rel_pos_zero_init: start them from zero.
            input_size: (H, W), equal ones, that their tables are made for.
        """
        super().__init__()
        if dim_out % num_heads:
            raise UserValueError(f"dim_out {dim_out} must be a multiple of num_heads {num_heads}")
        head_dim = dim_out // num_heads
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim_out, bias=qkv_bias)
        self.proj = nn.Linear(dim_out, dim_out)
        for name, stride in (("q", stride_q), ("k", stride_kv), ("v", stride_kv)):
            conv = nn.Conv2d(
                head_dim,
                head_dim,
                pool_kernel,
                stride=stride,
                padding=(pool_kernel[0] // 2, pool_kernel[1] // 2),
                groups=head_dim,
                bias=False,
            )
            self.add_module(f"pool_{name}", conv)
            self.add_module(f"norm_{name}", norm_layer(head_dim))
        self.q_win_size = window_size // stride_q
        self.kv_win_size = window_size // stride_kv
        self.window_size = window_size
        self.residual_pooling = residual_pooling
        self.use_rel_pos = use_rel_pos
        if use_rel_pos:
            if input_size is None or input_size[0] != input_size[1]:
                raise UserValueError(f"use_rel_pos needs a square input_size, got {input_size}")
            side = input_size[0] // min(stride_q, stride_kv)
            self.rel_pos_h, self.rel_pos_w = make_rel_pos((side, side), head_dim, rel_pos_zero_init)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, dim) -> (N, ceil(H / stride_q), ceil(W / stride_q), dim_out)."""
        qkv = self.qkv(x).unflatten(3, (3, self.num_heads, -1))  # (N, H, W, 3, h, D)
        q, k, v = qkv.permute(3, 0, 4, 1, 2, 5).flatten(1, 2).unbind(0)  # (N*h, H, W, D) each
        q, k, v = (
            attention_pool(part, self.get_submodule(f"pool_{name}"), self.get_submodule(f"norm_{name}"))
            for name, part in (("q", q), ("k", k), ("v", v))
        )
        out = self._attend_in_windows(q, k, v) if self.window_size else self._attend(q, k, v)
        if self.residual_pooling:
            out = out + q
        heads = out.unflatten(0, (-1, self.num_heads))  # (N, h, qh, qw, D)
        return self.proj(heads.permute(0, 2, 3, 1, 4).flatten(3))

    def _attend_in_windows(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q_windows, padded_size = window_partition(q, self.q_win_size)
        k_windows, v_windows = (window_partition(part, self.kv_win_size)[0] for part in (k, v))
        out = self._attend(q_windows, k_windows, v_windows)
        return window_unpartition(out, self.q_win_size, padded_size, (q.shape[1], q.shape[2]))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, qh, qw, D), (B, kh, kw, D) and (B, kh, kw, D) -> (B, qh, qw, D)."""
        q_size, k_size = (q.shape[1], q.shape[2]), (k.shape[1], k.shape[2])
        q, k, v = (part.flatten(1, 2) for part in (q, k, v))
        bias = None
        if self.use_rel_pos:
            bias = decomposed_rel_pos(q, self.rel_pos_h, self.rel_pos_w, q_size, k_size)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).unflatten(1, q_size)


class MultiScaleBlock(nn.Module):
    """Pooling attention and MLP with residual connections; it may change resolution and channels."""

    def __init__(
        self,
        dim: int,
        dim_out: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path: float = 0.0,
        norm_layer: MakeNorm = nn.LayerNorm,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        qkv_pool_kernel: tuple[int, int] = (3, 3),
        stride_q: int = 1,
        stride_kv: int = 1,
        residual_pooling: bool = True,
        window_size: int = 0,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        """
        Args:
            mlp_ratio: hidden channels of the MLP per channel.
            drop_path: probability to skip attention, and to skip the MLP, for an image in training.
            act_layer: makes the activation of the MLP.

        The others are those of `MultiScaleAttention`.
        """
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = MultiScaleAttention(
            dim,
            dim_out,
            num_heads,
            qkv_bias,
            norm_layer,
            qkv_pool_kernel,
            stride_q,
            stride_kv,
            residual_pooling,
            window_size,
            use_rel_pos,
            rel_pos_zero_init,
            input_size,
        )
        self.drop_path = DropPath(drop_path)
        self.norm2 = norm_layer(dim_out)
        self.mlp = Mlp(dim_out, int(dim_out * mlp_ratio), act_layer=act_layer)
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else None
        self.pool_skip = nn.MaxPool2d(stride_q + 1, stride_q, (stride_q + 1) // 2) if stride_q > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, dim) -> (N, H', W', dim_out), smaller by the queries' stride."""
        normalized = self.norm1(x)
        skip = x if self.proj is None else self.proj(normalized)
        if self.pool_skip is not None:
            skip = attention_pool(skip, self.pool_skip)
        x = skip + self.drop_path(self.attn(normalized))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class MViT(Backbone):
    """MViTv2: stages that double channels and heads where they halve the resolution."""

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
        """
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
        super().__init__()
        self.pretrain_use_cls_token = pretrain_use_cls_token
        self.use_act_checkpoint = use_act_checkpoint
        self.patch_embed = PatchEmbed(patch_kernel, patch_stride, patch_padding, in_chans, embed_dim)
        self.pos_embed: nn.Parameter | None = None
        if use_abs_pos:
            num_patches = (pretrain_img_size // patch_stride[0]) * (pretrain_img_size // patch_stride[1])
            self.pos_embed = nn.Parameter(
                torch.zeros(1, num_patches + int(pretrain_use_cls_token), embed_dim)
            )
            nn.init.trunc_normal_(self.pos_embed, std=0.02)

        lasts = tuple(last_block_indexes)
        names = [f"scale{i + 2}" for i in range(len(lasts))]
        unknown = [name for name in out_features if name not in names]
        if unknown:
            raise UserValueError(f"out_features must be some of {names}, got {list(out_features)}")
        self._name_of_last = {last: name for last, name in zip(lasts, names) if name in out_features}
        self.blocks = nn.ModuleList()
        self._out_features, self._out_feature_channels, self._out_feature_strides = [], {}, {}
        for i, drop_path in enumerate(spread_drop_path(drop_path_rate, depth)):
            # Channels grow in a stage's first block; windows and input shrink behind it.
            stage = sum(i > last for last in lasts)
            num_shrunk = sum(i > last + 1 for last in lasts)
            opens_stage = i - 1 in lasts
            side = (img_size // patch_stride[0]) >> num_shrunk
            kv_stride = max(adaptive_kv_stride >> stage, 1)
            dim_out = embed_dim << stage
            self.blocks.append(
                MultiScaleBlock(
                    dim=dim_out // 2 if opens_stage else dim_out,
                    dim_out=dim_out,
                    num_heads=num_heads << stage,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    drop_path=drop_path,
                    norm_layer=norm_layer,
                    act_layer=act_layer,
                    qkv_pool_kernel=qkv_pool_kernel,
                    stride_q=2 if opens_stage else 1,
                    # The last blocks of these stages attend to the whole map: coarser keys keep that cheap.
                    stride_kv=2 * kv_stride if i in lasts[1:3] else kv_stride,
                    residual_pooling=residual_pooling,
                    window_size=0 if i in lasts[1:] else adaptive_window_size >> num_shrunk,
                    use_rel_pos=use_rel_pos,
                    rel_pos_zero_init=rel_pos_zero_init,
                    input_size=(side, side),
                )
            )
            if i in self._name_of_last:
                name = self._name_of_last[i]
                self.add_module(f"{name}_norm", norm_layer(dim_out))
                self._out_features.append(name)
                self._out_feature_channels[name] = dim_out
                self._out_feature_strides[name] = patch_stride[0] << stage
        self.apply(init_transformer_weights)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C_in, H, W) images -> {"scale2": (N, C, H / 4, W / 4), ...}."""
        x = embed_positions(self.patch_embed(x), self.pos_embed, self.pretrain_use_cls_token)
        outputs = {}
        for i, block in enumerate(self.blocks):
            x = checkpoint(block, x, use_reentrant=False) if self.use_act_checkpoint else block(x)
            if i in self._name_of_last:
                name = self._name_of_last[i]
                outputs[name] = self.get_submodule(f"{name}_norm")(x).permute(0, 3, 1, 2)
        return outputs
