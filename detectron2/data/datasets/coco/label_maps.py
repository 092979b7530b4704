"""Plain folders of images and of semantic label maps."""

from __future__ import annotations

import logging
import os
from typing import Any

from detectron2.utils.file_io import PathManager
from detectron2.utils.user_errors import UserFileNotFoundError

from ..files import Path

logger = logging.getLogger(__name__)


def load_sem_seg(
    gt_root: Path, image_root: Path, gt_ext: str = "png", image_ext: str = "jpg"
) -> list[dict[str, Any]]:
    """Pair the images of one folder with the label maps of another, by their paths below the two without
    suffix.

    Args:
        gt_root: folder of (H, W) label maps.
        image_root: folder of images.
        gt_ext, image_ext: suffixes of the files.

    Returns:
        Dicts with `file_name` and `sem_seg_file_name`, ordered by name. Images without a map, and maps
        without an image, are left out; a warning says how many.
    """
    maps, images = _list_stems(gt_root, gt_ext), _list_stems(image_root, image_ext)
    if not maps or not images:
        folder, ext = (gt_root, gt_ext) if not maps else (image_root, image_ext)
        raise UserFileNotFoundError(f"There is no .{ext} file in {os.fspath(folder)!r}.")
    common = sorted(maps.keys() & images.keys())
    if len(common) < max(len(maps), len(images)):
        logger.warning(
            "%s has %d images and %s has %d label maps; the %d with a common name are used.",
            os.fspath(image_root), len(images), os.fspath(gt_root), len(maps), len(common),
        )  # fmt: skip
    logger.info("Loaded %d images with semantic segmentation from %s", len(common), os.fspath(image_root))
    return [{"file_name": images[stem], "sem_seg_file_name": maps[stem]} for stem in common]


def _list_stems(folder: Path, ext: str) -> dict[str, str]:
    """Path without suffix -> path, for the files of a folder that have the suffix."""
    root = os.fspath(folder)
    if not PathManager.isdir(root):
        raise UserFileNotFoundError(f"Folder {root!r} does not exist.")
    names = [name for name in PathManager.ls(root) if name.endswith("." + ext)]
    return {name[: -len(ext) - 1]: os.path.join(root, name) for name in names}
