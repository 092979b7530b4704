"""Built-in registrations, on real images where they are present."""

from __future__ import annotations

import importlib.util
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from detectron2.config import get_cfg
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.datasets import register_panoptic
from detectron2.data.datasets.builtin import (
    _PREDEFINED_SPLITS_COCO,
    _PREDEFINED_SPLITS_COCO_PANOPTIC,
    _PREDEFINED_SPLITS_LVIS,
)
from detectron2.data.datasets.builtin_meta import (
    ADE20K_SEM_SEG_CATEGORIES,
    CITYSCAPES_CATEGORIES,
    COCO_CATEGORIES,
    COCO_PERSON_KEYPOINT_FLIP_MAP,
    COCO_PERSON_KEYPOINT_NAMES,
    KEYPOINT_CONNECTION_RULES,
    _get_builtin_metadata,
)
from detectron2.data.detection_utils import read_sem_seg
from detectron2.data.detection_utils.panoptic_png import read_panoptic_ids


@pytest.fixture
def real(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a hundred real COCO images, made the root of all data sets."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shared_dir / "real"))
    return shared_dir / "real"


def test_names_and_places_of_the_splits() -> None:
    coco, person = _PREDEFINED_SPLITS_COCO["coco"], _PREDEFINED_SPLITS_COCO["coco_person"]
    assert coco["coco_2014_valminusminival"] == (
        "coco/val2014",
        "coco/annotations/instances_valminusminival2014.json",
    )
    assert coco["coco_2017_val_100"] == ("coco/val2017", "coco/annotations/instances_val2017_100.json")
    assert coco["coco_2017_test-dev"] == ("coco/test2017", "coco/annotations/image_info_test-dev2017.json")
    assert person["keypoints_coco_2017_train"] == (
        "coco/train2017",
        "coco/annotations/person_keypoints_train2017.json",
    )
    assert _PREDEFINED_SPLITS_COCO_PANOPTIC["coco_2017_val_100_panoptic"] == (
        "coco/panoptic_val2017_100",
        "coco/annotations/panoptic_val2017_100.json",
        "coco/panoptic_stuff_val2017_100",
    )
    assert len(coco) == 9 and len(person) == 7
    for name in (*coco, *person):
        assert name in DatasetCatalog
    for name, ending in itertools.product(_PREDEFINED_SPLITS_COCO_PANOPTIC, ("", "_separated", "_stuffonly")):
        assert name + ending in DatasetCatalog


def test_paths_follow_the_environment_when_read(monkeypatch: pytest.MonkeyPatch) -> None:
    meta = MetadataCatalog.get("coco_2017_val_panoptic_separated")
    for root in ("/one", "/two"):
        monkeypatch.setenv("DETECTRON2_DATASETS", root)
        assert meta.json_file == f"{root}/coco/annotations/instances_val2017.json"
        assert meta.panoptic_root == f"{root}/coco/panoptic_val2017"
    monkeypatch.delenv("DETECTRON2_DATASETS")
    assert meta.image_root == "datasets/coco/val2017" and isinstance(meta.image_root, str)
    with pytest.raises(FileNotFoundError, match=r"DETECTRON2_DATASETS is not set.*datasets/README\.md"):
        DatasetCatalog.get("coco_2017_val")


def test_embedded_classes_are_known_without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", "/nowhere")
    meta = MetadataCatalog.get("shapes_panoptic_val")
    assert len(meta.thing_classes) >= 6 and len(meta.stuff_classes) >= 5
    assert len(meta.thing_colors) == len(meta.thing_classes)


def test_importing_reads_nothing_and_stays_light() -> None:
    code = (
        "import sys\n"
        "import detectron2.data\n"
        "heavy = {'cv2', 'pycocotools', 'hotcoco', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_category_tables() -> None:
    assert len(COCO_CATEGORIES) == 133 and sum(c["isthing"] for c in COCO_CATEGORIES) == 80
    assert COCO_CATEGORIES[0] == {"id": 1, "name": "person", "color": [220, 20, 60], "isthing": 1}
    assert {c["id"]: c["name"] for c in COCO_CATEGORIES}[90] == "toothbrush"
    assert len(CITYSCAPES_CATEGORIES) == 19 and CITYSCAPES_CATEGORIES[18]["name"] == "bicycle"
    assert [c["trainId"] for c in CITYSCAPES_CATEGORIES] == [*range(19)]
    assert len(ADE20K_SEM_SEG_CATEGORIES) == 150 and ADE20K_SEM_SEG_CATEGORIES[149] == "flag"
    assert all(name in COCO_PERSON_KEYPOINT_NAMES for pair in COCO_PERSON_KEYPOINT_FLIP_MAP for name in pair)
    assert all(
        a in COCO_PERSON_KEYPOINT_NAMES and b in COCO_PERSON_KEYPOINT_NAMES
        for a, b, _ in KEYPOINT_CONNECTION_RULES
    )
    with pytest.raises(KeyError, match="coco_person"):
        _get_builtin_metadata("coco_persons")


def test_categories_are_those_of_the_official_file(shared_dir: Path) -> None:
    official = json.loads((shared_dir / "real/panoptic_sample/panoptic_coco_categories.json").read_text())
    assert [{k: c[k] for k in ("id", "name", "color", "isthing")} for c in official] == COCO_CATEGORIES


def test_separated_and_standard_numbering() -> None:
    separated = _get_builtin_metadata("coco_panoptic_separated")
    assert len(separated["thing_classes"]) == 80 and len(separated["stuff_classes"]) == 54
    assert (
        separated["stuff_classes"][0] == "things"
        and separated["stuff_dataset_id_to_contiguous_id"][200] == 53
    )
    standard = _get_builtin_metadata("coco_panoptic_standard")
    assert len(standard["stuff_classes"]) == 133 and standard["stuff_dataset_id_to_contiguous_id"][92] == 80


def test_real_panoptic_data_loads(real: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = get_detection_dataset_dicts("coco_2017_train_panoptic_separated", filter_empty=False)
    assert len(records) == 76
    assert len(get_detection_dataset_dicts("coco_2017_val_panoptic_separated", filter_empty=False)) == 24
    assert len(DatasetCatalog.get("coco_2017_train_panoptic")) == 76
    assert len(DatasetCatalog.get("coco_2017_val_panoptic_stuffonly")) == 24
    assert sum("stuff maps" in message for message in caplog.messages) == 3  # once per data set
    # Stuff of the first images against a loop over the segments of the published JSON.
    annotations = json.loads((real / "coco/annotations/panoptic_train2017.json").read_text())["annotations"]
    segments = {a["image_id"]: a["segments_info"] for a in annotations}
    stuff = MetadataCatalog.get("coco_2017_train_panoptic_separated").stuff_dataset_id_to_contiguous_id
    for record in records[:3]:
        ids = read_panoptic_ids(record["pan_seg_file_name"])
        expected = np.full(ids.shape, 255)
        for segment in segments[record["image_id"]]:
            expected[ids == segment["id"]] = stuff.get(segment["category_id"], 0)
        assert np.array_equal(read_sem_seg(record), expected)


def test_real_images_go_through_the_loaders(real: Path) -> None:
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = ("coco_2017_train_panoptic_separated",)
    cfg.MODEL.META_ARCHITECTURE = "PanopticFPN"
    cfg.MODEL.MASK_ON = True
    cfg.INPUT.MIN_SIZE_TRAIN = (128,)
    cfg.INPUT.CROP.ENABLED = True
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.DATALOADER.NUM_WORKERS = 0
    for batch in itertools.islice(build_detection_train_loader(cfg), 4):
        for element in batch:
            height, width = element["image"].shape[1:]
            assert min(height, width) == 128 and element["sem_seg"].shape == (height, width)
            instances = element["instances"]
            assert len(instances) == len(instances.gt_masks) and instances.image_size == (height, width)
    batch = next(iter(build_detection_test_loader(cfg, "coco_2017_val_panoptic_separated")))
    assert batch[0]["image"].shape[1:].numel() > 0


def test_derived_masks_are_those_of_the_instances_file(real: Path) -> None:
    coco = real / "coco"
    register_panoptic(
        "real", coco / "val2017", coco / "panoptic_val2017", coco / "annotations/panoptic_val2017.json"
    )
    derived = get_detection_dataset_dicts("real", filter_empty=False)
    read = get_detection_dataset_dicts("coco_2017_val", filter_empty=False)
    assert MetadataCatalog.get("real").thing_classes == MetadataCatalog.get("coco_2017_val").thing_classes
    for a, b in zip(sorted(derived, key=lambda r: r["image_id"]), read):
        key = [(x["category_id"], tuple(x["bbox"])) for x in a["annotations"]]
        assert sorted(key) == sorted((x["category_id"], tuple(x["bbox"])) for x in b["annotations"])


@pytest.fixture(scope="module")
def prepare() -> Iterator[ModuleType]:
    """The script that writes stuff maps."""
    path = Path(__file__).parents[3] / "datasets" / "prepare_panoptic_fpn.py"
    spec = importlib.util.spec_from_file_location("prepare_panoptic_fpn", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where pickle looks for the functions that worker processes run
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def _as_root(made: dict, root: Path) -> None:
    (root / "toy" / "annotations").mkdir(parents=True)
    made["panoptic_json"].rename(root / "toy/annotations/panoptic_train.json")
    made["panoptic_root"].rename(root / "toy/panoptic_train")


def test_script_writes_missing_maps_only(
    prepare: ModuleType, make_panoptic, expected_stuff: np.ndarray, tmp_path: Path, capsys
) -> None:
    _as_root(make_panoptic(), tmp_path)
    arguments = ["--root", str(tmp_path), "--dataset", "toy", "--splits", "train", "--num-workers", "1"]
    assert prepare.main(arguments) == 0
    maps = tmp_path / "toy" / "panoptic_stuff_train"
    assert sorted(path.name for path in maps.iterdir()) == ["001.png", "002.png"]
    assert np.array_equal(np.asarray(Image.open(maps / "002.png")), expected_stuff)
    (maps / "002.png").unlink()
    stamp = (maps / "001.png").stat().st_mtime_ns
    assert prepare.main(arguments) == 0
    assert (maps / "002.png").exists() and (maps / "001.png").stat().st_mtime_ns == stamp
    assert "1 maps written" in capsys.readouterr().out


def test_script_says_what_it_looked_for(prepare: ModuleType, tmp_path: Path, capsys) -> None:
    assert prepare.main(["--root", str(tmp_path)]) == 1
    assert "panoptic_train2017.json" in capsys.readouterr().err


def test_splits_of_the_other_data_sets_have_their_names_and_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _PREDEFINED_SPLITS_LVIS["lvis_v1"]["lvis_v1_test_dev"] == (
        "coco/",
        "lvis/lvis_v1_image_info_test_dev.json",
    )
    assert (
        _PREDEFINED_SPLITS_LVIS["lvis_v0.5"]["lvis_v0.5_val_rand_100"][1]
        == "lvis/lvis_v0.5_val_rand_100.json"
    )
    assert _PREDEFINED_SPLITS_LVIS["lvis_v0.5_cocofied"]["lvis_v0.5_train_cocofied"][1] == (
        "lvis/lvis_v0.5_train_cocofied.json"
    )
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for folder, suffix in (("images", "jpg"), ("annotations_detectron2", "png")):
        place = tmp_path / "ADEChallengeData2016" / folder / "validation"
        place.mkdir(parents=True)
        Image.new("L", (4, 3)).save(place / f"ADE_val_1.{suffix}")
    (record,) = DatasetCatalog.get("ade20k_sem_seg_val")
    assert record["sem_seg_file_name"].endswith("annotations_detectron2/validation/ADE_val_1.png")
    assert len(MetadataCatalog.get("ade20k_sem_seg_train").stuff_classes) == 150
    configured = {
        "cityscapes_fine_instance_seg_train",
        "voc_2007_trainval",
        "voc_2012_trainval",
        "lvis_v1_train",
    }
    assert configured <= set(DatasetCatalog.list())
