"""A seed decides the weights that transformers and RegNet start from."""

from __future__ import annotations

import torch
from torch import nn

from detectron2.modeling.backbone import MViT, RegNet, SimpleFeaturePyramid, SwinTransformer, ViT
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.regnet import ResBottleneckBlock, SimpleStem

from ..seeded_draws import Draws, check

SEED = 11


def test_vit_with_its_pyramid() -> None:
    torch.manual_seed(SEED)
    net = ViT(
        img_size=64, embed_dim=16, depth=2, num_heads=2, use_rel_pos=True, rel_pos_zero_init=False,
        window_size=4, window_block_indexes=[0], residual_block_indexes=[1],
    )  # fmt: skip
    model = SimpleFeaturePyramid(net, "last_feat", 8, (4.0, 2.0, 1.0, 0.5), LastLevelMaxPool(), norm="LN")

    d = Draws(SEED)
    d.conv("net.patch_embed.proj", 3, 16, 16)
    linears = []
    for i in range(2):
        name = f"net.blocks.{i}"
        linears += [d.linear(f"{name}.attn.qkv", 16, 48), d.linear(f"{name}.attn.proj", 16, 16)]
        for axis in "hw":
            d.table(f"{name}.attn.rel_pos_{axis}", 7, 8)
        linears += [d.linear(f"{name}.mlp.fc1", 16, 64), d.linear(f"{name}.mlp.fc2", 64, 16)]
    sizes = ((16, 8, 1), (8, 8, 3), (8, 16, 1))
    d.msra(*[d.conv(f"net.blocks.1.residual.conv{i + 1}", *size, bias=False) for i, size in enumerate(sizes)])
    d.table("net.pos_embed", 1, 197, 16)
    d.truncated(*linears)
    for level, ups in ((2, (16, 8, 4)), (3, (16, 8)), (4, (16,)), (5, (16,))):
        place = {2: (0, 3), 3: (0,)}.get(level, ())
        for position, c_in, c_out in zip(place, ups, ups[1:]):
            d.deconv(f"simfp_{level}.{position}", c_in, c_out, 2)
        first = {2: 4, 3: 1, 4: 0, 5: 1}[level]
        d.conv(f"simfp_{level}.{first}", ups[-1], 8, 1, bias=False)
        d.conv(f"simfp_{level}.{first + 1}", 8, 8, 3, bias=False)
    check(model, d)


def test_swin() -> None:
    torch.manual_seed(SEED)
    model = SwinTransformer(
        pretrain_img_size=32, embed_dim=8, depths=(1, 2), num_heads=(2, 4), window_size=4, ape=True,
        out_indices=(0, 1),
    )  # fmt: skip
    d = Draws(SEED)
    d.conv("patch_embed.proj", 3, 8, 4)
    d.table("absolute_pos_embed", 1, 8, 8, 8)
    linears = []
    for stage, depth in enumerate((1, 2)):
        dim = 8 << stage
        for block in range(depth):
            name = f"layers.{stage}.blocks.{block}"
            linears += [d.linear(f"{name}.attn.qkv", dim, 3 * dim), d.linear(f"{name}.attn.proj", dim, dim)]
            d.table(f"{name}.attn.relative_position_bias_table", 49, 2 << stage)
            linears += [
                d.linear(f"{name}.mlp.fc1", dim, 4 * dim), d.linear(f"{name}.mlp.fc2", 4 * dim, dim)
            ]  # fmt: skip
        if stage == 0:
            linears.append(d.linear("layers.0.downsample.reduction", 32, 16, bias=False))
    d.truncated(*linears)
    check(model, d)


def test_mvit() -> None:
    torch.manual_seed(SEED)
    model = MViT(
        img_size=64, embed_dim=8, depth=3, num_heads=1, last_block_indexes=(0, 2), adaptive_kv_stride=2,
        adaptive_window_size=8, use_abs_pos=True, rel_pos_zero_init=False, pretrain_img_size=32,
        out_features=("scale2", "scale3"),
    )  # fmt: skip
    d = Draws(SEED)
    d.conv("patch_embed.proj", 3, 8, 7)
    linears = []
    # channels in and out, and the side of the map that positions are made for over the smaller stride
    for i, (c_in, c_out, side) in enumerate(((8, 8, 16), (8, 16, 16), (16, 16, 8))):
        name, head = f"blocks.{i}", 8
        linears += [
            d.linear(f"{name}.attn.qkv", c_in, 3 * c_out),
            d.linear(f"{name}.attn.proj", c_out, c_out),
        ]
        for part in "qkv":
            d.conv(f"{name}.attn.pool_{part}", head, head, 3, bias=False, groups=head)
        for axis in "hw":
            d.table(f"{name}.attn.rel_pos_{axis}", 2 * side - 1, head)
        linears += [
            d.linear(f"{name}.mlp.fc1", c_out, 4 * c_out), d.linear(f"{name}.mlp.fc2", 4 * c_out, c_out)
        ]  # fmt: skip
        if c_in != c_out:
            linears.append(d.linear(f"{name}.proj", c_in, c_out))
    d.table("pos_embed", 1, 65, 8)
    d.truncated(*linears)
    check(model, d)


def test_regnet() -> None:
    torch.manual_seed(SEED)
    model = RegNet(
        stem_class=SimpleStem, stem_width=8, block_class=ResBottleneckBlock, depth=2, w_a=8.0, w_0=16,
        w_m=2.0, group_width=8, se_ratio=0.25, out_features=["s1"],
    )  # fmt: skip
    widths = [module.out_channels for name, module in model.named_modules() if name.endswith("f.c")]
    d = Draws(SEED)
    convs = [d.conv("stem.conv", 3, 8, 3, bias=False)]
    w_in = 8
    for name, w_out in zip(_blocks_of(model), widths):
        squeezed, groups = round(w_in * 0.25), w_out // 8
        convs += [
            d.conv(f"{name}.proj", w_in, w_out, 1, bias=False),
            d.conv(f"{name}.f.a", w_in, w_out, 1, bias=False),
            d.conv(f"{name}.f.b", w_out, w_out, 3, bias=False, groups=groups),
            d.conv(f"{name}.f.se.f_ex.0", w_out, squeezed, 1),
            d.conv(f"{name}.f.se.f_ex.2", squeezed, w_out, 1),
            d.conv(f"{name}.f.c", w_out, w_out, 1, bias=False),
        ]
        w_in = w_out
    for name in convs:  # biases stay as they were drawn first
        weight = d.weights[f"{name}.weight"]
        fan_out = weight.shape[0] * weight.shape[2] * weight.shape[3]
        weight.normal_(std=(2.0 / fan_out) ** 0.5)
    check(model, d)


def _blocks_of(model: nn.Module) -> list[str]:
    return [name.removesuffix(".proj") for name, _ in model.named_modules() if name.endswith(".proj")]
