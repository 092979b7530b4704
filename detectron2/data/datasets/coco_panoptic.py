"""Data sets in COCO's panoptic format: a PNG per image, and one JSON that says what its segments are.

Three ways to use one are registered here:

- *standard*: dicts with `pan_seg_file_name` and `segments_info`; things and stuff share one numbering.
- *separated*: what Panoptic FPN trains on. `annotations` for things and a stuff map, whose label 0 is
  "things" and 255 unlabelled. Where stuff maps were not written ahead of time, dicts hold
  `pan_seg_file_name` and `sem_seg_labels` (segment id -> label), from which the mapper draws them.
- *stuffonly*: the stuff maps alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from detectron2.utils.file_io import PathManager
from detectron2.utils.user_errors import UserKeyError, UserValueError

from ..catalog import DatasetCatalog, MetadataCatalog
from ..detection_utils.panoptic_png import LABEL_OF_THINGS
from .coco.label_maps import load_sem_seg
from .coco.reader import load_coco_json
from .derived import derived_values
from .files import Path, read_json
from .panoptic_categories import PANOPTIC_ID_MAPS, PANOPTIC_KEYS, derive_separated, derive_standard

logger = logging.getLogger(__name__)

__all__ = [
    "load_coco_panoptic_json",
    "merge_to_panoptic",
    "register_coco_panoptic",
    "register_coco_panoptic_separated",
]

Record = dict[str, Any]


def iterate_panoptic_images(
    json_file: Path, image_dir: Path, gt_dir: Path, dataset_name: str | None = None
) -> Iterator[tuple[Record, list[Record]]]:
    """Walk through a panoptic JSON.

    Args:
        json_file: the JSON.
        image_dir, gt_dir: folders of the images and of the PNGs.
        dataset_name: for errors.

    Returns:
        Pairs of a dict (`file_name`, `image_id`, `height` and `width` if known,
        `pan_seg_file_name`) and the segments of the image as in the file.
    """
    content = read_json(json_file, dataset_name)
    if not isinstance(content, dict) or "annotations" not in content:
        raise UserValueError(
            f"{os.fspath(json_file)!r} is not in COCO's panoptic format: it has no 'annotations'."
        )
    images = {image["id"]: image for image in content.get("images", [])}
    for annotation in content["annotations"]:
        if "segments_info" not in annotation:
            raise UserValueError(
                f"Annotation of image {annotation.get('image_id')} in {os.fspath(json_file)!r} has no "
                "'segments_info'. This file is not in COCO's panoptic format; is it the instances file?"
            )
        image = images.get(annotation["image_id"], {})
        # Files without a list of images name PNGs as their images are named, up to the suffix.
        image_name = image.get("file_name") or os.path.splitext(annotation["file_name"])[0] + ".jpg"
        record = {
            "file_name": os.path.join(image_dir, image_name),
            "image_id": _as_int(annotation["image_id"]),
        }
        record |= {key: image[key] for key in ("height", "width") if key in image}
        record["pan_seg_file_name"] = os.path.join(gt_dir, annotation["file_name"])
        yield record, annotation["segments_info"]


def _as_int(image_id: Any) -> Any:
    """Ids as numbers where they are, since COCO's own JSON files differ in this; custom ids may be text."""
    return int(image_id) if isinstance(image_id, str) and image_id.isdigit() else image_id


def _raise_unknown_category(segment: Record, where: str) -> None:
    raise UserKeyError(
        f"Segment {segment.get('id')} in {where} has category_id {segment['category_id']}, which is neither "
        "in thing_dataset_id_to_contiguous_id nor in stuff_dataset_id_to_contiguous_id of the metadata."
    )


def load_coco_panoptic_json(
    json_file: Path, image_dir: Path, gt_dir: Path, meta: dict[str, Any]
) -> list[Record]:
    """Read a data set in COCO's panoptic format.

    Args:
        json_file: the panoptic JSON.
        image_dir, gt_dir: folders of the images and of the PNGs.
        meta: with `thing_dataset_id_to_contiguous_id` and `stuff_dataset_id_to_contiguous_id`.

    Returns:
        Dicts with `file_name`, `image_id`, `pan_seg_file_name` and `segments_info`, whose
        `category_id` is contiguous and whose `isthing` tells which of the two numberings it belongs to.
    """
    things, stuff = meta["thing_dataset_id_to_contiguous_id"], meta["stuff_dataset_id_to_contiguous_id"]

    def translate(segment: Record) -> Record:
        id = segment["category_id"]
        if id not in things and id not in stuff:
            _raise_unknown_category(segment, os.fspath(json_file))
        return {**segment, "category_id": things[id] if id in things else stuff[id], "isthing": id in things}

    records = [
        {**record, "segments_info": [translate(segment) for segment in segments]}
        for record, segments in iterate_panoptic_images(json_file, image_dir, gt_dir)
    ]
    if not records:
        raise UserValueError(f"{os.fspath(json_file)!r} has no annotated image.")
    return records


def register_coco_panoptic(
    name: str,
    metadata: dict[str, Any],
    image_root: Path,
    panoptic_root: Path,
    panoptic_json: Path,
    instances_json: Path | None = None,
) -> None:
    """Register a data set in COCO's panoptic format, in the *standard* way (see the top of this module).

    Args:
        name: how configs call it.
        metadata: further metadata, or values to use instead of those that follow from the categories of the
            JSON: class names, colours and contiguous ids.
        image_root: folder of the images.
        panoptic_root: folder of the panoptic PNGs.
        panoptic_json: the panoptic JSON.
        instances_json: its things in COCO's instance format, for the evaluation of masks.
    """
    derived = derived_values(derive_standard, panoptic_json, PANOPTIC_KEYS, given=metadata)
    DatasetCatalog.register(name, partial(_load_standard, panoptic_json, image_root, panoptic_root, name))
    MetadataCatalog.get(name).set(
        **_places(image_root, panoptic_root, panoptic_json, instances_json),
        label_divisor=1000,
        **derived,
        **metadata,
    )


def _load_standard(panoptic_json: Path, image_root: Path, panoptic_root: Path, name: str) -> list[Record]:
    metadata = MetadataCatalog.get(name)
    ids = {key: getattr(metadata, key) for key in PANOPTIC_ID_MAPS}
    return load_coco_panoptic_json(panoptic_json, image_root, panoptic_root, ids)


def _places(
    image_root: Path, panoptic_root: Path, panoptic_json: Path, instances_json: Path | None
) -> dict[str, Any]:
    """Metadata that the panoptic evaluation looks for."""
    return {
        "evaluator_type": "coco_panoptic_seg",
        "ignore_label": 255,
        "image_root": image_root,
        "json_file": instances_json,
        "panoptic_json": panoptic_json,
        "panoptic_root": panoptic_root,
    }


def register_coco_panoptic_separated(
    name: str,
    metadata: dict[str, Any],
    image_root: Path,
    panoptic_root: Path,
    panoptic_json: Path,
    sem_seg_root: Path,
    instances_json: Path,
) -> None:
    """Register a data set twice: as `NAME_separated` and as `NAME_stuffonly` (see the top of this
    module).

    Args:
        name: how configs call it, without the suffix.
        metadata: further metadata, or values to use instead of those that follow from the categories of the
            JSON; `builtin_meta.separated_panoptic_meta` makes such.
        image_root: folder of the images.
        panoptic_root: folder of the panoptic PNGs.
        panoptic_json: the panoptic JSON.
        sem_seg_root: folder of the stuff maps; what it lacks is derived from the panoptic PNGs.
        instances_json: the things in COCO's instance format.
    """
    derived = derived_values(derive_separated, panoptic_json, PANOPTIC_KEYS, given=metadata)
    load_stuff = partial(_load_stuff, sem_seg_root, image_root, panoptic_root, panoptic_json)
    separated, stuffonly = f"{name}_separated", f"{name}_stuffonly"
    DatasetCatalog.register(
        separated,
        partial(_load_separated, separated, instances_json, image_root, partial(load_stuff, separated)),
    )
    MetadataCatalog.get(separated).set(
        **_places(image_root, panoptic_root, panoptic_json, instances_json),
        sem_seg_root=sem_seg_root,
        **derived,
        **metadata,
    )
    DatasetCatalog.register(stuffonly, partial(load_stuff, stuffonly))
    MetadataCatalog.get(stuffonly).set(
        evaluator_type="sem_seg",
        ignore_label=255,
        image_root=image_root,
        sem_seg_root=sem_seg_root,
        **derived,
        **metadata,
    )


def _load_separated(
    name: str, instances_json: Path, image_root: Path, load_stuff: Callable[[], list[Record]]
) -> list[Record]:
    return merge_to_panoptic(load_coco_json(instances_json, image_root, name), load_stuff())


def _load_stuff(
    sem_seg_root: Path, image_root: Path, panoptic_root: Path, panoptic_json: Path, name: str
) -> list[Record]:
    """Dicts with `sem_seg_file_name`, or, for images whose stuff map is not there, what it can be derived
    from."""
    root = os.fspath(sem_seg_root)
    existing = set(PathManager.ls(root)) if PathManager.isdir(root) else set()
    if existing and not PathManager.exists(os.fspath(panoptic_json)):
        return load_sem_seg(sem_seg_root, image_root)
    things, stuff = (getattr(MetadataCatalog.get(name), key) for key in PANOPTIC_ID_MAPS)
    label_of_category = dict.fromkeys(things, LABEL_OF_THINGS) | stuff
    records, num_derived = [], 0
    for record, segments in iterate_panoptic_images(panoptic_json, image_root, panoptic_root, name):
        map_name = os.path.basename(record["pan_seg_file_name"])
        if map_name in existing:
            records.append(
                {"file_name": record["file_name"], "sem_seg_file_name": os.path.join(root, map_name)}
            )
        else:
            num_derived += 1
            labels = _labels_of_segments(segments, label_of_category, os.fspath(panoptic_json))
            source = {key: record[key] for key in ("file_name", "pan_seg_file_name")}
            records.append({**source, "sem_seg_labels": labels})
    if num_derived:
        logger.warning(
            "%d of %d stuff maps of %s are not in %s; they are derived from the panoptic PNGs while loading. "
            "`python datasets/prepare_panoptic_fpn.py` writes them ahead of time.",
            num_derived, len(records), name, root,
        )  # fmt: skip
    return records


def _labels_of_segments(
    segments: list[Record], label_of_category: dict[int, int], where: str
) -> dict[int, int]:
    labels = {}
    for segment in segments:
        if segment["category_id"] not in label_of_category:
            _raise_unknown_category(segment, where)
        labels[segment["id"]] = label_of_category[segment["category_id"]]
    return labels


def merge_to_panoptic(detection_dicts: list[Record], sem_seg_dicts: list[Record]) -> list[Record]:
    """Join what two loaders say about the same images.

    Args:
        detection_dicts: dicts with `annotations`.
        sem_seg_dicts: dicts with label maps, for at least the same images.

    Returns:
        For each of `detection_dicts` one dict with the entries of both.

    Raises:
        ValueError: an image has no counterpart in `sem_seg_dicts`.
    """
    stuff_of = {record["file_name"]: record for record in sem_seg_dicts}
    missing = [record["file_name"] for record in detection_dicts if record["file_name"] not in stuff_of]
    if missing:
        raise UserValueError(
            f"{len(missing)} of {len(detection_dicts)} images with instances have no semantic segmentation, "
            f"{missing[0]!r} among them. Both annotations must cover the same images."
        )
    return [{**record, **stuff_of[record["file_name"]]} for record in detection_dicts]
