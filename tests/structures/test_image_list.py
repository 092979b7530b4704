"""Batches of images of different sizes."""

from __future__ import annotations

import pytest
import torch

from detectron2.structures.image_list import ImageList


def make_images() -> list[torch.Tensor]:
    return [torch.full((3, 5, 7), 1.0), torch.full((3, 6, 4), 2.0)]


def test_images_are_padded_at_the_bottom_and_at_the_right() -> None:
    batch = ImageList.from_tensors(make_images(), pad_value=9.0)
    assert batch.tensor.shape == (2, 3, 6, 7) and batch.image_sizes == [(5, 7), (6, 4)] and len(batch) == 2
    expected = torch.full((2, 3, 6, 7), 9.0)
    expected[0, :, :5, :7], expected[1, :, :6, :4] = 1, 2
    assert torch.equal(batch.tensor, expected)
    for image, original in zip((batch[0], batch[1]), make_images()):
        assert torch.equal(image, original)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("divisor", "size"), [(0, (6, 7)), (1, (6, 7)), (4, (8, 8)), (32, (32, 32))])
def test_sizes_become_multiples_of_the_divisor(divisor: int, size: tuple[int, int], count: int) -> None:
    images = make_images()[::-1] if count == 2 else [torch.zeros(3, 6, 7)]
    assert ImageList.from_tensors(images, divisor).tensor.shape == (count, 3, *size)
    constrained = ImageList.from_tensors(images, padding_constraints={"size_divisibility": divisor})
    assert constrained.tensor.shape[-2:] == size


def test_square_size_is_the_same_for_all_images() -> None:
    batch = ImageList.from_tensors(make_images()[:1], 4, padding_constraints={"square_size": 10})
    assert batch.tensor.shape == (1, 3, 12, 12) and batch.image_sizes == [(5, 7)]
    batch = ImageList.from_tensors(make_images(), padding_constraints={"square_size": 7})
    assert batch.tensor.shape == (2, 3, 7, 7)
    with pytest.raises(ValueError, match="does not fit into the square of 6"):
        ImageList.from_tensors(make_images(), padding_constraints={"square_size": 6})


def test_label_maps_keep_their_type() -> None:
    maps = [torch.ones(5, 7, dtype=torch.int64), torch.ones(6, 4, dtype=torch.int64)]
    batch = ImageList.from_tensors(maps, 8, pad_value=255)
    assert batch.tensor.shape == (2, 8, 8) and batch.tensor.dtype == torch.int64
    assert batch.tensor.eq(255).sum() == 2 * 64 - 35 - 24
    assert batch.to(torch.float32).tensor.dtype == torch.float32 and batch.device.type == "cpu"


def test_what_cannot_be_batched_is_named() -> None:
    with pytest.raises(ValueError, match="no images"):
        ImageList.from_tensors([])
    with pytest.raises(TypeError, match="list or tuple"):
        ImageList.from_tensors(torch.zeros(2, 3, 4, 4))
    with pytest.raises(TypeError, match="list"):
        ImageList.from_tensors([[1]])
    with pytest.raises(ValueError, match="height and width only"):
        ImageList.from_tensors([torch.zeros(3, 4, 4), torch.zeros(1, 4, 4)])


def test_one_pixel() -> None:
    assert ImageList.from_tensors([torch.zeros(3, 1, 1)], 32).tensor.shape == (1, 3, 32, 32)
