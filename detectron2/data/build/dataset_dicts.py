"""Loading data sets by name into one list of dicts: checks, filters, precomputed proposals, statistics."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tabulate import tabulate
from torch.utils import data as torchdata

from detectron2.structures.boxes import BoxMode
from detectron2.utils import safe_pickle
from detectron2.utils.file_io import PathManager
from detectron2.utils.user_errors import UserValueError

from ..catalog import DatasetCatalog, MetadataCatalog
from ..detection_utils.metadata_queries import check_metadata_consistency
from ..detection_utils.sem_seg import has_sem_seg

logger = logging.getLogger(__name__)

Record = dict[str, Any]


def filter_images_with_only_crowd_annotations(dataset_dicts: list[Record]) -> list[Record]:
    """Leave out images without annotations, or with crowds alone.

    Args:
        dataset_dicts: with `annotations`.
    """
    kept = [r for r in dataset_dicts if any(anno.get("iscrowd", 0) == 0 for anno in r["annotations"])]
    num_dropped = len(dataset_dicts) - len(kept)
    if num_dropped:
        logger.info(
            "Left out %d of %d images that have no usable annotation; %d are left. Set "
            "DATALOADER.FILTER_EMPTY_ANNOTATIONS to False to train on them too.",
            num_dropped, len(dataset_dicts), len(kept),
        )  # fmt: skip
    return kept


def filter_images_with_few_keypoints(
    dataset_dicts: list[Record], min_keypoints_per_image: int
) -> list[Record]:
    """Leave out images with too few visible keypoints.

    Args:
        dataset_dicts: with `annotations` that have `keypoints`.
        min_keypoints_per_image: how many are enough.
    """

    def num_visible(record: Record) -> int:
        return sum(
            int((np.array(anno["keypoints"][2::3]) > 0).sum())
            for anno in record["annotations"]
            if "keypoints" in anno
        )

    kept = [record for record in dataset_dicts if num_visible(record) >= min_keypoints_per_image]
    num_dropped = len(dataset_dicts) - len(kept)
    if num_dropped:
        logger.info(
            "Left out %d of %d images with fewer than %d visible keypoints "
            "(MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE); %d are left.",
            num_dropped, len(dataset_dicts), min_keypoints_per_image, len(kept),
        )  # fmt: skip
    return kept


def load_proposals_into_dataset(dataset_dicts: list[Record], proposal_file: str) -> list[Record]:
    """Add precomputed proposals to dicts.

    The file is a pickle of lists per image: `ids` (or `indexes`), `boxes` (or `bboxes`), (R, 4)
    arrays, `objectness_logits` (or `scores`), (R,) arrays, and optionally `bbox_mode`, the number of a
    `BoxMode`.

    Args:
        dataset_dicts: changed in place; each gets `proposal_boxes`, `proposal_bbox_mode` and
            `proposal_objectness_logits`, best first.
        proposal_file: path of the file; read without running anything that a pickle may ask for.
    """
    logger.info("Loading proposals from %s", proposal_file)
    with PathManager.open(proposal_file, "rb") as file:
        content = safe_pickle.load(file)
    # Names in files of Detectron 1.
    for old, new in (("indexes", "ids"), ("scores", "objectness_logits"), ("bboxes", "boxes")):
        if old in content:
            content[new] = content.pop(old)
    # Image ids are text in dicts of some formats, numbers in those of others.
    place_of = {str(id): place for place, id in enumerate(content["ids"])}
    missing = [r["image_id"] for r in dataset_dicts if str(r["image_id"]) not in place_of]
    if missing:
        raise UserValueError(
            f"{proposal_file!r} has no proposals for {len(missing)} of {len(dataset_dicts)} images, image_id "
            f"{missing[0]!r} among them. Does it belong to this data set?"
        )
    mode = BoxMode(content["bbox_mode"]) if "bbox_mode" in content else BoxMode.XYXY_ABS
    for record in dataset_dicts:
        place = place_of[str(record["image_id"])]
        logits = content["objectness_logits"][place]
        order = logits.argsort()[::-1]
        record["proposal_boxes"] = content["boxes"][place][order]
        record["proposal_objectness_logits"] = logits[order]
        record["proposal_bbox_mode"] = mode
    return dataset_dicts


def print_instances_class_histogram(dataset_dicts: list[Record], class_names: Sequence[str]) -> None:
    """Log how many instances each class has, crowds left out.

    Args:
        dataset_dicts: with `annotations`.
        class_names: name of each `category_id`.
    """
    classes = [
        anno["category_id"] for r in dataset_dicts for anno in r["annotations"] if not anno.get("iscrowd", 0)
    ]
    _check_class_range(classes, len(class_names))
    counts = np.bincount(np.asarray(classes, dtype=np.int64), minlength=len(class_names)).tolist()
    cells = [[_shorten(name), count] for name, count in zip(class_names, counts)]
    num_columns = min(3, len(cells))  # of pairs
    if not cells:
        return
    num_rows = math.ceil(len(cells) / num_columns)
    columns = [cells[i : i + num_rows] for i in range(0, len(cells), num_rows)]
    rows = [
        list(itertools.chain.from_iterable(row))
        for row in itertools.zip_longest(*columns, fillvalue=[None, ""])
    ]
    table = tabulate(rows, headers=["class", "instances"] * len(columns), tablefmt="simple", numalign="right")
    logger.info("%d instances of %d classes:\n%s", sum(counts), len(class_names), table)


def _shorten(name: str) -> str:
    return name if len(name) <= 18 else name[:16] + ".."


def _check_class_range(classes: Sequence[int], num_classes: int) -> None:
    if len(classes) and not (0 <= min(classes) and max(classes) < num_classes):
        raise UserValueError(
            f"category_id must lie in [0, {num_classes - 1}], since the metadata has {num_classes} "
            f"thing_classes; got values from {min(classes)} to {max(classes)}."
        )


def _load_one(name: str) -> Any:
    """One data set: its dicts, marked with its name, or whatever torch data set its function returned."""
    records = DatasetCatalog.get(name)
    if isinstance(records, torchdata.Dataset):
        return records
    if not len(records):
        raise UserValueError(f"Data set {name!r} is empty: its function returned no image.")
    ids = [record["image_id"] for record in records if "image_id" in record]
    num_repeated = len(ids) - len(set(ids))
    if num_repeated:
        logger.warning(
            "Data set %s has %d images whose image_id another one has too. To train on them is fine where "
            "that is meant; an evaluation would mix them up: give every image an id of its own.",
            name, num_repeated,
        )  # fmt: skip
    return [{**record, "dataset_name": name} for record in records]


def get_detection_dataset_dicts(
    names: str | Sequence[str],
    filter_empty: bool = True,
    min_keypoints: int = 0,
    proposal_files: Sequence[str] | None = None,
    check_consistency: bool = True,
) -> Any:
    """Load data sets and join them.

    Every dict also gets `dataset_name`, for errors that are found later.

    Args:
        names: one name or several.
        filter_empty: whether to leave out images without usable annotations.
        min_keypoints: leave out images with fewer visible keypoints.
        proposal_files: precomputed proposals, one file per data set.
        check_consistency: whether the data sets must have the same `thing_classes`, and annotations must
            fit them.

    Returns:
        A list of dicts; a torch data set when that is what the functions returned.

    Raises:
        ValueError: a data set is empty, contradicts another, or has annotations that cannot be trained on.
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise UserValueError(
            "No data set was named. Set DATASETS.TRAIN (or DATASETS.TEST) to names of data sets."
        )
    per_dataset = [_load_one(name) for name in names]
    if any(isinstance(dataset, torchdata.Dataset) for dataset in per_dataset):
        return _join_torch_datasets(names, per_dataset)
    if proposal_files:
        if len(proposal_files) != len(names):
            raise UserValueError(
                f"{len(names)} data sets need as many proposal files, got {len(proposal_files)}."
            )
        per_dataset = [load_proposals_into_dataset(*pair) for pair in zip(per_dataset, proposal_files)]
    for name, records in zip(names, per_dataset):
        _check_annotations(name, records)
    records = [record for dataset in per_dataset for record in dataset]
    has_instances = all("annotations" in record for record in records) and not _has_stuff_alone(records)
    if filter_empty and has_instances:
        records = filter_images_with_only_crowd_annotations(records)
    if min_keypoints > 0 and has_instances and records:
        records = filter_images_with_few_keypoints(records, min_keypoints)
        if not records:
            raise UserValueError(
                f"No image of {', '.join(names)} has {min_keypoints} visible keypoints or more. Does the "
                "data have 'keypoints'? If not, set MODEL.KEYPOINT_ON to False; if few, lower "
                "MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE."
            )
    if check_consistency and has_instances:
        _check_classes(names, records)
    if not records:
        raise UserValueError(
            f"No image of {', '.join(names)} is left after filtering: none has annotations to train on. "
            "Check the annotations, or set DATALOADER.FILTER_EMPTY_ANNOTATIONS to False."
        )
    return records


def _has_stuff_alone(records: list[Record]) -> bool:
    """Whether there are label maps, and no object in any image that a filter could look for."""
    return any(map(has_sem_seg, records)) and not any(record.get("annotations") for record in records)


def _join_torch_datasets(names: list[str], datasets: list[Any]) -> Any:
    if not all(isinstance(dataset, torchdata.Dataset) for dataset in datasets):
        raise UserValueError(
            f"Of {', '.join(names)}, some are lists of dicts and some torch data sets; do not mix them."
        )
    if len(datasets) == 1:
        return datasets[0]
    if any(isinstance(dataset, torchdata.IterableDataset) for dataset in datasets):
        return torchdata.ChainDataset(datasets)
    return torchdata.ConcatDataset(datasets)


def _check_classes(names: list[str], records: list[Record]) -> None:
    if not MetadataCatalog.get(names[0]).get("thing_classes"):
        return
    check_metadata_consistency("thing_classes", names)
    try:
        print_instances_class_histogram(records, MetadataCatalog.get(names[0]).thing_classes)
    except ValueError as e:
        raise UserValueError(f"Data set {' + '.join(names)}: {e}") from e


def _check_annotations(name: str, records: list[Record]) -> None:
    """Raise on boxes that are not finite, and warn of boxes that lie outside their image or are empty."""
    boxed = [(record, anno) for record in records for anno in record.get("annotations", ()) if "bbox" in anno]
    broken = [(record, anno) for record, anno in boxed if not all(map(math.isfinite, anno["bbox"]))]
    if broken:
        record, anno = broken[0]
        raise UserValueError(
            f"Data set {name!r} has {len(broken)} boxes that are not finite, the first in image "
            f"{record.get('file_name')!r}: {list(anno['bbox'])}. Correct or remove these annotations."
        )
    upright_modes = (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    boxed = [(record, anno) for record, anno in boxed if anno.get("bbox_mode") in upright_modes]
    if not boxed:
        return
    boxes = np.array([anno["bbox"] for _, anno in boxed], dtype=np.float64)
    is_xywh = np.array([anno["bbox_mode"] == BoxMode.XYWH_ABS for _, anno in boxed])
    boxes[is_xywh, 2:] += boxes[is_xywh, :2]
    sizes = np.array([(r.get("width", np.inf), r.get("height", np.inf)) for r, _ in boxed], dtype=np.float64)
    is_outside = ((boxes[:, 2:] <= 0) | (boxes[:, :2] >= sizes)).any(axis=1)
    is_empty = (boxes[:, 2:] <= boxes[:, :2]).any(axis=1) & ~is_outside
    for is_bad, problem in ((is_outside, "lie outside their image"), (is_empty, "have no area")):
        if is_bad.any():
            record, anno = boxed[int(np.flatnonzero(is_bad)[0])]
            logger.warning(
                "%d of %d boxes of data set %s %s and are not trained on, the first in image %s: %s.",
                int(is_bad.sum()), len(boxed), name, problem, record.get("file_name"), list(anno["bbox"]),
            )  # fmt: skip
