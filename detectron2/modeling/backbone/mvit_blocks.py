"""Blocks of the multiscale vision transformer, version 2: attention that pools queries, keys and values.

Shapes: N images, maps are channels-last (N, H, W, C); h heads of D channels, B = N * h (or all windows of
them); queries have (qh, qw) pixels and keys (kh, kw).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.layers.batch_norm import MakeNorm
from detectron2.utils.user_errors import UserValueError

from .utils import (
    DropPath,
    Mlp,
    decomposed_rel_pos,
    make_rel_pos,
    window_partition,
    window_unpartition,
)


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
            self.add_module(f"pool_{name}", _make_pooling_conv(head_dim, pool_kernel, stride))
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
        y: Tensor = self.proj(heads.permute(0, 2, 3, 1, 4).flatten(3))
        return y

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
        out: Tensor = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).unflatten(1, q_size)
        return out


def _make_pooling_conv(channels: int, kernel: tuple[int, int], stride: int) -> nn.Conv2d:
    """Make a convolution of each channel by itself that keeps the size but for its stride."""
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels, bias=False)


@dataclass(frozen=True)
class BlockOptions:
    """The arguments of `MultiScaleBlock`, for networks whose blocks differ in a few of them."""

    dim: int
    dim_out: int
    num_heads: int
    mlp_ratio: float
    qkv_bias: bool
    norm_layer: MakeNorm
    act_layer: Callable[[], nn.Module]
    qkv_pool_kernel: tuple[int, int]
    stride_kv: int
    residual_pooling: bool
    window_size: int
    use_rel_pos: bool
    rel_pos_zero_init: bool
    input_size: tuple[int, int]
    stride_q: int = 1
    drop_path: float = 0.0


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
            num_heads=num_heads,
            qkv_bias=qkv_bias,
            norm_layer=norm_layer,
            pool_kernel=qkv_pool_kernel,
            stride_q=stride_q,
            stride_kv=stride_kv,
            residual_pooling=residual_pooling,
            window_size=window_size,
            use_rel_pos=use_rel_pos,
            rel_pos_zero_init=rel_pos_zero_init,
            input_size=input_size,
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
        y: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return y
