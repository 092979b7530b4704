"""Plain vision transformer with windowed blocks, and the pyramid that ViTDet puts on its single map.

Shapes: N images, maps inside the transformer are channels-last (N, H, W, C) with H and W counted in patches;
B = N (or all windows of N images), h heads of D channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from detectron2.layers.batch_norm import get_norm
from detectron2.layers.blocks import CNNBlockBase
from detectron2.layers.weight_init import c2_msra_fill
from detectron2.layers.wrappers import Conv2d
from detectron2.utils.user_errors import UserValueError

from .backbone import Backbone, stated
from .fpn import TopBlock
from .residual import Norm
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

__all__ = ["SimpleFeaturePyramid", "ViT", "get_vit_lr_decay_rate"]

MakeNorm = Callable[[int], nn.Module]


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
        return self.proj(attended.transpose(1, 2).flatten(2).unflatten(1, size))


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
            c2_msra_fill(conv)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"norm{i}", get_norm(norm, widths[i]) or nn.Identity())
            if i < 3:
                self.add_module(f"act{i}", act_layer())
        for parameter in self.get_submodule("norm3").parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        out = x
        for layer in self.children():
            out = layer(out)
        return x + out


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
        self.attn = Attention(
            dim,
            num_heads,
            qkv_bias,
            use_rel_pos,
            rel_pos_zero_init,
            (window_size, window_size) if window_size else input_size,
        )
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
        if self.use_residual_block:
            x = self.residual(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x

    def _attend(self, x: Tensor) -> Tensor:
        if not self.window_size:
            return self.attn(x)
        windows, padded_size = window_partition(x, self.window_size)
        return window_unpartition(self.attn(windows), self.window_size, padded_size, (x.shape[1], x.shape[2]))


class ViT(Backbone):
    """Vision transformer that gives one map, of the patches' stride."""

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
        """
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
        super().__init__()
        self.pretrain_use_cls_token = pretrain_use_cls_token
        self.use_act_checkpoint = use_act_checkpoint
        self.patch_embed = PatchEmbed(
            (patch_size, patch_size), (patch_size, patch_size), (0, 0), in_chans, embed_dim
        )
        self.pos_embed: nn.Parameter | None = None
        if use_abs_pos:
            num_positions = (pretrain_img_size // patch_size) ** 2 + int(pretrain_use_cls_token)
            self.pos_embed = nn.Parameter(torch.zeros(1, num_positions, embed_dim))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = nn.ModuleList(
            Block(
                embed_dim,
                num_heads,
                mlp_ratio,
                qkv_bias,
                drop_path,
                norm_layer,
                act_layer,
                use_rel_pos,
                rel_pos_zero_init,
                window_size if i in window_block_indexes else 0,
                i in residual_block_indexes,
                (img_size // patch_size, img_size // patch_size),
            )
            for i, drop_path in enumerate(spread_drop_path(drop_path_rate, depth))
        )
        self.apply(init_transformer_weights)
        self._out_features = [out_feature]
        self._out_feature_channels = {out_feature: embed_dim}
        self._out_feature_strides = {out_feature: patch_size}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C_in, H_image, W_image) -> one map (N, C, H, W)."""
        x = embed_positions(self.patch_embed(x), self.pos_embed, self.pretrain_use_cls_token)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.use_act_checkpoint else block(x)
        return {self._out_features[0]: x.permute(0, 3, 1, 2)}


class SimpleFeaturePyramid(Backbone):
    """Maps of several resolutions, each made from the same single map of another backbone."""

    def __init__(
        self,
        net: Backbone,
        in_feature: str,
        out_channels: int,
        scale_factors: Sequence[float],
        top_block: TopBlock | None = None,
        norm: Norm = "LN",
        square_pad: int = 0,
    ) -> None:
        """
        Args:
            net: gives the map `in_feature`.
            in_feature: name of that map.
            out_channels: of every level.
            scale_factors: resolutions of the levels by that of the map: 4, 2, 1 or 0.5, from fine to coarse.
            top_block: makes further, coarser levels, from the map or level that its `in_feature` names.
            norm: after each convolution; "" means bias instead.
            square_pad: side of the square that images are padded to; 0 means no square.
        """
        super().__init__()
        shapes = net.output_shape()
        if in_feature not in shapes:
            raise UserValueError(
                f"in_feature {in_feature!r} is not among the backbone's outputs {list(shapes)}"
            )
        channels = stated(shapes[in_feature].channels, f"channels of {in_feature}")
        strides = [
            int(stated(shapes[in_feature].stride, f"stride of {in_feature}") / s) for s in scale_factors
        ]
        levels = [int(math.log2(stride)) for stride in strides]
        if any(2**level != stride for level, stride in zip(levels, strides)) or sorted(levels) != levels:
            raise UserValueError(f"levels need growing strides that are powers of two, got {strides}")
        for level, scale in zip(levels, scale_factors):
            self.add_module(f"simfp_{level}", _make_pyramid_level(channels, out_channels, scale, norm))
        self._levels = tuple(levels)
        self.net = net
        self.in_feature = in_feature
        self.top_block = top_block

        if top_block is not None:
            levels += [levels[-1] + 1 + i for i in range(top_block.num_levels)]
        self._out_features = [f"p{level}" for level in levels]
        self._out_feature_strides = {f"p{level}": 2**level for level in levels}
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)
        self._size_divisibility = strides[-1]
        self._square_pad = square_pad

    @property
    def size_divisibility(self) -> int:
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        return {"size_divisibility": self._size_divisibility, "square_size": self._square_pad}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C_in, H, W) images -> {"p2": (N, C, H / 4, W / 4), "p3": ..., ...}."""
        bottom_up = self.net(x)
        source = bottom_up[self.in_feature]
        outputs = {f"p{level}": self.get_submodule(f"simfp_{level}")(source) for level in self._levels}
        if self.top_block is not None:
            name = self.top_block.in_feature
            top = self.top_block(bottom_up[name] if name in bottom_up else outputs[name])
            outputs.update(zip(self._out_features[len(outputs) :], top))
        return outputs


def _make_pyramid_level(channels: int, out_channels: int, scale: float, norm: Norm) -> nn.Sequential:
    """Change the resolution by `scale`, then a 1x1 and a 3x3 convolution to `out_channels`."""
    layers: list[nn.Module]
    if scale in (4.0, 2.0):
        layers = [nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2)]
        channels //= 2
        if scale == 4.0:
            # Positions in the Sequential are checkpoint names.
            layers += [get_norm(norm, channels) or nn.Identity(), nn.GELU()]
            layers += [nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2)]
            channels //= 2
    elif scale == 1.0:
        layers = []
    elif scale == 0.5:
        layers = [nn.MaxPool2d(kernel_size=2, stride=2)]
    else:
        raise UserValueError(f"scale_factors must be among 4, 2, 1 and 0.5, got {scale}")
    for kernel_size in (1, 3):
        layers.append(
            Conv2d(
                channels,
                out_channels,
                kernel_size,
                padding=kernel_size // 2,
                bias=norm == "",
                norm=get_norm(norm, out_channels),
            )
        )
        channels = out_channels
    return nn.Sequential(*layers)


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
