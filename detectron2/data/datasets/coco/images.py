"""The list of images in a COCO file: ids that tell them apart, and sizes that it may leave out."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable
from typing import Any

from detectron2.data.detection_utils.image_io import read_image_size
from detectron2.utils.user_errors import UserKeyError, UserValueError

logger = logging.getLogger(__name__)


def check_image_ids(ids: Iterable[Any], where: str) -> None:
    """Refuse images that share an id: the evaluation would add up their objects.

    Args:
        ids: of all images.
        where: the file or data set, as the beginning of a sentence.
    """
    repeated = [id for id, count in Counter(ids).items() if count > 1]
    if repeated:
        raise UserValueError(
            f"{where} has {len(repeated)} image ids more than once, {repeated[0]!r} among them. The "
            "evaluation would mix up their objects: give every image an 'id' of its own (and its annotations "
            "that 'image_id'), or remove the copies."
        )


def complete_images(content: dict[str, Any], json_file: str, image_root: str) -> list[dict[str, Any]]:
    """Check the images of a COCO file, and read sizes that it does not give from the image files.

    Args:
        content: of the file.
        json_file: its path, for errors.
        image_root: folder of the images.

    Returns:
        The images, ordered by id, each with `id`, `file_name`, `height` and `width`.

    Raises:
        KeyError: an image has no id or no file name.
        ValueError: two images have one id.
        FileNotFoundError: an image has no size in the file, and does not exist.
    """
    images = content["images"]
    for image in images:
        lacking = [key for key in ("id", "file_name") if key not in image]
        if lacking:
            raise UserKeyError(
                f"An image in {json_file!r} has no {' and no '.join(map(repr, lacking))}: {image}. Every "
                "entry of 'images' needs both."
            )
    check_image_ids((image["id"] for image in images), repr(json_file))
    num_sizeless = sum(not _has_size(image) for image in images)
    if num_sizeless:
        logger.warning(
            "%d of %d images in %s have no 'height' and 'width'; these are read from the image files, each "
            "time. Write them into the file to save that.",
            num_sizeless, len(images), json_file,
        )  # fmt: skip
    return [_with_size(image, image_root) for image in sorted(images, key=lambda image: image["id"])]


def _has_size(image: dict[str, Any]) -> bool:
    return image.get("height") is not None and image.get("width") is not None


def _with_size(image: dict[str, Any], image_root: str) -> dict[str, Any]:
    if _has_size(image):
        return image
    height, width = read_image_size(os.path.join(image_root, image["file_name"]))
    return {**image, "height": height, "width": width}
