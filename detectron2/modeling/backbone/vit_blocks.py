"""Blocks of the plain vision transformer: attention, optionally in windows, and the parts around it.

Shapes: N images, maps are channels-last (N, H, W, C) with H and W counted in patches; B = N (or all windows
of N images), h heads of D channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.layers.batch_norm import MakeNorm, Norm, get_norm
from detectron2.layers.blocks import CNNBlockBase
from detectron2.layers.weight_init import c2_msra_fill
from detectron2.layers.wrappers import Conv2d
from detectron2.utils.user_errors import UserValueError

from .utils import (
    DropPath,
    Mlp,
    decomposed_rel_pos,
    make_rel_pos,
    window_partition,
    window_unpartition,
)


class Attention(nn.Module):
    """Multi-head self-attention over all pixels of a map."""

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        """
        Args:
            dim: C, a multiple of `num_heads`.
            num_heads: h.
            qkv_bias: give the projection to queries, keys and values a bias.
            use_rel_pos: add embeddings of relative positions to the logits.
            rel_pos_zero_init: start them from zero.
            input_size: (H, W) that their tables are made for.
        """
        super().__init__()
        if dim % num_heads:
            raise UserValueError(f"dim {dim} must be a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.use_rel_pos = use_rel_pos
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        if use_rel_pos:
            if input_size is None:
                raise UserValueError(
                    "use_rel_pos needs the input_size that the tables of positions are made for"
                )
            self.rel_pos_h, self.rel_pos_w = make_rel_pos(input_size, dim // num_heads, rel_pos_zero_init)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        size = (x.shape[1], x.shape[2])
        qkv = self.qkv(x).flatten(1, 2).unflatten(2, (3, self.num_heads, -1))  # (B, H*W, 3, h, D)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, h, H*W, D) each
        bias = None
        if self.use_rel_pos:
            flat = decomposed_rel_pos(q.flatten(0, 1), self.rel_pos_h, self.rel_pos_w, size, size)
            bias = flat.unflatten(0, (-1, self.num_heads))  # (B, h, H*W, H*W)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        y: Tensor = self.proj(attended.transpose(1, 2).flatten(2).unflatten(1, size))
        return y


class ResBottleneckBlock(CNNBlockBase):
    """Convolutional bottleneck that starts as the identity; it lets windowed blocks see their neighbours."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bottleneck_channels: int,
        norm: Norm = "LN",
        act_layer: Callable[[], nn.Module] = nn.GELU,
    ) -> None:
        """
        Args:
            bottleneck_channels: channels of the 3x3 convolution.
            norm: after each convolution.
            act_layer: makes the activations after the first two.
        """
        super().__init__(in_channels, out_channels, 1)
        widths = (in_channels, bottleneck_channels, bottleneck_channels, out_channels)
        for i, kernel_size in enumerate((1, 3, 1), start=1):
            conv = Conv2d(widths[i - 1], widths[i], kernel_size, padding=kernel_size // 2, bias=False)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"norm{i}", get_norm(norm, widths[i]) or nn.Identity())
            if i < 3:
                self.add_module(f"act{i}", act_layer())
        for i in (1, 2, 3):
            c2_msra_fill(self.get_submodule(f"conv{i}"))
        for parameter in self.get_submodule("norm3").parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        out = x
        for layer in self.children():
            out = layer(out)
        return x + out


@dataclass(frozen=True)
class BlockOptions:
    """The arguments of `Block`, for networks whose blocks differ in a few of them."""

    dim: int
    num_heads: int
    mlp_ratio: float
    qkv_bias: bool
    norm_layer: MakeNorm
    act_layer: Callable[[], nn.Module]
    use_rel_pos: bool
    rel_pos_zero_init: bool
    input_size: tuple[int, int]
    drop_path: float = 0.0
    window_size: int = 0
    use_residual_block: bool = False


class Block(nn.Module):
    """Attention and MLP, each with a residual connection; optionally a convolutional block behind them."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path: float = 0.0,
        norm_layer: MakeNorm = nn.LayerNorm,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        window_size: int = 0,
        use_residual_block: bool = False,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        """
        Args:
            dim: C.
            mlp_ratio: hidden channels of the MLP per channel.
            drop_path: probability to skip attention, and to skip the MLP, for an image in training.
            window_size: attend inside windows of this side; 0 attends to the whole map.
            use_residual_block: append a `ResBottleneckBlock`.
            input_size: (H, W) that tables of relative positions are made for, unless there are windows.

        The others are those of `Attention`.
        """
        super().__init__()
        self.window_size = window_size
        self.norm1 = norm_layer(dim)
        attended_size = (window_size, window_size) if window_size else input_size
        self.attn = Attention(dim, num_heads, qkv_bias, use_rel_pos, rel_pos_zero_init, attended_size)
        self.drop_path = DropPath(drop_path)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer)
        self.use_residual_block = use_residual_block
        if use_residual_block:
            self.residual = ResBottleneckBlock(dim, dim, dim // 2, norm="LN", act_layer=act_layer)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> the same shape."""
        x = x + self.drop_path(self._attend(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        if not self.use_residual_block:
            return x
        mixed: Tensor = self.residual(x.movedim(3, 1)).movedim(1, 3)
        return mixed

    def _attend(self, x: Tensor) -> Tensor:
        if not self.window_size:
            attended: Tensor = self.attn(x)
            return attended
        windows, padded_size = window_partition(x, self.window_size)
        return window_unpartition(self.attn(windows), self.window_size, padded_size, (x.shape[1], x.shape[2]))
