"""MViTv2 against loops over pixels, and against its published size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.mvit import MultiScaleAttention, MultiScaleBlock, MViT, attention_pool

from .attention_loops import attend, randomize


def pooled_heads(module: MultiScaleAttention, x: Tensor) -> list[Tensor]:
    """Queries, keys and values, each (h, D, H', W'), of one (H, W, C) map."""
    channels = module.proj.in_features
    head_dim = channels // module.num_heads
    out = []
    for i, name in enumerate("qkv"):
        linear = x @ module.qkv.weight[i * channels : (i + 1) * channels].T
        linear = linear + module.qkv.bias[i * channels : (i + 1) * channels]
        conv, norm = module.get_submodule(f"pool_{name}"), module.get_submodule(f"norm_{name}")
        heads = []
        for h in range(module.num_heads):
            head = linear[..., h * head_dim : (h + 1) * head_dim].permute(2, 0, 1)
            one_by_one = [
                F.conv2d(channel[None, None], kernel[None], stride=conv.stride, padding=1)[0, 0]
                for channel, kernel in zip(head, conv.weight)
            ]
            heads.append(norm(torch.stack(one_by_one, -1)).permute(2, 0, 1))
        out.append(torch.stack(heads))
    return out


def attention_by_loops(module: MultiScaleAttention, x: Tensor, side: int) -> Tensor:
    """(H, W, C) -> (H', W', C'), in windows of `side` pixels of the input that fit without padding."""
    q, k, v = pooled_heads(module, x)
    out = torch.zeros_like(q)
    q_step, k_step = q.shape[2] * side // x.shape[0], k.shape[2] * side // x.shape[0]
    for y in range(x.shape[0] // side):
        for x_ in range(x.shape[1] // side):
            q_window = (..., slice(y * q_step, (y + 1) * q_step), slice(x_ * q_step, (x_ + 1) * q_step))
            k_window = (..., slice(y * k_step, (y + 1) * k_step), slice(x_ * k_step, (x_ + 1) * k_step))

            def relative(
                _: int,
                i: int,
                j: int,
                query: Tensor,
                q_step: int = q_step,
                k_step: int = k_step,
            ) -> Tensor:
                # Offsets count pixels of the finer map; all are shifted so that the smallest is 0.
                q_unit, k_unit = max(k_step // q_step, 1), max(q_step // k_step, 1)
                down = i // q_step * q_unit - j // k_step * k_unit + (k_step - 1) * k_unit
                right = i % q_step * q_unit - j % k_step * k_unit + (k_step - 1) * k_unit
                return query @ module.rel_pos_h[down] + query @ module.rel_pos_w[right]

            flat_q, flat_k, flat_v = (
                part.flatten(2).transpose(1, 2) for part in (q[q_window], k[k_window], v[k_window])
            )
            attended = attend(flat_q, flat_k, flat_v, relative)
            out[q_window] = attended.transpose(1, 2).unflatten(2, (q_step, q_step))
    out = out + q  # residual pooling
    return module.proj(out.permute(2, 3, 0, 1).flatten(2))


@pytest.mark.parametrize(("stride_q", "stride_kv"), [(1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize("window_size", [0, 4])
def test_attention(stride_q: int, stride_kv: int, window_size: int) -> None:
    side = window_size or 4
    module = MultiScaleAttention(
        3,
        4,
        2,
        stride_q=stride_q,
        stride_kv=stride_kv,
        window_size=window_size,
        use_rel_pos=True,
        input_size=(side, side),
    ).double()
    randomize(module)
    x = torch.randn(2, *((8, 4) if window_size else (4, 4)), 3, dtype=torch.float64)
    expected = torch.stack([attention_by_loops(module, image, side) for image in x])
    torch.testing.assert_close(module(x), expected)


def test_block_that_halves_the_map() -> None:
    block = MultiScaleBlock(2, 4, 1, stride_q=2, norm_layer=lambda c: torch.nn.LayerNorm(c, eps=0.1)).double()
    randomize(block)
    x = torch.randn(1, 5, 4, 2, dtype=torch.float64)
    normalized = block.norm1(x)
    skip = attention_pool(block.proj(normalized), torch.nn.MaxPool2d(3, 2, 1))
    assert skip.shape == (1, 3, 2, 4)
    middle = skip + block.attn(normalized)
    expected = middle + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(middle))))
    torch.testing.assert_close(block(x), expected)


def make_small_mvit(**kwargs: object) -> MViT:
    options = {"img_size": 64, "embed_dim": 4, "depth": 4, "last_block_indexes": (0, 1, 2, 3)}
    return MViT(**{**options, "adaptive_window_size": 8, **kwargs})


@pytest.mark.parametrize("size", [(64, 64), (33, 70)])
def test_maps_halve_and_channels_double(size: tuple[int, int]) -> None:
    mvit = make_small_mvit(out_features=("scale2", "scale4"), use_abs_pos=True)
    assert mvit.output_shape() == {
        "scale2": ShapeSpec(channels=4, stride=4),
        "scale4": ShapeSpec(channels=16, stride=16),
    }
    out = mvit(torch.randn(1, 3, *size))
    assert {name: value.shape for name, value in out.items()} == {
        "scale2": (1, 4, -(-size[0] // 4), -(-size[1] // 4)),
        "scale4": (1, 16, -(-size[0] // 16), -(-size[1] // 16)),
    }
    assert not any(name.startswith("scale3") for name in mvit.state_dict())


def test_plan_of_the_default_model() -> None:
    with torch.device("meta"):
        mvit = MViT()
    attentions = [block.attn for block in mvit.blocks]
    assert [attn.num_heads for attn in attentions] == [1, 2, 2] + [4] * 9 + [8] * 4
    # The last blocks of all stages but the first attend globally.
    assert [attn.window_size for attn in attentions] == [56, 56, 0, 28] + [14] * 7 + [0, 14, 7, 7, 0]
    assert [attn.pool_k.stride[0] for attn in attentions] == [4, 2, 4] + [1] * 8 + [2] + [1] * 4
    assert [i for i, attn in enumerate(attentions) if attn.pool_q.stride[0] == 2] == [1, 3, 12]
    assert [len(attn.rel_pos_h) for attn in attentions] == [111] + [55] * 3 + [27] * 9 + [13] * 3


def test_size_of_the_published_tiny_model() -> None:
    with torch.device("meta"):
        mvit = MViT(depth=10, last_block_indexes=(0, 2, 7, 9))
    # MViTv2-T has 24.17 M parameters with a classifier of 1000 classes and one norm behind the blocks.
    norms = 2 * (96 + 192 + 384 + 768)
    num_parameters = sum(p.numel() for p in mvit.parameters()) - norms + 2 * 768 + 1000 * 769
    assert round(num_parameters / 1e6, 2) == 24.17


def test_recomputing_activations_changes_nothing() -> None:
    mvit = make_small_mvit()
    x = torch.randn(1, 3, 64, 64)
    plain = mvit(x)
    mvit.use_act_checkpoint = True
    torch.testing.assert_close(mvit(x), plain)


def test_wrong_arguments_are_errors() -> None:
    with pytest.raises(ValueError, match="multiple of num_heads 3"):
        MultiScaleAttention(4, 4, 3)
    with pytest.raises(ValueError, match="square input_size"):
        MultiScaleAttention(4, 4, 2, use_rel_pos=True, input_size=(2, 3))
    with pytest.raises(ValueError, match="out_features must be some of"):
        make_small_mvit(out_features=("scale6",))
