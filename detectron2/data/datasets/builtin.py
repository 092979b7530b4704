"""Registration of the built-in data sets; no file is read or looked for.

Their folders lie below the one that the environment variable DETECTRON2_DATASETS names (./datasets without
it) at the time a data set is loaded; `datasets/README.md` shows them. Data sets elsewhere are registered
with the `register_*` functions of their formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from detectron2.utils.registry import locate

from ..catalog import DatasetCatalog, LazyValue, MetadataCatalog
from .builtin_meta import ADE20K_SEM_SEG_CATEGORIES, get_builtin_metadata, separated_panoptic_meta
from .cityscapes import load_cityscapes_instances, load_cityscapes_semantic
from .cityscapes_panoptic import register_all_cityscapes_panoptic
from .coco.label_maps import load_sem_seg
from .coco.reader import register_coco_instances
from .coco_panoptic import register_coco_panoptic, register_coco_panoptic_separated
from .files import Path, path_below
from .lvis import get_lvis_instances_meta, register_lvis_instances
from .panoptic import register_panoptic
from .panoptic_categories import PANOPTIC_KEYS
from .pascal_voc import register_pascal_voc

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
        root: folder that has `coco/`; DETECTRON2_DATASETS, looked up at loading time, by default.
    """
    for kind, splits in _PREDEFINED_SPLITS_COCO.items():
        for name, (image_root, json_file) in splits.items():
            register_coco_instances(
                name, get_builtin_metadata(kind), path_below(root, json_file), path_below(root, image_root)
            )
    for name, (panoptic_root, panoptic_json, stuff_root) in _PREDEFINED_SPLITS_COCO_PANOPTIC.items():
        image_root, instances_json = _PREDEFINED_SPLITS_COCO["coco"][name.removesuffix("_panoptic")]
        images, instances = path_below(root, image_root), path_below(root, instances_json)
        pngs, segments = path_below(root, panoptic_root), path_below(root, panoptic_json)
        separated, standard = (
            get_builtin_metadata(f"coco_panoptic_{way}") for way in ("separated", "standard")
        )
        register_coco_panoptic_separated(
            name, separated, images, pngs, segments, path_below(root, stuff_root), instances
        )
        register_coco_panoptic(name, standard, images, pngs, segments, instances)


def _lvis_splits(version: str, splits: str, test_splits: str = "") -> dict[str, tuple[str, str]]:
    files = {split: split for split in splits.split()}
    files |= {split: f"image_info_{split}" for split in test_splits.split()}
    return {
        f"lvis_{version}_{split}": ("coco/", f"lvis/lvis_{version}_{f}.json") for split, f in files.items()
    }


# Kind of metadata -> name -> (folder of COCO's image folders, JSON).
_PREDEFINED_SPLITS_LVIS = {
    "lvis_v1": _lvis_splits("v1", "train val", "test_dev test_challenge"),
    "lvis_v0.5": _lvis_splits("v0.5", "train val val_rand_100", "test"),
    "lvis_v0.5_cocofied": _lvis_splits("v0.5", "train_cocofied val_cocofied"),
}


def register_all_lvis(root: Path | None = None) -> None:
    """Register the splits of LVIS 1 and 0.5; each takes its class names from its own file.

    Args:
        root: folder that has `lvis/` and `coco/`; DETECTRON2_DATASETS, looked up at loading time, by
            default.
    """
    for kind, splits in _PREDEFINED_SPLITS_LVIS.items():
        metadata = get_lvis_instances_meta(kind) if "cocofied" in kind else {}
        for name, (image_root, json_file) in splits.items():
            register_lvis_instances(name, metadata, path_below(root, json_file), path_below(root, image_root))


# Name with {task} -> (images, annotations).
_RAW_CITYSCAPES_SPLITS = {
    f"cityscapes_fine_{{task}}_{split}": (f"cityscapes/leftImg8bit/{split}/", f"cityscapes/gtFine/{split}/")
    for split in ("train", "val", "test")
}


def register_all_cityscapes(root: Path | None = None) -> None:
    """Register the splits of Cityscapes with fine annotations, as instances and as semantic labels.

    Args:
        root: folder that has `cityscapes/`; DETECTRON2_DATASETS, looked up at loading time, by default.
    """
    metadata = get_builtin_metadata("cityscapes")
    for name, folders in _RAW_CITYSCAPES_SPLITS.items():
        image_dir, gt_dir = (path_below(root, folder) for folder in folders)
        instances, semantic = (name.format(task=task) for task in ("instance_seg", "sem_seg"))
        DatasetCatalog.register(instances, partial(load_cityscapes_instances, image_dir, gt_dir))
        DatasetCatalog.register(semantic, partial(load_cityscapes_semantic, image_dir, gt_dir))
        common = {"image_dir": image_dir, "gt_dir": gt_dir, **metadata}
        MetadataCatalog.get(instances).set(evaluator_type="cityscapes_instance", **common)
        MetadataCatalog.get(semantic).set(evaluator_type="cityscapes_sem_seg", ignore_label=255, **common)


def register_all_pascal_voc(root: Path | None = None) -> None:
    """Register the detection splits of PASCAL VOC 2007 and 2012.

    Args:
        root: folder that has `VOC2007/` and `VOC2012/`; DETECTRON2_DATASETS, looked up at loading time,
            by default.
    """
    for year, splits in {
        2007: ("trainval", "train", "val", "test"),
        2012: ("trainval", "train", "val"),
    }.items():
        for split in splits:
            register_pascal_voc(f"voc_{year}_{split}", path_below(root, f"VOC{year}"), split, year)


def register_all_ade20k(root: Path | None = None) -> None:
    """Register the scene parsing benchmark of ADE20K, with label maps that ignore 255.

    Args:
        root: folder that has `ADEChallengeData2016/`; DETECTRON2_DATASETS, looked up at loading time, by
            default.
    """
    for split, folder in (("train", "training"), ("val", "validation")):
        name = f"ade20k_sem_seg_{split}"
        images = path_below(root, f"ADEChallengeData2016/images/{folder}")
        maps = path_below(root, f"ADEChallengeData2016/annotations_detectron2/{folder}")
        DatasetCatalog.register(name, partial(load_sem_seg, maps, images))
        MetadataCatalog.get(name).set(
            stuff_classes=list(ADE20K_SEM_SEG_CATEGORIES),
            image_root=images,
            sem_seg_root=maps,
            evaluator_type="sem_seg",
            ignore_label=255,
        )


@dataclass(frozen=True)
class _ShapesMetadata(LazyValue):
    """A piece of the embedded data set's metadata, known even where the data set has not been drawn."""

    key: str

    def resolve(self) -> Any:
        # By name, since that module draws with OpenCV, which is slow to import.
        categories = locate("detectron2.data.datasets.shapes.dataset.SHAPES_CATEGORIES")
        return separated_panoptic_meta(categories)[self.key]


def register_all_shapes(root: Path | None = None) -> None:
    """Register the embedded data set, which `datasets/prepare_shapes.py` draws.

    Args:
        root: folder that has `shapes/`; DETECTRON2_DATASETS, looked up at loading time, by default.
    """
    for split in ("train", "val"):
        register_panoptic(
            f"shapes_panoptic_{split}",
            path_below(root, f"shapes/{split}"),
            path_below(root, f"shapes/panoptic_{split}"),
            path_below(root, f"shapes/annotations/panoptic_{split}.json"),
            instances_json=path_below(root, f"shapes/annotations/instances_{split}.json"),
            metadata={key: _ShapesMetadata(key) for key in PANOPTIC_KEYS},
        )


register_all_ade20k()
register_all_cityscapes()
register_all_cityscapes_panoptic()
register_all_coco()
register_all_lvis()
register_all_pascal_voc()
register_all_shapes()
