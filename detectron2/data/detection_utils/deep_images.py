"""Images with more than 8 bits per channel: 16-bit and floating point files, from cameras that measure.

Models work on values from 0 to 255. What the values of a file mean is known to whoever made it: a range of
them is stated, or the file is refused. Cut off at 255 it would be white, and a floating point one black.
"""

from __future__ import annotations

from typing import IO

import numpy as np
from PIL import Image

from detectron2.utils.user_errors import UserValueError

ValueRange = tuple[float, float] | list[float] | None
"""Values of a file that become 0 and 255; None or none at all where they are not stated."""

_DEEP_MODES = ("I", "F")  # and those that begin with "I;16"
_DEEP_COLORS = ("RGB;16", "RGBA;16")  # how Pillow names the channels of a file that it reads at 8 bits


def is_deep(image: Image.Image) -> bool:
    """Whether a single channel has more than 8 bits."""
    return image.mode in _DEEP_MODES or image.mode.startswith("I;16")


def reduce_depth(image: Image.Image, value_range: ValueRange, file: IO[bytes] | None = None) -> Image.Image:
    """Bring an image to 8 bits per channel.

    Args:
        image: what PIL opened; one of 8 bits is returned as it is.
        value_range: values that become 0 and 255, those between in proportion. Without it, whole numbers up
            to 255 stay, and the high byte of 16-bit colours is used, as PNG defines them.
        file: what the image was opened from, to read 16-bit colours in full.

    Raises:
        ValueError: values do not fit into 8 bits and no range is stated; or it is no range.
    """
    if value_range:
        low, high = _checked_range(value_range)
        if is_deep(image):
            return _scale(np.asarray(image), low, high)
        if file is not None and _has_deep_colors(image):
            return _scale(_read_deep_colors(file), low, high)
        return image
    if not is_deep(image):
        return image
    values = np.asarray(image)
    if image.mode != "F" and values.size and 0 <= values.min() and values.max() <= 255:
        return Image.fromarray(values.astype(np.uint8))
    kind = "floating point" if image.mode == "F" else "16-bit or larger"
    raise UserValueError(
        f"its {kind} values, from {values.min():g} to {values.max():g}, do not fit into 8 bits. State which "
        "values are black and white by INPUT.VALUE_RANGE in the config, as `INPUT.VALUE_RANGE [0,65535]`, or "
        "by the argument value_range of DatasetMapper and read_image; or convert the files to 8 bits."
    )


def _checked_range(value_range: tuple[float, float] | list[float]) -> tuple[float, float]:
    if len(value_range) != 2 or not value_range[0] < value_range[1]:
        raise UserValueError(
            f"INPUT.VALUE_RANGE must be two numbers, the lower one first, got {list(value_range)}."
        )
    return float(value_range[0]), float(value_range[1])


def _scale(values: np.ndarray, low: float, high: float) -> Image.Image:
    """(H, W) or (H, W, 3) numbers -> 8 bits."""
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return Image.fromarray(np.rint(np.nan_to_num(scaled).clip(0, 255)).astype(np.uint8))


def _has_deep_colors(image: Image.Image) -> bool:
    return any(str(tile.args).lstrip("('").startswith(_DEEP_COLORS) for tile in getattr(image, "tile", ()))


def _read_deep_colors(file: IO[bytes]) -> np.ndarray:
    """(H, W, 3) uint16 RGB."""
    import cv2  # slow to import, and few files need it

    file.seek(0)
    pixels = cv2.imdecode(np.frombuffer(file.read(), dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise UserValueError("its 16-bit colours cannot be read; convert the file to 8 bits.")
    return np.ascontiguousarray(pixels[:, :, 2::-1])
