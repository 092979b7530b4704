"""Reading images: formats, orientation, damaged files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.config import get_cfg
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data.detection_utils import read_image, read_sem_seg

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


# Files of more than 8 bits.

DEEP = np.array([[0, 1000, 4000], [2000, 3000, 1500]])


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("a.png", np.uint16), ("a.tif", np.uint16), ("b.tif", np.int32), ("c.tif", np.float32)],
)
def test_deep_images_are_refused_or_scaled_as_stated(tmp_path: Path, name: str, dtype: type) -> None:
    path = str(tmp_path / name)
    Image.fromarray(DEEP.astype(dtype)).save(path)
    for format in ("BGR", "RGB", "L"):
        with pytest.raises(ValueError, match=rf"{name}.*from 0 to 4000.*INPUT.VALUE_RANGE"):
            read_image(path, format)
        scaled = read_image(path, format, value_range=(0, 2000))
        assert scaled.dtype == np.uint8 and scaled.shape == (2, 3, 1 if format == "L" else 3)
        assert scaled[:, :, 0].tolist() == [[0, 128, 255], [255, 255, 191]]
    assert np.array_equal(read_image(path), DEEP)
    with pytest.raises(ValueError, match="the lower one first"):
        read_image(path, "RGB", value_range=(5, 5))


def test_whole_numbers_that_fit_stay_in_a_deep_file(tmp_path: Path) -> None:
    path = str(tmp_path / "labels.png")
    labels = np.array([[0, 7], [255, 3]], dtype=np.uint16)
    Image.fromarray(labels).save(path)
    assert np.array_equal(read_image(path, "L")[:, :, 0], labels)
    assert np.array_equal(read_sem_seg({"sem_seg_file_name": path}), labels)


def test_fractions_do_not_turn_black(tmp_path: Path) -> None:
    path = str(tmp_path / "fractions.tif")
    Image.fromarray(np.array([[0.25, 1.0]], dtype=np.float32)).save(path)
    with pytest.raises(ValueError, match="its floating point values, from 0.25 to 1"):
        read_image(path, "RGB")
    assert read_image(path, "L", value_range=[0, 1])[:, :, 0].tolist() == [[64, 255]]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colours_of_16_bits(tmp_path: Path, suffix: str) -> None:
    path = str(tmp_path / f"colours{suffix}")
    bgr = np.array([[[0, 2000, 1000], [65535, 512, 4000]]], dtype=np.uint16)
    cv2.imwrite(path, bgr)
    assert read_image(path, "BGR").tolist() == [[[0, 7, 3], [255, 2, 15]]]
    assert read_image(path, "BGR", value_range=(0, 2000)).tolist() == [[[0, 255, 128], [255, 65, 255]]]


def test_the_mapper_takes_the_range_from_the_config(tmp_path: Path) -> None:
    path = str(tmp_path / "deep.png")
    Image.fromarray(DEEP.astype(np.uint16)).save(path)
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TEST = 0
    record = {"file_name": path}
    with pytest.raises(ValueError, match="INPUT.VALUE_RANGE"):
        DatasetMapper(cfg, is_train=False)(record)
    cfg.merge_from_list(["INPUT.VALUE_RANGE", "[0, 4000]"])
    image = DatasetMapper(cfg, is_train=False)(record)["image"]
    assert image[0].tolist() == [[0, 64, 255], [128, 191, 96]]
