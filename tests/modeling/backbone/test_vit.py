"""Plain vision transformer and its pyramid against loops, and against published sizes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.vit import (
    Attention,
    Block,
    ResBottleneckBlock,
    SimpleFeaturePyramid,
    ViT,
    get_vit_lr_decay_rate,
)

from .attention_loops import attend, randomize, split_heads


def attention_by_loops(module: Attention, x: Tensor) -> Tensor:
    """(H, W, C) -> the same shape."""
    height, width, channels = x.shape
    pixels = x.reshape(-1, channels)
    q, k, v = split_heads(module.qkv(pixels), module.num_heads)

    def relative(head: int, i: int, j: int, query: Tensor) -> Tensor | float:
        if not module.use_rel_pos:
            return 0.0
        down, right = i // width - j // width, i % width - j % width
        return query @ module.rel_pos_h[down + height - 1] + query @ module.rel_pos_w[right + width - 1]

    out = attend(q, k, v, relative)
    return module.proj(torch.cat(list(out), dim=1)).view(x.shape)


@pytest.mark.parametrize("use_rel_pos", [False, True])
def test_attention(use_rel_pos: bool) -> None:
    module = Attention(6, num_heads=2, use_rel_pos=use_rel_pos, input_size=(2, 3)).double()
    randomize(module)
    x = torch.randn(2, 2, 3, 6, dtype=torch.float64)
    expected = torch.stack([attention_by_loops(module, image) for image in x])
    torch.testing.assert_close(module(x), expected)


def test_block_attends_inside_padded_windows() -> None:
    block = Block(4, num_heads=2, use_rel_pos=True, window_size=3).double()
    randomize(block)
    x = torch.randn(1, 4, 5, 4, dtype=torch.float64)
    padded = F.pad(block.norm1(x), (0, 0, 0, 1, 0, 2))[0]
    attended = torch.zeros_like(padded)
    for y in (0, 3):
        for x_ in (0, 3):
            attended[y : y + 3, x_ : x_ + 3] = attention_by_loops(block.attn, padded[y : y + 3, x_ : x_ + 3])
    middle = x + attended[:4, :5]
    mlp = block.mlp
    expected = middle + mlp.fc2(F.gelu(mlp.fc1(block.norm2(middle))))
    torch.testing.assert_close(block(x), expected)


def test_wrong_sizes_are_errors() -> None:
    with pytest.raises(ValueError, match="multiple of num_heads 3"):
        Attention(8, num_heads=3)
    with pytest.raises(ValueError, match="input_size"):
        Attention(8, num_heads=2, use_rel_pos=True)


def test_residual_block_starts_as_the_identity() -> None:
    block = ResBottleneckBlock(8, 8, 4)
    x = torch.randn(1, 8, 3, 5)
    assert torch.equal(block(x), x)
    names = [f"{kind}{i}.weight" for i in (1, 2, 3) for kind in ("conv", "norm")]
    assert [name for name in block.state_dict() if name.endswith("weight")] == names


def make_small_vit(**kwargs: object) -> ViT:
    sizes = {"img_size": 48, "embed_dim": 8, "depth": 3, "num_heads": 2, "window_size": 2}
    kinds = {"window_block_indexes": (0, 2), "residual_block_indexes": [2], "use_rel_pos": True}
    return ViT(**{**sizes, **kinds, **kwargs})


@pytest.mark.parametrize("size", [(48, 48), (16, 80)])
def test_map_has_the_stride_of_the_patches(size: tuple[int, int]) -> None:
    vit = make_small_vit()
    out = vit(torch.randn(2, 3, *size))
    assert list(out) == ["last_feat"]
    assert out["last_feat"].shape == (2, 8, size[0] // 16, size[1] // 16)
    assert vit.output_shape() == {"last_feat": ShapeSpec(channels=8, stride=16)}


def test_recomputing_activations_changes_nothing() -> None:
    vit = make_small_vit()
    randomize(vit)
    x = torch.randn(1, 3, 48, 48)
    results = []
    for vit.use_act_checkpoint in (False, True):
        vit.zero_grad()
        out = vit(x)["last_feat"]
        out.square().mean().backward()
        results.append([out.detach(), *(p.grad.clone() for p in vit.parameters() if p.grad is not None)])
    torch.testing.assert_close(results[0], results[1])


def test_size_of_the_published_base_model() -> None:
    with torch.device("meta"):
        vit = ViT(img_size=224)
    # ViT-B/16 has 86567656 parameters: with a class token, a last norm and a classifier of 1000 classes.
    without_classifier = 86567656 - 768 - 2 * 768 - 1001 * 768 - 1000 + 768
    assert sum(p.numel() for p in vit.parameters()) == without_classifier


def test_names_are_those_of_checkpoints() -> None:
    names = {name.replace("blocks.2.", "") for name in make_small_vit().state_dict() if "blocks.2." in name}
    both = (
        "attn.proj",
        "attn.qkv",
        "mlp.fc1",
        "mlp.fc2",
        "norm1",
        "norm2",
        *(f"residual.norm{i}" for i in (1, 2, 3)),
    )
    expected = {f"{name}.{kind}" for name in both for kind in ("weight", "bias")}
    expected |= {"attn.rel_pos_h", "attn.rel_pos_w", *(f"residual.conv{i}.weight" for i in (1, 2, 3))}
    assert names == expected


class OneMap(Backbone):
    """A backbone without weights that gives one map of stride 16."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"only": F.avg_pool2d(x, 16)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {"only": ShapeSpec(channels=4, stride=16)}


def test_pyramid_makes_every_level_from_one_map() -> None:
    pyramid = SimpleFeaturePyramid(
        OneMap(), "only", 6, (4.0, 2.0, 1.0, 0.5), LastLevelMaxPool(), square_pad=128
    )
    images = torch.randn(1, 4, 64, 128)
    out = pyramid(images)
    assert {name: value.shape[1:] for name, value in out.items()} == {
        f"p{level}": (6, 64 >> level, 128 >> level) for level in (2, 3, 4, 5, 6)
    }
    assert {name: spec.stride for name, spec in pyramid.output_shape().items()} == {
        f"p{level}": 2**level for level in (2, 3, 4, 5, 6)
    }
    assert pyramid.padding_constraints == {"size_divisibility": 32, "square_size": 128}

    def finish(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
        for conv, padding in ((first, 0), (second, 1)):
            x = F.conv2d(x, conv.weight, padding=padding)
            x = F.layer_norm(x.permute(0, 2, 3, 1), (6,), eps=1e-6).permute(0, 3, 1, 2)
        return x

    source = F.avg_pool2d(images, 16)
    torch.testing.assert_close(out["p4"], finish(source, *pyramid.simfp_4))
    torch.testing.assert_close(out["p5"], finish(F.max_pool2d(source, 2), *pyramid.simfp_5[1:]))
    enlarged = F.conv_transpose2d(source, pyramid.simfp_3[0].weight, pyramid.simfp_3[0].bias, stride=2)
    torch.testing.assert_close(out["p3"], finish(enlarged, *pyramid.simfp_3[1:]))
    # The finest level has two enlargements, with a norm and an activation between them.
    assert [name for name in pyramid.simfp_2.state_dict() if name.endswith("weight")] == [
        f"{name}.weight" for name in ("0", "1", "3", "4", "4.norm", "5", "5.norm")
    ]


@pytest.mark.parametrize(
    ("feature", "scales", "message"),
    [
        ("other", (1.0,), "not among"),
        ("only", (0.25,), "4, 2, 1 and 0.5"),
        ("only", (1.0, 2.0), "growing"),
        ("only", (2.0, 2.0), "growing"),
        ("only", (), "at least one level"),
    ],
)
def test_impossible_pyramids_are_errors(feature: str, scales: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimpleFeaturePyramid(OneMap(), feature, 4, scales)


@pytest.mark.parametrize("norm", ["", None])
def test_pyramid_without_norm_has_biases(norm: str | None) -> None:
    pyramid = SimpleFeaturePyramid(OneMap(), "only", 6, (4.0, 1.0), norm=norm)
    assert {"simfp_4.0.bias", "simfp_2.5.bias"} <= pyramid.state_dict().keys()
    assert pyramid(torch.zeros(1, 4, 32, 32))["p2"].shape == (1, 6, 8, 8)


@pytest.mark.parametrize(
    ("name", "num_steps"),
    [
        ("backbone.net.pos_embed", 13),
        ("backbone.net.patch_embed.proj.weight", 13),
        ("backbone.net.blocks.0.norm1.weight", 12),
        ("backbone.net.blocks.11.mlp.fc1.bias", 1),
        ("backbone.net.blocks.3.residual.conv1.weight", 0),
        ("backbone.simfp_2.0.weight", 0),
        ("roi_heads.box_head.fc1.weight", 0),
    ],
)
def test_learning_rate_decays_towards_the_first_layers(name: str, num_steps: int) -> None:
    assert get_vit_lr_decay_rate(name, 0.7, 12) == pytest.approx(0.7**num_steps)
    assert get_vit_lr_decay_rate(name) == 1
