"""Windows, positions and the other parts of transformer backbones against loops over pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from detectron2.modeling.backbone import Backbone, MViT, SwinTransformer, ViT
from detectron2.modeling.backbone.utils import (
    DropPath,
    PatchEmbed,
    add_decomposed_rel_pos,
    get_abs_pos,
    get_rel_pos,
    spread_drop_path,
    window_partition,
    window_unpartition,
)


@pytest.mark.parametrize("size", [(6, 3), (5, 7), (1, 1)])
def test_windows_hold_the_pixels_of_their_place(size: tuple[int, int]) -> None:
    side, (height, width) = 3, size
    x = torch.randn(2, height, width, 4)
    windows, padded = window_partition(x, side)
    assert padded == (-(-height // side) * side, -(-width // side) * side)
    rows, columns = padded[0] // side, padded[1] // side
    assert windows.shape == (2 * rows * columns, side, side, 4)
    for n in range(2):
        for y in range(padded[0]):
            for x_ in range(padded[1]):
                window = windows[(n * rows + y // side) * columns + x_ // side]
                expected = x[n, y, x_] if y < height and x_ < width else torch.zeros(4)
                assert torch.equal(window[y % side, x_ % side], expected)
    assert torch.equal(window_unpartition(windows, side, padded, size), x)


def test_relative_positions_are_looked_up_by_offset() -> None:
    table = torch.randn(9, 3)
    found = get_rel_pos(5, 5, table)
    for q in range(5):
        for k in range(5):
            assert torch.equal(found[q, k], table[q - k + 4])


def test_relative_positions_of_coarser_keys_are_spread() -> None:
    table = torch.randn(11, 3)
    found = get_rel_pos(6, 2, table)  # a key stands for 3 query pixels
    for q in range(6):
        for k in range(2):
            assert torch.equal(found[q, k], table[q - 3 * k + 3])
    found = get_rel_pos(2, 6, table)
    for q in range(2):
        for k in range(6):
            assert torch.equal(found[q, k], table[3 * q - k + 5])


@pytest.mark.parametrize("size", [2, 5, 8])
def test_relative_positions_of_another_size_are_interpolated(size: int) -> None:
    table = torch.randn(7, 2, dtype=torch.float64)
    num_offsets = 2 * size - 1
    centers = (np.arange(num_offsets) + 0.5) * 7 / num_offsets - 0.5
    expected = np.stack([np.interp(centers, np.arange(7), column) for column in table.T.numpy()], 1)
    found = get_rel_pos(size, size, table)
    for q in range(size):
        for k in range(size):
            np.testing.assert_allclose(found[q, k], expected[q - k + size - 1], atol=1e-12)


def test_decomposed_positions_add_rows_and_columns() -> None:
    q = torch.randn(2, 6, 4, dtype=torch.float64)
    rows, columns = torch.randn(3, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    logits = torch.randn(2, 6, 6, dtype=torch.float64)
    found = add_decomposed_rel_pos(logits, q, rows, columns, (2, 3), (2, 3))
    for b in range(2):
        for i in range(6):
            for j in range(6):
                row, column = rows[i // 3 - j // 3 + 1], columns[i % 3 - j % 3 + 2]
                expected = logits[b, i, j] + q[b, i] @ row + q[b, i] @ column
                torch.testing.assert_close(found[b, i, j], expected)


def test_absolute_positions_fit_the_map() -> None:
    table = torch.randn(1, 10, 2)
    assert torch.equal(get_abs_pos(table, True, (3, 3)), table[:, 1:].view(1, 3, 3, 2))
    assert get_abs_pos(table, True, (5, 2)).shape == (1, 5, 2, 2)
    constant = torch.full((1, 9, 2), 1.5)
    torch.testing.assert_close(get_abs_pos(constant, False, (4, 7)), torch.full((1, 4, 7, 2), 1.5))
    with pytest.raises(ValueError, match="fill a square, got 10"):
        get_abs_pos(table, False, (3, 3))


def test_patch_embedding_is_a_linear_map_of_patches() -> None:
    embed = PatchEmbed((2, 2), (2, 2), (0, 0), 3, 5).double()
    x = torch.randn(1, 3, 4, 6, dtype=torch.float64)
    out = embed(x)
    assert out.shape == (1, 2, 3, 5)
    patch = x[0, :, 2:4, 4:6].flatten()
    expected = embed.proj.weight.flatten(1) @ patch + embed.proj.bias
    torch.testing.assert_close(out[0, 1, 2], expected)


def test_drop_path_drops_images_in_training_only() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.25)
    x = torch.ones(4000, 2, 3)
    out = drop(x)
    per_image = out.flatten(1)
    assert torch.equal(per_image, per_image[:, :1].expand_as(per_image))
    torch.testing.assert_close(per_image.unique(), torch.tensor([0, 4 / 3]))
    assert abs(float(out.mean()) - 1) < 0.05
    assert torch.equal(drop.eval()(x), x)
    assert drop.train()(x[:0]).shape == (0, 2, 3)
    with pytest.raises(ValueError, match=r"lie in \[0, 1\)"):
        DropPath(1.0)


def test_drop_path_grows_evenly() -> None:
    assert spread_drop_path(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert spread_drop_path(0.3, 1) == [0]


MAKERS: dict[str, Callable[[], Backbone]] = {
    "vit": lambda: ViT(48, embed_dim=8, depth=2, num_heads=2, use_rel_pos=True, window_size=2),
    "swin": lambda: SwinTransformer(embed_dim=8, num_heads=(1, 2, 2, 2), depths=(2, 1, 1, 1), window_size=3),
    "mvit": lambda: MViT(48, embed_dim=4, depth=4, last_block_indexes=(0, 1, 2, 3), adaptive_window_size=4),
}


@pytest.mark.parametrize("name", MAKERS)
def test_mixed_precision_gives_nearly_the_same(name: str, device: str) -> None:
    torch.manual_seed(0)
    backbone = MAKERS[name]().to(device).eval()
    x = torch.randn(2, 3, 48, 64, device=device)
    exact = backbone(x)
    with torch.autocast(device, dtype=torch.bfloat16):
        rough = backbone(x)
        sum(value.float().square().mean() for value in rough.values()).backward()
    for key, value in exact.items():
        error = (rough[key].float() - value).detach().abs().mean()
        assert float(error) < 0.05 * float(value.detach().abs().mean()) + 1e-3
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())


@pytest.mark.parametrize("name", MAKERS)
def test_no_images_give_no_maps(name: str) -> None:
    backbone = MAKERS[name]()
    out = backbone(torch.zeros(0, 3, 48, 48))
    assert all(value.shape[0] == 0 for value in out.values())
