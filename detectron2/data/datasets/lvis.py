"""Data sets in LVIS's instance format: COCO's, with images that are labelled for some categories only.

Names of categories and counts of images come from the annotation file, when they are first asked for.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from detectron2.utils.user_errors import UserValueError

from ..catalog import DatasetCatalog, MetadataCatalog
from .builtin_meta import get_builtin_metadata
from .coco.reader import AnnotationReader, check_from_command_line, group_by_image
from .derived import DerivedValue, derived_values, remember
from .files import DataPath, Path, read_json

logger = logging.getLogger(__name__)

__all__ = ["get_lvis_instances_meta", "load_lvis_json", "register_lvis_instances"]

_IMAGE_LABELS = ("neg_category_ids", "not_exhaustive_category_ids")
_TRAIN_FILES = {"lvis_v1": "lvis/lvis_v1_train.json", "lvis_v0.5": "lvis/lvis_v0.5_train.json"}
_DERIVED_KEYS = ("thing_classes", "class_image_count")
_ID_MAP = "thing_dataset_id_to_contiguous_id"


def register_lvis_instances(name: str, metadata: dict[str, Any], json_file: Path, image_root: Path) -> None:
    """Register a data set in LVIS's format.

    Args:
        name: how configs call it.
        metadata: further metadata; may be empty. `thing_classes`, `class_image_count` and
            `thing_dataset_id_to_contiguous_id` come from the file where they are not given.
        json_file: its annotations.
        image_root: folder that has the folders of images, "train2017" and so on.
    """
    derived = derived_values(_derive_metadata, json_file, _DERIVED_KEYS, given=metadata)
    derived |= derived_values(_derive_ids, json_file, [_ID_MAP], given=metadata, gives_way=True)
    DatasetCatalog.register(name, partial(load_lvis_json, json_file, image_root, name))
    MetadataCatalog.get(name).set(
        json_file=json_file, image_root=image_root, evaluator_type="lvis", **derived, **metadata
    )


def load_lvis_json(
    json_file: Path,
    image_root: Path,
    dataset_name: str | None = None,
    extra_annotation_keys: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Read a file in LVIS's format.

    Args:
        json_file: path to the annotations.
        image_root: see `register_lvis_instances`.
        dataset_name: data set whose metadata may have `thing_dataset_id_to_contiguous_id`. Where it has
            none, `category_id` is the file's less 1.
        extra_annotation_keys: further keys of the annotations to keep.

    Returns:
        A dict per image, ordered by image id, as from `load_coco_json`, with `neg_category_ids` (known to
        be absent) and `not_exhaustive_category_ids` (perhaps not all labelled), ids of the file.
    """
    path = os.fspath(json_file)
    content = read_json(path, dataset_name)
    if not isinstance(content, dict) or not {"images", "categories"} <= content.keys():
        raise UserValueError(
            f"{path!r} is not in LVIS's format: expected an object with 'images', 'annotations' and "
            f"'categories', got {sorted(content) if isinstance(content, dict) else type(content).__name__}."
        )
    remember(_derive_metadata, path, content)
    mapping = vars(MetadataCatalog.get(dataset_name)).get(_ID_MAP) if dataset_name else None
    if mapping is None or isinstance(mapping, DerivedValue):
        mapping = remember(_derive_ids, path, content)[_ID_MAP]
    per_image = group_by_image(content, path)
    reader = AnnotationReader(path, mapping, tuple(extra_annotation_keys or ()))
    records = []
    for image in sorted(content["images"], key=lambda image: image["id"]):
        annotations = (reader.read(annotation) for annotation in per_image[image["id"]])
        records.append(
            {
                "file_name": _image_file(os.fspath(image_root), image),
                "height": image["height"],
                "width": image["width"],
                "image_id": image["id"],
                **{key: image.get(key, []) for key in _IMAGE_LABELS},
                "annotations": [annotation for annotation in annotations if annotation is not None],
            }
        )
    logger.info("Loaded %d images in LVIS format from %s", len(records), path)
    reader.report()
    return records


def _image_file(image_root: str, image: dict[str, Any]) -> str:
    """The splits of LVIS mix those of COCO; the end of `coco_url` is the folder and name of an image."""
    if "coco_url" not in image:
        return os.path.join(image_root, image["file_name"])
    return os.path.join(image_root, *image["coco_url"].split("/")[-2:])


def _sorted_ids(path: str, categories: list[dict[str, Any]]) -> list[int]:
    ids = sorted(category["id"] for category in categories)
    if ids != [*range(1, len(ids) + 1)]:
        raise UserValueError(
            f"The category ids of {path!r} are not 1 to {len(ids)}, as LVIS has them. Renumber them, or give "
            "thing_dataset_id_to_contiguous_id in the metadata."
        )
    return ids


def get_lvis_instances_meta(dataset_name: str) -> dict[str, Any]:
    """Metadata that all splits of a version share.

    Class names and image counts are those of the training file below DETECTRON2_DATASETS. They are read when
    they are asked for after `Metadata.set`; until then the values are `LazyValue`.

    Args:
        dataset_name: begins with "lvis_v1" or "lvis_v0.5"; with "cocofied" in it, COCO's 80 classes are used.
    """
    if "cocofied" in dataset_name:
        return get_builtin_metadata("coco")
    for version, train_file in _TRAIN_FILES.items():
        if dataset_name.startswith(version):
            return dict(derived_values(_derive_metadata, DataPath(train_file), _DERIVED_KEYS, given=()))
    raise UserValueError(
        f"There is no built-in metadata for {dataset_name!r}: its name should begin with "
        f"{' or '.join(map(repr, _TRAIN_FILES))}. register_lvis_instances takes {{}} and reads your file."
    )


def _derive_metadata(path: str, content: dict[str, Any]) -> dict[str, Any]:
    categories = sorted(content["categories"], key=lambda category: category["id"])
    counts = _count_images(content) if any("image_count" not in c for c in categories) else {}
    return {
        # The first synonym tells categories apart better than the name does ("mouse_(animal_rodent)").
        "thing_classes": [c["synonyms"][0] if c.get("synonyms") else c["name"] for c in categories],
        "class_image_count": [
            {"id": c["id"], "image_count": c.get("image_count", counts.get(c["id"], 0))} for c in categories
        ],
    }


def _derive_ids(path: str, content: dict[str, Any]) -> dict[str, Any]:
    return {_ID_MAP: {id: id - 1 for id in _sorted_ids(path, content["categories"])}}


def _count_images(content: dict[str, Any]) -> dict[int, int]:
    """Category id -> number of images that have it."""
    pairs = {(a["category_id"], a["image_id"]) for a in content.get("annotations", ())}
    counts: dict[int, int] = {}
    for category, _ in pairs:
        counts[category] = counts.get(category, 0) + 1
    return counts


def main() -> None:
    """Check a data set: `python -m detectron2.data.datasets.lvis JSON IMAGE_FOLDER [NAME]`."""
    check_from_command_line("lvis", register_lvis_instances)


if __name__ == "__main__":
    main()
