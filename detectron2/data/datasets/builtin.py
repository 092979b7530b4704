"""Registration of the built-in data sets; no file is read or looked for.

Their folders lie below the one that the environment variable DETECTRON2_DATASETS names (./datasets without
it) at the time a data set is loaded; ``datasets/README.md`` shows them. Data sets elsewhere are registered
with the ``register_*`` functions of their formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from detectron2.utils.registry import locate

from ..catalog import LazyValue
from ._files import Path, path_below
from .builtin_meta import _get_builtin_metadata, separated_panoptic_meta
from .coco import register_coco_instances
from .coco_panoptic import register_coco_panoptic, register_coco_panoptic_separated
from .panoptic import DERIVED_KEYS, register_panoptic

_YEARS = {
    "2014": {"train": "train", "val": "val", "minival": "val", "valminusminival": "val"},
    "2017": {"train": "train", "val": "val", "val_100": "val"},
}


def _coco_splits(prefix: str, annotations: str) -> dict[str, tuple[str, str]]:
    """Name -> (image folder, JSON) of the splits that both years and both kinds of annotation have."""
    return {
        f"{prefix}_{year}_{split}": (
            f"coco/{folder}{year}",
            f"coco/annotations/{annotations}_{_file_split(split, year)}.json",
        )
        for year, folders in _YEARS.items()
        for split, folder in folders.items()
    }


def _file_split(split: str, year: str) -> str:
    name, _, number = split.partition("_")
    return f"{name}{year}_{number}" if number else f"{name}{year}"


_PREDEFINED_SPLITS_COCO = {
    "coco": _coco_splits("coco", "instances")
    | {
        "coco_2017_test": ("coco/test2017", "coco/annotations/image_info_test2017.json"),
        "coco_2017_test-dev": ("coco/test2017", "coco/annotations/image_info_test-dev2017.json"),
    },
    "coco_person": _coco_splits("keypoints_coco", "person_keypoints"),
}

# Name -> (folder of panoptic PNGs, panoptic JSON, folder of stuff maps).
_PREDEFINED_SPLITS_COCO_PANOPTIC = {
    f"coco_2017_{split}_panoptic": (
        f"coco/panoptic_{file_split}",
        f"coco/annotations/panoptic_{file_split}.json",
        f"coco/panoptic_stuff_{file_split}",
    )
    for split, file_split in (("train", "train2017"), ("val", "val2017"), ("val_100", "val2017_100"))
}


def register_all_coco(root: Path | None = None) -> None:
    """Register the splits of COCO: instances, person keypoints, and panoptic in its three ways.

    Args:
        root: folder that has ``coco/``; DETECTRON2_DATASETS, looked up at loading time, by default.
    """
    for kind, splits in _PREDEFINED_SPLITS_COCO.items():
        for name, (image_root, json_file) in splits.items():
            register_coco_instances(
                name, _get_builtin_metadata(kind), path_below(root, json_file), path_below(root, image_root)
            )
    for name, (panoptic_root, panoptic_json, stuff_root) in _PREDEFINED_SPLITS_COCO_PANOPTIC.items():
        image_root, instances_json = _PREDEFINED_SPLITS_COCO["coco"][name.removesuffix("_panoptic")]
        images, instances = path_below(root, image_root), path_below(root, instances_json)
        pngs, segments = path_below(root, panoptic_root), path_below(root, panoptic_json)
        separated, standard = (
            _get_builtin_metadata(f"coco_panoptic_{way}") for way in ("separated", "standard")
        )
        register_coco_panoptic_separated(
            name, separated, images, pngs, segments, path_below(root, stuff_root), instances
        )
        register_coco_panoptic(name, standard, images, pngs, segments, instances)


@dataclass(frozen=True)
class _ShapesMetadata(LazyValue):
    """A piece of the embedded data set's metadata, known even where the data set has not been drawn."""

    key: str

    def resolve(self) -> Any:
        # By name, since that module draws with OpenCV, which is slow to import.
        categories = locate("detectron2.data.datasets.shapes.SHAPES_CATEGORIES")
        return separated_panoptic_meta(categories)[self.key]


def register_all_shapes(root: Path | None = None) -> None:
    """Register the embedded data set, which ``datasets/prepare_shapes.py`` draws.

    Args:
        root: folder that has ``shapes/``; DETECTRON2_DATASETS, looked up at loading time, by default.
    """
    for split in ("train", "val"):
        register_panoptic(
            f"shapes_panoptic_{split}",
            path_below(root, f"shapes/{split}"),
            path_below(root, f"shapes/panoptic_{split}"),
            path_below(root, f"shapes/annotations/panoptic_{split}.json"),
            instances_json=path_below(root, f"shapes/annotations/instances_{split}.json"),
            metadata={key: _ShapesMetadata(key) for key in DERIVED_KEYS},
        )


register_all_coco()
register_all_shapes()
