"""Names that other people's code takes from modules of this package, and that nothing of ours uses.

The tables of LVIS have a file each, as people import them; `CategoriesOfFile` is what these hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

from detectron2.structures.boxes import Boxes, BoxMode
from detectron2.structures.masks import PolygonMasks
from detectron2.structures.rotated_boxes import RotatedBoxes
from detectron2.utils.comm import get_world_size
from detectron2.utils.logger import setup_logger
from detectron2.utils.offer import offer

from ..catalog import DatasetCatalog, LazyValue, MetadataCatalog
from . import builtin
from .builtin_meta import get_builtin_metadata
from .cityscapes import CityscapesFiles, list_files, read_instances
from .files import DataPath, read_json
from .lvis import get_lvis_instances_meta


class CategoriesOfFile(Sequence[dict[str, Any]]):
    """The categories of an annotation file, ordered by id; the file is read when somebody looks at them.

    Raises:
        FileNotFoundError: when used, where the file is not there. No copy of its long table is kept here.
    """

    def __init__(self, json_file: str, keys: Sequence[str] | None = None) -> None:
        """
        Args:
            json_file: below the folder that DETECTRON2_DATASETS names.
            keys: of each category, only these.
        """
        self._json_file = DataPath(json_file)
        self._keys = keys
        self._categories: list[dict[str, Any]] | None = None

    def _read(self) -> list[dict[str, Any]]:
        if self._categories is None:
            entries = sorted(read_json(self._json_file)["categories"], key=lambda entry: entry["id"])
            self._categories = [{key: entry[key] for key in self._keys or entry} for entry in entries]
        return self._categories

    def __len__(self) -> int:
        return len(self._read())

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        return self._read()[index]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._read())

    def __eq__(self, other: object) -> bool:
        return self._read() == (list(other) if isinstance(other, CategoriesOfFile) else other)

    __hash__ = None  # type: ignore[assignment]  # as that of a list

    def __repr__(self) -> str:
        return f"CategoriesOfFile({str(self._json_file)!r})"


LVIS_V1_CATEGORIES = CategoriesOfFile("lvis/lvis_v1_train.json")
LVIS_V1_CATEGORY_IMAGE_COUNT = CategoriesOfFile("lvis/lvis_v1_train.json", ("id", "image_count"))
LVIS_V0_5_CATEGORIES = CategoriesOfFile("lvis/lvis_v0.5_train.json")


def _lvis_meta(version: str) -> dict[str, Any]:
    """The metadata of a version of LVIS, read from its file."""
    meta = get_lvis_instances_meta(version)
    return {key: value.resolve() if isinstance(value, LazyValue) else value for key, value in meta.items()}


def _get_lvis_instances_meta_v1() -> dict[str, Any]:
    return _lvis_meta("lvis_v1")


def _get_lvis_instances_meta_v0_5() -> dict[str, Any]:
    return _lvis_meta("lvis_v0.5")


def _get_coco_instances_meta() -> dict[str, Any]:
    """Names, colours and ids of COCO's 80 things."""
    return get_builtin_metadata("coco")


def _get_coco_panoptic_separated_meta() -> dict[str, Any]:
    """The same of things and of stuff, numbered apart, as Panoptic FPN learns them."""
    return get_builtin_metadata("coco_panoptic_separated")


def _get_cityscapes_files(image_dir: str, gt_dir: str) -> list[tuple[str, str, str, str]]:
    """Paths of each image, and of its instance ids, label ids and polygons."""
    found = []
    for files in list_files(image_dir, gt_dir):
        start = files.annotations
        found.append(
            (files.image, f"{start}instanceIds.png", f"{start}labelIds.png", f"{start}polygons.json")
        )
    return found


def _cityscapes_files_to_dict(
    files: tuple[str, str, str, str], from_json: bool, to_polygons: bool
) -> dict[str, Any]:
    """The instances of one image, of which `_get_cityscapes_files` gave the paths."""
    image, _, _, polygons = files
    return read_instances(
        CityscapesFiles(image, polygons.removesuffix("polygons.json")), from_json, to_polygons
    )


offer("detectron2.data.datasets", _builtin=builtin)
offer("detectron2.data.datasets.builtin", _get_builtin_metadata=get_builtin_metadata)
offer(
    "detectron2.data.datasets.builtin_meta",
    _get_coco_instances_meta,
    _get_coco_panoptic_separated_meta,
)
offer(
    "detectron2.data.datasets.cityscapes",
    _cityscapes_files_to_dict,
    _get_cityscapes_files,
    get_world_size,
    setup_logger,
)
offer(
    "detectron2.data.datasets.coco",
    BoxMode,
    Boxes,
    PolygonMasks,
    RotatedBoxes,
    DatasetCatalog=DatasetCatalog,
    MetadataCatalog=MetadataCatalog,
)
offer(
    "detectron2.data.datasets.lvis",
    BoxMode,
    _get_coco_instances_meta,
    _get_lvis_instances_meta_v0_5,
    _get_lvis_instances_meta_v1,
    LVIS_V0_5_CATEGORIES=LVIS_V0_5_CATEGORIES,
    LVIS_V1_CATEGORIES=LVIS_V1_CATEGORIES,
    LVIS_V1_CATEGORY_IMAGE_COUNT=LVIS_V1_CATEGORY_IMAGE_COUNT,
)
