"""Attention in windows, blocks and stages of the Swin transformer.

Shapes: N images, maps are channels-last (N, H, W, C) or flat (N, L, C) with L = H * W; w window size, W
windows over all images, P = w * w pixels of a window; h heads of D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from detectron2.utils.user_errors import UserValueError

from . import utils
from .utils import DropPath, Mlp, window_unpartition

MakeNorm = Callable[[int], nn.Module]

# Added to logits between pixels that are neighbours only because the map was rolled.
_FORBIDDEN = -100.0


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
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", _index_offsets(*window_size))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

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
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))


def _index_offsets(height: int, width: int) -> Tensor:
    """Number the offset between any two pixels of a window: (P, P) in [0, (2 h - 1) * (2 w - 1))."""
    y, x = (
        axis.flatten() for axis in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    )
    down = y[:, None] - y + height - 1
    right = x[:, None] - x + width - 1
    return down * (2 * width - 1) + right


class SwinTransformerBlock(nn.Module):
    """Windowed attention and MLP, each with a residual connection.

    Attributes:
        H, W: size of the map, to be set before each call: the input is flat.
    """

    H: int
    W: int

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int = 7,
        shift_size: int = 0,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        norm_layer: MakeNorm = nn.LayerNorm,
    ) -> None:
        """
        Args:
            shift_size: move the windows down and right by this many pixels, less than `window_size`.
            mlp_ratio: hidden channels of the MLP per channel.
            drop: dropout of the outputs of attention and of the MLP's layers.
            drop_path: probability to skip attention, and to skip the MLP, for an image in training.

        The others are those of `WindowAttention`.
        """
        super().__init__()
        if not 0 <= shift_size < window_size:
            raise UserValueError(f"shift_size must lie in [0, window_size = {window_size}), got {shift_size}")
        self.window_size = window_size
        self.shift_size = shift_size
        self.norm1 = norm_layer(dim)
        self.attn = WindowAttention(
            dim, (window_size, window_size), num_heads, qkv_bias, qk_scale, attn_drop, drop
        )
        self.drop_path = DropPath(drop_path)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=drop)

    def forward(self, x: Tensor, mask_matrix: Tensor) -> Tensor:
        """
        Args:
            x: (N, L, C), of a map of the attributes' size.
            mask_matrix: what `WindowAttention` takes as mask; it is used where windows are shifted.

        Returns:
            (N, L, C).
        """
        if x.shape[1] != self.H * self.W:
            raise UserValueError(f"a map of {self.H} x {self.W} pixels does not have {x.shape[1]} of them")
        maps = self.norm1(x).unflatten(1, (self.H, self.W))
        x = x + self.drop_path(self._attend(maps, mask_matrix).flatten(1, 2))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        """(N, H, W, C) -> the same shape."""
        side, shift = self.window_size, self.shift_size
        x = F.pad(x, (0, 0, 0, -self.W % side, 0, -self.H % side))
        size = (x.shape[1], x.shape[2])
        if shift:
            x = x.roll((-shift, -shift), dims=(1, 2))
        windows = window_partition(x, side).flatten(1, 2)  # (W, P, C)
        attended = self.attn(windows, mask if shift else None).unflatten(1, (side, side))
        x = window_reverse(attended, side, *size)
        if shift:
            x = x.roll((shift, shift), dims=(1, 2))
        return x[:, : self.H, : self.W]


class PatchMerging(nn.Module):
    """Halve the resolution: join 2 x 2 pixels, and map their 4 C channels to 2 C."""

    def __init__(self, dim: int, norm_layer: MakeNorm = nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm_layer(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor, H: int, W: int) -> Tensor:
        """(N, H * W, C) -> (N, ceil(H / 2) * ceil(W / 2), 2 C)."""
        if x.shape[1] != H * W:
            raise UserValueError(f"a map of {H} x {W} pixels does not have {x.shape[1]} of them")
        maps = F.pad(x.unflatten(1, (H, W)), (0, 0, 0, W % 2, 0, H % 2))
        quads = maps.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (N, H/2, 2, W/2, 2, C)
        # Checkpoints want the channels column by column: top left, bottom left, top right, bottom right.
        merged = quads.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)  # (N, L/4, 4 C)
        return self.reduction(self.norm(merged))


class BasicLayer(nn.Module):
    """One stage: blocks of one resolution, with windows shifted in every second, then a change of it."""

    def __init__(
        self,
        dim: int,
        depth: int,
        num_heads: int,
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float | Sequence[float] = 0.0,
        norm_layer: MakeNorm = nn.LayerNorm,
        downsample: Callable[..., nn.Module] | None = None,
        use_checkpoint: bool = False,
    ) -> None:
        """
        Args:
            depth: number of blocks.
            drop_path: of all blocks, or of each.
            downsample: makes what follows the blocks, such as `PatchMerging`; None for nothing.
            use_checkpoint: recompute activations in the backward pass, which saves memory.

        The others are those of `SwinTransformerBlock`.
        """
        super().__init__()
        self.window_size = window_size
        self.shift_size = window_size // 2
        self.use_checkpoint = use_checkpoint
        rates = [drop_path] * depth if isinstance(drop_path, (int, float)) else list(drop_path)
        self.blocks = nn.ModuleList(
            SwinTransformerBlock(
                dim,
                num_heads,
                window_size,
                self.shift_size if i % 2 else 0,
                mlp_ratio,
                qkv_bias,
                qk_scale,
                drop,
                attn_drop,
                rates[i],
                norm_layer=norm_layer,
            )
            for i in range(depth)
        )
        self.downsample = None if downsample is None else downsample(dim=dim, norm_layer=norm_layer)

    def forward(self, x: Tensor, H: int, W: int) -> tuple[Tensor, int, int, Tensor, int, int]:
        """Run the stage.

        Args:
            x: (N, H * W, C).
            H, W: size of the map.

        Returns:
            The blocks' output (N, H * W, C), H, W, and the same for what follows them: (N, H' * W', C'), H',
            W'.
        """
        mask = self._forbid_wrapped_pixels(H, W, x)
        for block in self.blocks:
            assert isinstance(block, SwinTransformerBlock)
            block.H, block.W = H, W
            x = checkpoint(block, x, mask, use_reentrant=False) if self.use_checkpoint else block(x, mask)
        if self.downsample is None:
            return x, H, W, x, H, W
        return x, H, W, self.downsample(x, H, W), (H + 1) // 2, (W + 1) // 2

    def _forbid_wrapped_pixels(self, H: int, W: int, like: Tensor) -> Tensor:
        """Mask for shifted windows: (windows of an image, P, P), 0 where two pixels may see each other."""
        side, shift = self.window_size, self.shift_size

        def regions(size: int) -> Tensor:
            padded = size + -size % side
            position = torch.arange(padded, device=like.device)
            return (position >= padded - side).int() + (position >= padded - shift).int()

        region = 3 * regions(H)[:, None] + regions(W)
        windows = window_partition(region[None, :, :, None], side).flatten(1)  # (windows, P)
        differs = windows[:, :, None] != windows[:, None, :]
        return differs.to(like.dtype) * _FORBIDDEN


class PatchEmbed(nn.Module):
    """Turn images into maps of patch embeddings, padded where patches do not fit."""

    def __init__(
        self, patch_size: int = 4, in_chans: int = 3, embed_dim: int = 96, norm_layer: MakeNorm | None = None
    ) -> None:
        """
        Args:
            patch_size: side of a patch.
            in_chans: channels of the images.
            embed_dim: C.
            norm_layer: makes the norm of the embeddings; None for none.
        """
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)
        self.norm = None if norm_layer is None else norm_layer(embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H_image, W_image) -> channels-first (N, C, H, W)."""
        x = self.proj(F.pad(x, (0, -x.shape[3] % self.patch_size, 0, -x.shape[2] % self.patch_size)))
        if self.norm is not None:
            x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x
