"""Reading images: formats, orientation, damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.data import detection_utils as utils

PIXELS = np.random.RandomState(0).randint(0, 256, (6, 9, 3)).astype(np.uint8)


@pytest.fixture
def png(tmp_path: Path) -> str:
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    return str(path)


def test_channel_orders(png: str) -> None:
    assert np.array_equal(utils.read_image(png), PIXELS)
    assert np.array_equal(utils.read_image(png, "RGB"), PIXELS)
    assert np.array_equal(utils.read_image(png, "BGR"), PIXELS[:, :, ::-1])
    gray = utils.read_image(png, "L")
    assert gray.shape == (6, 9, 1)
    assert np.array_equal(gray[:, :, 0], np.asarray(Image.fromarray(PIXELS).convert("L")))


def test_yuv_is_bt601(png: str) -> None:
    yuv = utils.read_image(png, "YUV-BT.601")
    r, g, b = np.moveaxis(PIXELS / 255.0, 2, 0)
    np.testing.assert_allclose(yuv[:, :, 0], 0.299 * r + 0.587 * g + 0.114 * b, atol=1e-12)
    np.testing.assert_allclose(yuv[:, :, 1], 0.492 * (b - yuv[:, :, 0]), atol=2e-3)


@pytest.mark.parametrize("format", ["RGB", "BGR", "YUV-BT.601"])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_formats_convert_back_to_rgb(png: str, format: str, as_tensor: bool) -> None:
    image = utils.read_image(png, format).copy()
    rgb = utils.convert_image_to_rgb(torch.as_tensor(image) if as_tensor else image, format)
    assert rgb.dtype == np.uint8
    assert np.abs(rgb.astype(int) - PIXELS).max() <= (1 if format.startswith("YUV") else 0)


def test_gray_becomes_three_channels(png: str) -> None:
    gray = utils.read_image(png, "L")
    assert np.array_equal(utils.convert_image_to_rgb(gray, "L"), np.repeat(gray, 3, axis=2))


@pytest.mark.parametrize("orientation", range(0, 10))
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int) -> None:
    image = Image.fromarray(PIXELS)
    exif = image.getexif()
    exif[utils._EXIF_ORIENT] = orientation
    path = tmp_path / "a.png"
    image.save(path, exif=exif)
    by_hand = {
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.transpose(1, 0, 2),
        6: np.rot90(PIXELS, -1),
        7: PIXELS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(PIXELS),
    }
    assert np.array_equal(utils.read_image(str(path), "RGB"), by_hand.get(orientation, PIXELS))


def test_one_pixel_and_palette_images(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[:1, :1]).save(tmp_path / "one.png")
    assert utils.read_image(str(tmp_path / "one.png"), "BGR").shape == (1, 1, 3)
    Image.fromarray(PIXELS).convert("P").save(tmp_path / "palette.png")
    assert utils.read_image(str(tmp_path / "palette.png"), "RGB").shape == (6, 9, 3)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        utils.read_image(str(tmp_path / "gone.jpg"))


def test_truncated_jpeg_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.tile(PIXELS, (20, 20, 1))).save(path)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ValueError, match=r"cut\.jpg.*truncated"):
        utils.read_image(str(path), "BGR")


def test_text_is_not_an_image(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_text("<html>not found</html>")
    with pytest.raises(ValueError, match="is not an image"):
        utils.read_image(str(path))


def test_unknown_format_lists_the_known(png: str) -> None:
    with pytest.raises(ValueError, match="BGR, YUV"):
        utils.read_image(png, "GBR")


def test_size_is_checked_and_filled_in() -> None:
    record: dict = {"file_name": "a.png"}
    utils.check_image_size(record, PIXELS)
    assert (record["height"], record["width"]) == (6, 9)
    with pytest.raises(utils.SizeMismatchError, match="9 x 6 .* annotation says 6 x 9"):
        utils.check_image_size({"file_name": "a.png", "height": 9, "width": 6}, PIXELS)
