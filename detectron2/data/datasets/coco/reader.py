"""Data sets in COCO's instance format.

A loader returns one dict per image: `file_name`, `height`, `width`, `image_id` and `annotations`,
each with `bbox` (XYWH, or XYWHA where a box has five numbers), `bbox_mode`, `category_id` (contiguous),
`iscrowd`, and `segmentation` and `keypoints` where the file has them.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from detectron2.data.build.dataset_dicts import get_detection_dataset_dicts
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.structures import rle
from detectron2.structures.boxes import BoxMode
from detectron2.utils.file_io import PathManager
from detectron2.utils.user_errors import UserKeyError, UserTypeError, UserValueError

from ..derived import derived_values
from ..files import Path, read_json
from .images import complete_images

logger = logging.getLogger(__name__)

__all__ = ["load_coco_json", "register_coco_instances"]


def load_coco_json(
    json_file: Path,
    image_root: Path,
    dataset_name: str | None = None,
    extra_annotation_keys: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Read a file in COCO's instance format.

    Polygons with fewer than three points are dropped, and instances that had no other; a warning says how
    many.

    Args:
        json_file: path to the annotations.
        image_root: folder of the images.
        dataset_name: data set whose metadata gets `thing_classes` and
            `thing_dataset_id_to_contiguous_id`. Without it `category_id` stays as in the file.
        extra_annotation_keys: further keys of the annotations to keep, such as "score".

    Returns:
        A dict per image, ordered by image id; see the top of this module. Sizes that the file does not give
        are read from the image files.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not in COCO's format, or ids of images, annotations or categories repeat.
        KeyError: an annotation's category is not among those of the file.
    """
    path, root = os.fspath(json_file), os.fspath(image_root)
    content = read_json(path, dataset_name)
    _check_format(path, content)
    contiguous_id = _note_categories(path, content, dataset_name) if dataset_name is not None else None
    per_image = group_by_image(content, path)
    reader = AnnotationReader(path, contiguous_id, tuple(extra_annotation_keys or ()))
    records = []
    for image in complete_images(content, path, root):
        annotations = (reader.read(anno) for anno in per_image[image["id"]])
        record = {
            "file_name": os.path.join(root, image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "annotations": [anno for anno in annotations if anno is not None],
        }
        records.append(record)
    logger.info("Loaded %d images in COCO format from %s", len(records), path)
    reader.report()
    return records


def _check_format(path: str, content: Any) -> None:
    if not isinstance(content, dict) or "images" not in content:
        raise UserValueError(
            f"{path!r} is not in COCO's format: expected an object with 'images', 'annotations' and "
            f"'categories', got {sorted(content) if isinstance(content, dict) else type(content).__name__}."
        )


def _note_categories(path: str, content: dict[str, Any], dataset_name: str) -> dict[int, int]:
    """Number the categories by ascending id, and put that into the metadata. Returns dataset id -> number."""
    derived = derive_coco_metadata(path, content)
    MetadataCatalog.get(dataset_name).set(**derived)
    contiguous_id: dict[int, int] = derived["thing_dataset_id_to_contiguous_id"]
    if [*contiguous_id] != [*range(1, len(contiguous_id) + 1)] and "coco" not in dataset_name:
        logger.warning(
            "Category ids of data set %r are not 1 to %d. They are numbered in ascending order: %s ...",
            dataset_name, len(contiguous_id), dict([*contiguous_id.items()][:5]),
        )  # fmt: skip
    return contiguous_id


def derive_coco_metadata(path: str, content: dict[str, Any]) -> dict[str, Any]:
    """Names of the classes, and dataset id -> number, of the categories by ascending id.

    Raises:
        ValueError: the file is not in COCO's format, or two categories have one id.
    """
    _check_format(path, content)
    categories = sorted(content.get("categories", []), key=lambda category: category["id"])
    ids = [category["id"] for category in categories]
    if len(set(ids)) < len(ids):
        repeated = sorted(id for id, count in Counter(ids).items() if count > 1)
        raise UserValueError(f"{path!r} lists the category ids {repeated} more than once.")
    return {
        "thing_classes": [category["name"] for category in categories],
        "thing_dataset_id_to_contiguous_id": {id: number for number, id in enumerate(ids)},
    }


def group_by_image(content: dict[str, Any], json_file: str) -> dict[int, list[dict[str, Any]]]:
    annotations = content.get("annotations", [])
    # The public minival2014 file is known to repeat ids.
    if "minival" not in json_file:
        repeated = [id for id, n in Counter(a["id"] for a in annotations if "id" in a).items() if n > 1]
        if repeated:
            raise UserValueError(
                f"{len(repeated)} annotation ids of {json_file!r} occur more than once, {repeated[0]} among "
                "them. The evaluation would mix them up: give every annotation its own id."
            )
    per_image = defaultdict(list)
    for annotation in annotations:
        per_image[annotation["image_id"]].append(annotation)
    num_stray = sum(
        len(per_image[id]) for id in set(per_image) - {image["id"] for image in content["images"]}
    )
    if num_stray:
        logger.warning(
            "%d annotations of %s belong to no image in it and are left out.", num_stray, json_file
        )
    return per_image


class AnnotationReader:
    """Turns annotations of one COCO file into ours, and counts what it had to leave out."""

    def __init__(
        self, json_file: str, contiguous_id: dict[int, int] | None, extra_keys: tuple[str, ...]
    ) -> None:
        self.json_file = json_file
        self.contiguous_id = contiguous_id
        self.kept_keys = ("iscrowd", "bbox", "keypoints", "category_id", *extra_keys)
        self.num_dropped_instances = 0
        self.num_dropped_polygons = 0
        self.first_dropped: Any = None

    def read(self, source: dict[str, Any]) -> dict[str, Any] | None:
        """Our annotation, or None when its only polygons are too short."""
        if source.get("ignore", 0):
            raise UserValueError(
                f"{self._locate(source)} has 'ignore' set, which is not supported. Use 'iscrowd', or remove "
                "it."
            )
        annotation = {key: source[key] for key in self.kept_keys if key in source}
        if len(annotation.get("bbox", "?")) == 0:
            raise UserValueError(
                f"{self._locate(source)} has an empty 'bbox'. It must be [x, y, width, height]."
            )
        if source.get("segmentation"):
            segmentation = self._read_segmentation(source)
            if not segmentation:
                self.num_dropped_instances += 1
                return None
            annotation["segmentation"] = segmentation
        if annotation.get("keypoints"):
            # COCO gives indices of pixels; the centre of pixel (i, j) lies at (i + 0.5, j + 0.5).
            annotation["keypoints"] = [
                value if i % 3 == 2 else value + 0.5 for i, value in enumerate(annotation["keypoints"])
            ]
        is_rotated = len(annotation.get("bbox", "")) == 5
        annotation["bbox_mode"] = BoxMode.XYWHA_ABS if is_rotated else BoxMode.XYWH_ABS
        if self.contiguous_id is not None:
            annotation["category_id"] = self._read_category(source)
        return annotation

    def _read_segmentation(self, source: dict[str, Any]) -> Any:
        """RLE with compressed counts, or the polygons that have at least three points."""
        segmentation = source["segmentation"]
        if isinstance(segmentation, dict):
            if isinstance(segmentation["counts"], list):
                try:
                    return rle.compress(segmentation)
                except UserValueError as error:
                    raise UserValueError(f"{self._locate(source)}: {error}") from error
            return segmentation
        polygons = [polygon for polygon in segmentation if len(polygon) >= 6 and len(polygon) % 2 == 0]
        if len(polygons) < len(segmentation):
            self.num_dropped_polygons += len(segmentation) - len(polygons)
            self.first_dropped = self.first_dropped or self._locate(source)
        return polygons

    def _read_category(self, source: dict[str, Any]) -> int:
        assert self.contiguous_id is not None
        id = source["category_id"]
        if id not in self.contiguous_id:
            raise UserKeyError(
                f"{self._locate(source)} has category_id {id}, which is not among the categories of the "
                f"file: {sorted(self.contiguous_id)}."
            )
        return self.contiguous_id[id]

    def _locate(self, source: dict[str, Any]) -> str:
        return f"Annotation {source.get('id', '?')} of image {source['image_id']} in {self.json_file!r}"

    def report(self) -> None:
        """Warn about what was left out."""
        if self.num_dropped_polygons:
            logger.warning(
                "%d polygons in %s have fewer than 3 points or an odd count of numbers and were dropped; "
                "%d instances had no other polygon and were left out. First: %s. There may be errors in "
                "your data.",
                self.num_dropped_polygons, self.json_file, self.num_dropped_instances, self.first_dropped,
            )  # fmt: skip


def register_coco_instances(name: str, metadata: dict[str, Any], json_file: Path, image_root: Path) -> None:
    """Register a data set in COCO's instance, keypoint or box format.

    Args:
        name: how configs call it, such as "my_train".
        metadata: further metadata; may be empty. Class names and the numbers of the categories come from the
            file, when they are first asked for.
        json_file: its annotations.
        image_root: folder of its images.
    """
    if not isinstance(name, str):
        raise UserTypeError(f"The name of a data set must be a string, got {type(name).__name__}.")
    for path in (json_file, image_root):
        if not isinstance(path, (str, os.PathLike)):
            raise UserTypeError(
                f"json_file and image_root of data set {name!r} must be paths, got {type(path).__name__}."
            )
    keys = ("thing_classes", "thing_dataset_id_to_contiguous_id")
    derived = derived_values(derive_coco_metadata, json_file, keys, given=metadata, gives_way=True)
    DatasetCatalog.register(name, partial(load_coco_json, json_file, image_root, name))
    MetadataCatalog.get(name).set(
        json_file=json_file, image_root=image_root, evaluator_type="coco", **derived, **metadata
    )


def main() -> None:
    """Check a data set: `python -m detectron2.data.datasets.coco JSON IMAGE_FOLDER [NAME]`.

    Loads it as training would, with all warnings and the table of instances per class, and names images that
    are not there.
    """
    check_from_command_line("coco", register_coco_instances)


def check_from_command_line(
    format_name: str, register: Callable[[str, dict[str, Any], str, str], None]
) -> None:
    """Do what `main` says, for the format whose module and `register_*` function these are."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if len(sys.argv) not in (3, 4):
        sys.exit(f"usage: python -m detectron2.data.datasets.{format_name} JSON IMAGE_FOLDER [NAME]")
    json_file, image_root, name = (*sys.argv[1:], "checked")[:3]
    if name not in DatasetCatalog:
        register(name, {}, json_file, image_root)
    records = get_detection_dataset_dicts(name, filter_empty=False)
    missing = [r["file_name"] for r in records if not PathManager.exists(r["file_name"])]
    if missing:
        sys.exit(f"{len(missing)} of {len(records)} images do not exist, {missing[0]!r} among them.")
    logger.info("All %d images are there.", len(records))
