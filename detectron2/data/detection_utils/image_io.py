"""Reading images: decoding, EXIF orientation and colour formats.

Images are (H, W, C) arrays, uint8 unless said otherwise. A format is one of PIL's modes ("RGB", "L", ...),
"BGR", or "YUV-BT.601", which is float with Y in [0, 1].
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from detectron2.utils.file_io import PathManager
from detectron2.utils.user_errors import UserFileNotFoundError, UserValueError

from .deep_images import ValueRange, reduce_depth

logger = logging.getLogger(__name__)

# https://en.wikipedia.org/wiki/YUV#SDTV_with_BT.601
RGB_TO_YUV = [[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]]
YUV_TO_RGB = [[1.0, 0.0, 1.13983], [1.0, -0.39465, -0.58060], [1.0, 2.03211, 0.0]]

# The EXIF tag that says how a camera was held, and what undoes it.
EXIF_ORIENT = 274
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)
"""Orientations in which height and width change places."""

_FORMATS = ("BGR", "YUV-BT.601", "1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F")


_FORMATS_AS_DEEP_AS_THE_FILE = (None, "I", "F")


class SizeMismatchError(UserValueError):
    """The image does not have the width and height that its annotation says."""


def convert_PIL_to_numpy(image: Image.Image, format: str | None) -> np.ndarray:
    """Turn a PIL image into an array.

    Args:
        image: what PIL opened.
        format: see the top of this module; None keeps the mode of the file.

    Returns:
        (H, W, C); (H, W) for PIL's single-channel modes, except that "L" gives (H, W, 1).
    """
    if format is None:
        return np.asarray(image)
    if format not in _FORMATS:
        raise UserValueError(f"Unknown image format {format!r}. Known are: {', '.join(_FORMATS)}.")
    mode = "RGB" if format in ("BGR", "YUV-BT.601") else format
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    if format == "L":
        return array[:, :, None]
    if format == "BGR":
        return array[:, :, ::-1]
    if format == "YUV-BT.601":
        pixels: np.ndarray = (array / 255.0) @ np.array(RGB_TO_YUV).T
        return pixels
    return array


def convert_image_to_rgb(image: np.ndarray | torch.Tensor, format: str) -> np.ndarray:
    """Turn an array of any of our formats into a uint8 RGB image.

    Args:
        image: (H, W, C), array or CPU tensor.
        format: its format.

    Returns:
        (H, W, 3) uint8; a single channel is repeated.
    """
    array = image.cpu().numpy() if isinstance(image, torch.Tensor) else image
    if format == "BGR":
        return array[:, :, [2, 1, 0]]
    if format == "YUV-BT.601":
        pixels: np.ndarray = ((array @ np.array(YUV_TO_RGB).T) * 255.0).clip(0, 255).astype(np.uint8)
        return pixels
    if format == "L":
        gray = array[:, :, 0] if array.ndim == 3 else array
        return np.repeat(gray.astype(np.uint8)[:, :, None], 3, axis=2)
    pixels = np.ascontiguousarray(array.astype(np.uint8))
    if format == "RGB":
        return pixels
    height, width = pixels.shape[:2]
    return np.asarray(Image.frombytes(format, (width, height), pixels.tobytes()).convert("RGB"))


def _read_orientation(image: Image.Image) -> int | None:
    """The orientation that the camera noted in EXIF, if there is a readable one."""
    try:
        orientation: int | None = image.getexif().get(EXIF_ORIENT)
    except (
        Exception
    ):  # Pillow raises many types on malformed EXIF; a picture with a broken tag is still a picture
        logger.debug("Unreadable EXIF data, orientation taken as upright", exc_info=True)
        return None
    return orientation


def make_upright(image: Image.Image) -> Image.Image:
    """Undo the orientation that the camera noted."""
    orientation = _read_orientation(image)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def read_image(file_name: str, format: str | None = None, *, value_range: ValueRange = None) -> np.ndarray:
    """Read an image file, upright according to its EXIF tag.

    Args:
        file_name: path, or anything that `PathManager` opens.
        format: see the top of this module; None keeps the mode of the file.
        value_range: for files of more than 8 bits per channel, the values that become 0 and 255.

    Returns:
        (H, W, C); (H, W) for single-channel modes other than "L".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image, or is truncated, or has more than 8 bits per channel where the
            format has 8, and no `value_range` says what they mean.
    """
    with _errors_with_name(file_name), PathManager.open(file_name, "rb") as file:
        image: Any = Image.open(file)
        if format not in _FORMATS_AS_DEEP_AS_THE_FILE:
            image = _reduce_depth(image, value_range, file, file_name)
        return convert_PIL_to_numpy(make_upright(image), format)


def _reduce_depth(
    image: Image.Image, value_range: ValueRange, file: IO[bytes], file_name: str
) -> Image.Image:
    try:
        reduced = reduce_depth(image, value_range, file)
    except UserValueError as error:
        raise UserValueError(f"Image {str(file_name)!r}: {error}") from error
    if reduced is not image:
        reduced.info["exif"] = image.info.get("exif", b"")
    return reduced


@contextlib.contextmanager
def _errors_with_name(file_name: str) -> Iterator[None]:
    """Name the file in what goes wrong with it."""
    try:
        yield
    except FileNotFoundError as e:
        raise UserFileNotFoundError(f"Image {str(file_name)!r} does not exist.") from e
    except UnidentifiedImageError as e:
        raise UserValueError(
            f"{str(file_name)!r} is not an image that Pillow can read; is it complete?"
        ) from e
    except (OSError, SyntaxError) as e:  # Pillow reports damaged PNG chunks as SyntaxError
        raise UserValueError(f"Image {str(file_name)!r} cannot be read ({e}). Replace the file.") from e


def read_image_size(file_name: str) -> tuple[int, int]:
    """(height, width) of an image file that `read_image` would return, from the head of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image.
    """
    with _errors_with_name(file_name), PathManager.open(file_name, "rb") as file, Image.open(file) as image:
        width, height = image.size
        return (width, height) if _read_orientation(image) in _LYING else (height, width)


def check_image_size(dataset_dict: dict[str, Any], image: np.ndarray) -> None:
    """Compare an image with the size in its dict, and write the size there when it is missing.

    Raises:
        SizeMismatchError: they differ.
    """
    height, width = image.shape[:2]
    expected = (dataset_dict.get("width", width), dataset_dict.get("height", height))
    if expected != (width, height):
        source = f" of data set {dataset_dict['dataset_name']!r}" if "dataset_name" in dataset_dict else ""
        raise SizeMismatchError(
            f"Image {dataset_dict.get('file_name', '')!r}{source} is {width} x {height} (width x height), "
            f"but its annotation says {expected[0]} x {expected[1]}. Correct the annotation's size or the "
            "image file."
        )
    dataset_dict.setdefault("width", width)
    dataset_dict.setdefault("height", height)
