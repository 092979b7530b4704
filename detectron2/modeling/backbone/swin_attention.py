"""Attention inside windows, as the Swin transformer has it.

Shapes: N images, maps are channels-last (N, H, W, C); w window size, W windows over all images, P = w * w
pixels of a window; h heads of D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.utils.user_errors import UserValueError

from . import utils
from .utils import window_unpartition


def window_partition(x: Tensor, window_size: int) -> Tensor:
    """Cut (N, H, W, C) maps, H and W multiples of `window_size`, into (W, w, w, C) windows."""
    return utils.window_partition(x, window_size)[0]


def window_reverse(windows: Tensor, window_size: int, H: int, W: int) -> Tensor:
    """Put (W, w, w, C) windows together again, to (N, H, W, C)."""
    return window_unpartition(windows, window_size, (H, W), (H, W))


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with a learned bias per head and offset between pixels."""

    relative_position_index: Tensor

    def __init__(
        self,
        dim: int,
        window_size: tuple[int, int],
        num_heads: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        """
        Args:
            dim: C, a multiple of `num_heads`.
            window_size: (height, width).
            num_heads: h.
            qkv_bias: give the projection to queries, keys and values a bias.
            qk_scale: factor on the logits; None means 1 / sqrt(D).
            attn_drop: dropout of attention weights.
            proj_drop: dropout of the output.
        """
        super().__init__()
        if dim % num_heads:
            raise UserValueError(f"dim {dim} must be a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.scale = qk_scale
        self.attn_drop = attn_drop
        num_offsets = (2 * window_size[0] - 1) * (2 * window_size[1] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.empty(num_offsets, num_heads))
        self.register_buffer("relative_position_index", _index_offsets(*window_size))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """
        Args:
            x: (W, P, C).
            mask: (windows of an image, P, P), added to the logits; None for none.

        Returns:
            (W, P, C).
        """
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.relative_position_bias_table[self.relative_position_index]  # (P, P, h)
        bias = bias.permute(2, 0, 1)
        if mask is not None:
            per_window = bias + mask.unsqueeze(1)  # (windows of an image, h, P, P)
            bias = per_window.repeat(len(x) // len(mask), 1, 1, 1)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=bias.to(q.dtype),
            dropout_p=self.attn_drop if self.training else 0.0,
            scale=self.scale,
        )
        y: Tensor = self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))
        return y


def _index_offsets(height: int, width: int) -> Tensor:
    """Number the offset between any two pixels of a window: (P, P) in [0, (2 h - 1) * (2 w - 1))."""
    y, x = (
        axis.flatten() for axis in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    )
    down = y[:, None] - y + height - 1
    right = x[:, None] - x + width - 1
    return down * (2 * width - 1) + right
