"""Cityscapes in COCO's panoptic format, as `csCreatePanopticImgs` of cityscapesscripts writes it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from detectron2.utils.file_io import PathManager
from detectron2.utils.user_errors import UserFileNotFoundError

from ..catalog import DatasetCatalog, MetadataCatalog
from .builtin_meta import CITYSCAPES_CATEGORIES
from .cityscapes import iterate_images
from .files import Path, path_below, read_json

__all__ = ["get_cityscapes_panoptic_files", "load_cityscapes_panoptic", "register_all_cityscapes_panoptic"]

# Name -> (images, panoptic PNGs, JSON).
_RAW_CITYSCAPES_PANOPTIC_SPLITS = {
    f"cityscapes_fine_panoptic_{split}": (
        f"cityscapes/leftImg8bit/{split}",
        f"cityscapes/gtFine/cityscapes_panoptic_{split}",
        f"cityscapes/gtFine/cityscapes_panoptic_{split}.json",
    )
    for split in ("train", "val")
}


def get_cityscapes_panoptic_files(
    image_dir: Path, gt_dir: Path, json_info: Mapping[str, Any]
) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Pair images with PNGs and segments.

    Args:
        image_dir: folder of the images' cities.
        gt_dir: folder of the PNGs.
        json_info: content of the panoptic JSON.

    Returns:
        (image file, PNG, segments as in the JSON) of every annotated image.
    """
    image_of = {
        name.removesuffix("_leftImg8bit.png"): os.path.join(image_dir, city, name)
        for city, name in iterate_images(image_dir)
    }
    files = []
    for annotation in json_info["annotations"]:
        image_id = annotation["image_id"].removesuffix("_leftImg8bit")
        if image_id not in image_of:
            raise UserFileNotFoundError(f"There is no image of {image_id!r} in {os.fspath(image_dir)!r}.")
        png_file = os.path.join(gt_dir, annotation["file_name"])
        files.append((image_of[image_id], png_file, annotation["segments_info"]))
    return files


def load_cityscapes_panoptic(
    image_dir: Path, gt_dir: Path, gt_json: Path, meta: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Read a panoptic split.

    Args:
        image_dir: such as `cityscapes/leftImg8bit/train`.
        gt_dir: such as `cityscapes/gtFine/cityscapes_panoptic_train`.
        gt_json: the panoptic JSON.
        meta: with `thing_dataset_id_to_contiguous_id` and `stuff_dataset_id_to_contiguous_id`.

    Returns:
        Dicts with `file_name`, `image_id`, `sem_seg_file_name`, `pan_seg_file_name` and
        `segments_info`, whose categories are contiguous.
    """
    things, stuff = (meta[f"{kind}_dataset_id_to_contiguous_id"] for kind in ("thing", "stuff"))
    number_of = {**stuff, **things}
    records = []
    for image_file, png_file, segments in get_cityscapes_panoptic_files(
        image_dir, gt_dir, read_json(gt_json)
    ):
        # The maps lie beside the folder of PNGs, in one with the name of the images' folder.
        split, city = os.path.split(os.path.dirname(image_file))
        image_id = os.path.basename(image_file).removesuffix("_leftImg8bit.png")
        labels = os.path.join(
            os.path.dirname(os.path.normpath(gt_dir)), os.path.basename(split), city,
            f"{image_id}_gtFine_labelTrainIds.png",
        )  # fmt: skip
        if not PathManager.isfile(png_file):
            raise UserFileNotFoundError(
                f"{png_file!r} does not exist. Make the panoptic PNGs with `csCreatePanopticImgs` of the "
                "package cityscapesscripts."
            )
        records.append(
            {
                "file_name": image_file,
                "image_id": image_id,
                "sem_seg_file_name": labels,
                "pan_seg_file_name": png_file,
                "segments_info": [
                    {**segment, "category_id": number_of[segment["category_id"]]} for segment in segments
                ],
            }
        )
    return records


def register_all_cityscapes_panoptic(root: Path | None = None) -> None:
    """Register the panoptic splits; things and stuff share the numbering of the training ids.

    Args:
        root: folder that has `cityscapes/`; DETECTRON2_DATASETS, looked up at loading time, by default.
    """
    names = [category["name"] for category in CITYSCAPES_CATEGORIES]
    colors = [category["color"] for category in CITYSCAPES_CATEGORIES]
    things, stuff = (
        {c["id"]: c["trainId"] for c in CITYSCAPES_CATEGORIES if c["isthing"] == isthing}
        for isthing in (1, 0)
    )
    meta = {
        "thing_classes": names,
        "thing_colors": colors,
        "stuff_classes": names,
        "stuff_colors": colors,
        "thing_dataset_id_to_contiguous_id": things,
        "stuff_dataset_id_to_contiguous_id": stuff,
    }
    for name, paths in _RAW_CITYSCAPES_PANOPTIC_SPLITS.items():
        image_dir, gt_dir, gt_json = (path_below(root, path) for path in paths)
        DatasetCatalog.register(name, partial(load_cityscapes_panoptic, image_dir, gt_dir, gt_json, meta))
        MetadataCatalog.get(name).set(
            image_root=image_dir,
            panoptic_root=gt_dir,
            panoptic_json=gt_json,
            gt_dir=path_below(root, f"cityscapes/gtFine/{name.rpartition('_')[2]}"),
            evaluator_type="cityscapes_panoptic_seg",
            ignore_label=255,
            label_divisor=1000,
            **meta,
        )
