"""Parts that the transformer backbones share: windows, positions, patches, and the MLP of a block.

Shapes: N images, maps are channels-last (N, H, W, C); w window size, W windows over all images; q and k are
the heights (or widths) of query and key maps, D channels of one attention head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.utils.user_errors import UserValueError

__all__ = [
    "DropPath",
    "Mlp",
    "PatchEmbed",
    "add_decomposed_rel_pos",
    "get_abs_pos",
    "get_rel_pos",
    "window_partition",
    "window_unpartition",
]


def window_partition(x: Tensor, window_size: int) -> tuple[Tensor, tuple[int, int]]:
    """Cut maps into windows that do not overlap, padded with zeros below and to the right where needed.

    Args:
        x: (N, H, W, C).
        window_size: side of a window.

    Returns:
        (W, w, w, C) windows, image by image and row by row, and the padded (height, width).
    """
    height, width = x.shape[1:3]
    padded = tuple(math.ceil(size / window_size) * window_size for size in (height, width))
    x = F.pad(x, (0, 0, 0, padded[1] - width, 0, padded[0] - height))
    tiles = x.unflatten(2, (-1, window_size)).unflatten(1, (-1, window_size))  # (N, H/w, w, W/w, w, C)
    return tiles.transpose(2, 3).flatten(0, 2), (padded[0], padded[1])


def window_unpartition(
    windows: Tensor, window_size: int, pad_hw: tuple[int, int], hw: tuple[int, int]
) -> Tensor:
    """Put windows together again, and cut the padding off.

    Args:
        windows: (W, w, w, C), as `window_partition` gives them.
        window_size: side of a window.
        pad_hw: padded (height, width), as `window_partition` gives it.
        hw: (height, width) without padding.

    Returns:
        (N, H, W, C).
    """
    grid = (-1, pad_hw[0] // window_size, pad_hw[1] // window_size)
    tiles: Tensor = windows.unflatten(0, grid).transpose(2, 3)  # (N, H/w, w, W/w, w, C)
    return tiles.flatten(3, 4).flatten(1, 2)[:, : hw[0], : hw[1]]


def get_rel_pos(q_size: int, k_size: int, rel_pos: Tensor) -> Tensor:
    """Look up the embedding of the offset between every query and every key along one axis.

    A table made for another size is interpolated; where one map is coarser than the other, its positions are
    spread over the finer one.

    Args:
        q_size: q.
        k_size: k.
        rel_pos: (L, D) embeddings of the offsets from -(L - 1) / 2 to (L - 1) / 2.

    Returns:
        (q, k, D).
    """
    num_offsets = 2 * max(q_size, k_size) - 1
    if len(rel_pos) != num_offsets:
        as_signal = rel_pos.T.unsqueeze(0)  # (1, D, L)
        rel_pos = F.interpolate(as_signal, size=num_offsets, mode="linear")[0].T
    q_step, k_step = max(k_size / q_size, 1.0), max(q_size / k_size, 1.0)
    q_position = torch.arange(q_size, device=rel_pos.device) * q_step
    k_position = torch.arange(k_size, device=rel_pos.device) * k_step
    offset = q_position[:, None] - k_position + (k_size - 1) * k_step
    return rel_pos[offset.long()]


def decomposed_rel_pos(
    q: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor, q_size: tuple[int, int], k_size: tuple[int, int]
) -> Tensor:
    """Score the offset of every query and key pixel by embeddings of its rows plus those of its columns.

    Args:
        q: (B, qh * qw, D) queries.
        rel_pos_h: (L, D) embeddings of offsets in rows.
        rel_pos_w: (L', D) embeddings of offsets in columns.
        q_size: (qh, qw).
        k_size: (kh, kw).

    Returns:
        (B, qh * qw, kh * kw), to be added to attention logits.
    """
    rows = get_rel_pos(q_size[0], k_size[0], rel_pos_h)
    columns = get_rel_pos(q_size[1], k_size[1], rel_pos_w)
    q_map = q.unflatten(1, q_size)  # (B, qh, qw, D)
    by_row = torch.einsum("byxd,yjd->byxj", q_map, rows)
    by_column = torch.einsum("byxd,xid->byxi", q_map, columns)
    scores = by_row.unsqueeze(-1) + by_column.unsqueeze(-2)  # (B, qh, qw, kh, kw)
    return scores.flatten(3, 4).flatten(1, 2)


def add_decomposed_rel_pos(
    attn: Tensor,
    q: Tensor,
    rel_pos_h: Tensor,
    rel_pos_w: Tensor,
    q_size: tuple[int, int],
    k_size: tuple[int, int],
) -> Tensor:
    """Add `decomposed_rel_pos` to (B, qh * qw, kh * kw) attention logits; the other arguments are its own."""
    return attn + decomposed_rel_pos(q, rel_pos_h, rel_pos_w, q_size, k_size)


def get_abs_pos(abs_pos: Tensor, has_cls_token: bool, hw: tuple[int, int]) -> Tensor:
    """Fit position embeddings, learned on a square grid, to maps of another size.

    Args:
        abs_pos: (1, P, C), row by row.
        has_cls_token: the first of the P belongs to a class token, and is left out.
        hw: (H, W) of the map.

    Returns:
        (1, H, W, C).
    """
    if has_cls_token:
        abs_pos = abs_pos[:, 1:]
    side = math.isqrt(abs_pos.shape[1])
    if side * side != abs_pos.shape[1]:
        raise UserValueError(
            f"position embeddings must fill a square, got {abs_pos.shape[1]} of them; check has_cls_token"
        )
    grid: Tensor = abs_pos.unflatten(1, (side, side))
    if (side, side) == tuple(hw):
        return grid
    resized = F.interpolate(grid.permute(0, 3, 1, 2), size=hw, mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1)


class PatchEmbed(nn.Module):
    """Turn images into channels-last maps of patch embeddings by one strided convolution."""

    def __init__(
        self,
        kernel_size: tuple[int, int] = (16, 16),
        stride: tuple[int, int] = (16, 16),
        padding: tuple[int, int] = (0, 0),
        in_chans: int = 3,
        embed_dim: int = 768,
    ) -> None:
        """
        Args:
            kernel_size, stride, padding: of the convolution, per (height, width).
            in_chans: channels of the images.
            embed_dim: channels of the maps.
        """
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H_image, W_image) -> (N, H, W, C)."""
        patches: Tensor = self.proj(x)
        return patches.permute(0, 2, 3, 1)


class Mlp(nn.Module):
    """Two linear layers with an activation between them, on the last axis."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        drop: float = 0.0,
    ) -> None:
        """
        Args:
            in_features: channels of the input, and of the other two where they are None.
            hidden_features: channels between the layers.
            out_features: channels of the output.
            act_layer: makes the activation.
            drop: dropout after each layer.
        """
        super().__init__()
        hidden_features = hidden_features or in_features
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.fc2 = nn.Linear(hidden_features, out_features or in_features)
        self.act = act_layer()
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C_in) -> (..., C_out)."""
        hidden = self.drop(self.act(self.fc1(x)))
        y: Tensor = self.drop(self.fc2(hidden))
        return y


class DropPath(nn.Module):
    """In training, replace the residual branch of randomly chosen images by zero, and scale up the others."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        if not 0 <= drop_prob < 1:
            raise UserValueError(f"the probability to drop a path must lie in [0, 1), got {drop_prob}")
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) -> the same shape."""
        if not self.training or self.drop_prob == 0:
            return x
        keep = 1 - self.drop_prob
        mask = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(keep)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob}"


def spread_drop_path(rate: float, num_blocks: int) -> list[float]:
    """Probabilities to drop each block's branches, growing evenly from 0 to `rate`."""
    return [rate * i / max(num_blocks - 1, 1) for i in range(num_blocks)]


def init_transformer_weights(module: nn.Module) -> None:
    """Initialise one linear or layer norm module; others stay as they are."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def make_abs_pos(num_positions: int, channels: int) -> nn.Parameter:
    """Make the embeddings (1, P, C) that `get_abs_pos` fits to a map, zero until `init_transformer`."""
    return nn.Parameter(torch.zeros(1, num_positions, channels))


def init_transformer(module: nn.Module, abs_pos: nn.Parameter | None) -> None:
    """Draw the position embeddings, if there are any, and then the weights of all parts."""
    if abs_pos is not None:
        nn.init.trunc_normal_(abs_pos, std=0.02)
    module.apply(init_transformer_weights)


def embed_positions(x: Tensor, abs_pos: Tensor | None, has_cls_token: bool) -> Tensor:
    """Add position embeddings, if there are any, to (N, H, W, C) maps."""
    if abs_pos is None:
        return x
    return x + get_abs_pos(abs_pos, has_cls_token, (x.shape[1], x.shape[2]))


def make_rel_pos(sizes: Sequence[int], channels: int, zero_init: bool) -> tuple[nn.Parameter, nn.Parameter]:
    """Make the tables of relative positions along height and width for maps of `sizes` (height, width)."""
    tables = [nn.Parameter(torch.zeros(2 * size - 1, channels)) for size in sizes]
    if not zero_init:
        for table in tables:
            nn.init.trunc_normal_(table, std=0.02)
    return tables[0], tables[1]
