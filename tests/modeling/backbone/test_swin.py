"""Swin transformer against loops over pixels, and against published sizes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.swin import (
    BasicLayer,
    PatchEmbed,
    PatchMerging,
    SwinTransformer,
    SwinTransformerBlock,
    WindowAttention,
    window_partition,
    window_reverse,
)

from .attention_loops import attend, randomize, split_heads

SIDE = 3


def bias_of(attention: WindowAttention, head: int, down: int, right: int) -> Tensor:
    row = (down + SIDE - 1) * (2 * SIDE - 1) + right + SIDE - 1
    return attention.relative_position_bias_table[row, head]


def block_by_loops(block: SwinTransformerBlock, x: Tensor, size: tuple[int, int]) -> Tensor:
    """(L, C) -> (L, C): windows are sets of pixels, shifted windows smaller ones at the borders."""
    height, width = size
    padded = F.pad(block.norm1(x).view(height, width, -1), (0, 0, 0, -width % SIDE, 0, -height % SIDE))
    windows: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for y in range(padded.shape[0]):
        for x_ in range(padded.shape[1]):
            # A shifted grid has a narrow first row of windows, and a narrow last one.
            key = ((y - block.shift_size) // SIDE, (x_ - block.shift_size) // SIDE)
            windows.setdefault(key, []).append((y, x_))
    out = torch.zeros_like(padded)
    for pixels in windows.values():
        values = torch.stack([padded[pixel] for pixel in pixels])
        q, k, v = split_heads(block.attn.qkv(values), block.attn.num_heads)

        def bias(head: int, i: int, j: int, _: Tensor, pixels: list[tuple[int, int]] = pixels) -> Tensor:
            return bias_of(block.attn, head, pixels[i][0] - pixels[j][0], pixels[i][1] - pixels[j][1])

        attended = block.attn.proj(torch.cat(list(attend(q, k, v, bias)), dim=1))
        for pixel, value in zip(pixels, attended):
            out[pixel] = value
    x = x + out[:height, :width].reshape(x.shape)
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))


@pytest.mark.parametrize("size", [(6, 6), (4, 7), (2, 3)])
def test_every_second_block_shifts_its_windows(size: tuple[int, int]) -> None:
    layer = BasicLayer(4, depth=2, num_heads=2, window_size=SIDE).double()
    randomize(layer)
    for block in layer.blocks:
        block.attn.relative_position_bias_table.data.mul_(4)
    x = torch.randn(2, size[0] * size[1], 4, dtype=torch.float64)
    expected = x
    for block in layer.blocks:
        expected = torch.stack([block_by_loops(block, image, size) for image in expected])
    out, height, width, following, *following_size = layer(x, *size)
    torch.testing.assert_close(out, expected)
    assert (height, width) == size == tuple(following_size)
    assert following is out


def test_attention_scale_and_mask() -> None:
    attention = WindowAttention(4, (1, 2), 1, qk_scale=0.1).double()
    randomize(attention)
    x = torch.randn(2, 2, 4, dtype=torch.float64)
    mask = torch.tensor([[[0.0, -100], [-100, 0]]], dtype=torch.float64)
    expected = []
    for window in x:
        v = attention.qkv(window)[:, 8:]
        expected.append(attention.proj(v))  # every pixel sees itself only
    torch.testing.assert_close(attention(x, mask), torch.stack(expected))
    q, k, v = split_heads(attention.qkv(x[0]), 1)
    table = attention.relative_position_bias_table
    plain = attend(q, k, v, lambda head, i, j, _: table[i - j + 1, 0], scale=0.1)
    torch.testing.assert_close(attention(x)[0], attention.proj(plain[0]))


def test_windows_go_there_and_back() -> None:
    x = torch.randn(2, 4, 6, 3)
    windows = window_partition(x, 2)
    assert windows.shape == (12, 2, 2, 3)
    assert torch.equal(windows[1], x[0, :2, 2:4])
    assert torch.equal(window_reverse(windows, 2, 4, 6), x)


def test_merging_joins_four_pixels() -> None:
    merging = PatchMerging(2).double()
    randomize(merging)
    x = torch.randn(1, 3 * 5, 2, dtype=torch.float64)
    padded = F.pad(x.view(3, 5, 2), (0, 0, 0, 1, 0, 1))
    expected = []
    for y in (0, 2):
        for x_ in (0, 2, 4):
            four = torch.cat([padded[y + dy, x_ + dx] for dx in (0, 1) for dy in (0, 1)])
            expected.append(merging.reduction(merging.norm(four)))
    torch.testing.assert_close(merging(x, 3, 5)[0], torch.stack(expected))


def test_patches_are_padded() -> None:
    embed = PatchEmbed(4, 3, 8)
    x = torch.randn(1, 3, 5, 9)
    assert torch.equal(embed(x), embed.proj(F.pad(x, (0, 3, 0, 3))))


def make_small_swin(**kwargs: object) -> SwinTransformer:
    options = {"embed_dim": 8, "depths": (2, 2, 1), "num_heads": (1, 2, 4), "out_indices": (0, 1, 2)}
    return SwinTransformer(**{**options, "window_size": 3, **kwargs})


@pytest.mark.parametrize("size", [(32, 48), (33, 50), (1, 1)])
@pytest.mark.parametrize("ape", [False, True])
def test_maps_are_those_of_the_chosen_stages(size: tuple[int, int], ape: bool) -> None:
    swin = make_small_swin(out_indices=(0, 2), ape=ape)
    assert swin.output_shape() == {
        "p0": ShapeSpec(channels=8, stride=4),
        "p2": ShapeSpec(channels=32, stride=16),
    }
    out = swin(torch.randn(2, 3, *size))
    assert {name: value.shape for name, value in out.items()} == {
        "p0": (2, 8, -(-size[0] // 4), -(-size[1] // 4)),
        "p2": (2, 32, -(-size[0] // 16), -(-size[1] // 16)),
    }


@pytest.mark.parametrize(
    ("frozen_stages", "prefixes"),
    [
        (-1, ()),
        (0, ("patch_embed.",)),
        (1, ("patch_embed.", "absolute_pos_embed")),
        (3, ("patch_embed.", "absolute_pos_embed", "layers.0.", "layers.1.")),
    ],
)
def test_frozen_stages_do_not_train(frozen_stages: int, prefixes: tuple[str, ...]) -> None:
    swin = make_small_swin(frozen_stages=frozen_stages, ape=True).train()
    for name, parameter in swin.named_parameters():
        assert parameter.requires_grad != name.startswith(prefixes), name
    assert swin.patch_embed.training == (frozen_stages < 0)
    assert swin.layers[1].training == (frozen_stages < 3)
    assert swin.layers[2].training


def test_recomputing_activations_changes_nothing() -> None:
    swin = make_small_swin(drop_path_rate=0.0)
    x = torch.randn(1, 3, 40, 24)
    plain = swin(x)
    for layer in swin.layers:
        layer.use_checkpoint = True
    again = swin(x)
    torch.testing.assert_close(again, plain)
    again["p2"].sum().backward()
    assert swin.patch_embed.proj.weight.grad is not None


def test_size_and_names_of_the_published_tiny_model() -> None:
    with torch.device("meta"):
        swin = SwinTransformer()
    # Swin-T has 28288354 parameters with a classifier and one norm; a detector has a norm per stage.
    channels = (96, 192, 384, 768)
    expected = 28288354 - 1000 * (768 + 1) - 2 * 768 + 2 * sum(channels)
    assert sum(p.numel() for p in swin.parameters()) == expected
    names = set(swin.state_dict())
    assert {"layers.0.downsample.reduction.weight", "layers.3.blocks.1.attn.relative_position_index"} <= names
    assert {"patch_embed.norm.bias", "norm3.weight", "layers.2.blocks.5.mlp.fc2.bias"} <= names
    assert not any(name.startswith("layers.3.downsample") for name in names)


def test_wrong_sizes_are_errors() -> None:
    with pytest.raises(ValueError, match="multiple of num_heads 3"):
        WindowAttention(8, (2, 2), 3)
    with pytest.raises(ValueError, match="shift_size must lie in"):
        SwinTransformerBlock(8, 2, window_size=3, shift_size=3)
    with pytest.raises(ValueError, match="among the 3 stages"):
        make_small_swin(out_indices=(3,))
    block = SwinTransformerBlock(8, 2, window_size=3)
    block.H = block.W = 3
    with pytest.raises(ValueError, match="3 x 3 pixels does not have 4"):
        block(torch.zeros(1, 4, 8), torch.zeros(1, 9, 9))
    with pytest.raises(ValueError, match="3 x 3 pixels does not have 4"):
        PatchMerging(8)(torch.zeros(1, 4, 8), 3, 3)
