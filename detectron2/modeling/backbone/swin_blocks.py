"""Blocks and stages of the Swin transformer, and how patches are embedded and merged.

Shapes: N images, maps are channels-last (N, H, W, C) or flat (N, L, C) with L = H * W; W windows over all
images, P pixels of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from detectron2.layers.batch_norm import MakeNorm
from detectron2.utils.user_errors import UserValueError

from .swin_attention import WindowAttention, window_partition, window_reverse
from .utils import DropPath, Mlp

# Added to logits between pixels that are neighbours only because the map was rolled.
_FORBIDDEN = -100.0


@dataclass(frozen=True)
class BlockOptions:
    """What the blocks of all stages have in common; the names are those of `SwinTransformerBlock`."""

    window_size: int
    mlp_ratio: float
    qkv_bias: bool
    qk_scale: float | None
    drop: float
    attn_drop: float
    norm_layer: MakeNorm


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
            dim,
            (window_size, window_size),
            num_heads=num_heads,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            attn_drop=attn_drop,
            proj_drop=drop,
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
        y: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return y

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
        y: Tensor = self.reduction(self.norm(merged))
        return y


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
        options = BlockOptions(
            window_size=window_size,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            drop=drop,
            attn_drop=attn_drop,
            norm_layer=norm_layer,
        )
        self.blocks = nn.ModuleList(
            SwinTransformerBlock(
                dim,
                num_heads,
                shift_size=self.shift_size if i % 2 else 0,
                drop_path=rates[i],
                **vars(options),
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
