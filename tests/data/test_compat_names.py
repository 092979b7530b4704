"""Names of `data` for others' code do what they did."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MapDataset, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.data.catalog import Metadata

build = importlib.import_module("detectron2.data.build")
common = importlib.import_module("detectron2.data.common")
benchmark = importlib.import_module("detectron2.data.benchmark")
utils = importlib.import_module("detectron2.data.detection_utils")
builtin_meta = importlib.import_module("detectron2.data.datasets.builtin_meta")
cityscapes = importlib.import_module("detectron2.data.datasets.cityscapes")
lvis = importlib.import_module("detectron2.data.datasets.lvis")


def test_round_robin() -> None:
    assert [*common._roundrobin("ABC", "D", "EF")] == [*"ADEBFC"]
    assert [*common._roundrobin()] == []


def test_shares_of_a_worker_are_all_outside_of_workers() -> None:
    assert [*common._shard_iterator_dataloader_worker(range(5), 2)] == [0, 1, 2, 3, 4]


def test_empty_map_data_set_reads_and_gives_nothing() -> None:
    dataset = benchmark._EmptyMapDataset(["a", "b"])
    assert len(dataset) == 2 and dataset[1] == [0]
    with pytest.raises(IndexError):
        dataset[2]


def test_candidates_that_a_subclass_takes_away_are_not_drawn() -> None:
    class Only3(MapDataset):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self._fallback_candidates &= {3}

    mapped = Only3([*range(10)], lambda x: x if x >= 3 else None)
    assert {mapped[0] for _ in range(5)} == {3}


def test_an_image_is_turned_upright() -> None:
    image = Image.new("L", (4, 2))
    image.getexif()[274] = 6
    assert utils._apply_exif_orientation(image).size == (2, 4)


def test_transform_gens_are_augmentations() -> None:
    cfg = get_cfg()
    assert [type(a) for a in utils.build_transform_gen(cfg, True)] == [T.ResizeShortestEdge, T.RandomFlip]


def test_metadata_of_data_sets_that_do_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"here": ["a", "b"], "there": ["a"]}
    known = {name: Metadata(name=name, thing_classes=classes) for name, classes in names.items()}
    monkeypatch.setattr(MetadataCatalog, "get", known.__getitem__)
    build.check_metadata_consistency("thing_classes", ["here", "here"])
    with pytest.raises(ValueError, match="there"):
        build.check_metadata_consistency("thing_classes", ["here", "there"])


@pytest.fixture
def two_sets() -> Any:
    def records(count: int) -> list[dict[str, Any]]:
        boxes = [{"bbox": [0, 0, 1, 1], "bbox_mode": 0, "category_id": i % 2} for i in range(count)]
        return [{"file_name": f"{i}", "image_id": i, "annotations": [box]} for i, box in enumerate(boxes)]

    sizes = {"compat_one": 2, "compat_two": 3}
    for name, count in sizes.items():
        DatasetCatalog.register(name, lambda count=count: records(count))
        MetadataCatalog.get(name).thing_classes = ["a", "b"]
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = tuple(sizes)
    cfg.DATASETS.TRAIN_REPEAT_FACTOR = [("compat_two", 4.0)]
    yield cfg
    for name in sizes:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_data_sets_are_weighted(two_sets: Any) -> None:
    assert build._get_train_datasets_repeat_factors(two_sets) == {"compat_one": 1.0, "compat_two": 4.0}
    sampler = build._build_weighted_sampler(two_sets)
    assert sampler._whole.tolist() == [1, 1, 4, 4, 4]
    two_sets.DATALOADER.REPEAT_THRESHOLD = 1.0
    balanced = build._build_weighted_sampler(two_sets, enable_category_balance=True)
    # Each class is in half of the images of the first; in 2/3 and 1/3 of those of the second.
    expected = [2**0.5] * 2 + [4 * 1.5**0.5, 4 * 3**0.5, 4 * 1.5**0.5]
    assert np.allclose((balanced._whole + balanced._fraction).tolist(), expected)
    two_sets.DATASETS.TRAIN_REPEAT_FACTOR = [("elsewhere", 2.0)]
    with pytest.raises(ValueError, match="TRAIN_REPEAT_FACTOR names elsewhere"):
        build._get_train_datasets_repeat_factors(two_sets)


def test_metadata_of_coco() -> None:
    meta = builtin_meta._get_coco_instances_meta()
    assert len(meta["thing_classes"]) == 80 and meta["thing_dataset_id_to_contiguous_id"][90] == 79
    assert len(builtin_meta._get_coco_panoptic_separated_meta()["stuff_classes"]) == 54


def test_files_of_cityscapes(tmp_path: Path) -> None:
    images, truth = tmp_path / "images" / "here", tmp_path / "truth" / "here"
    for folder in (images, truth):
        folder.mkdir(parents=True)
    Image.new("RGB", (8, 4)).save(images / "a_leftImg8bit.png")
    polygons = {
        "imgWidth": 8,
        "imgHeight": 4,
        "objects": [{"label": "car", "polygon": [[0, 0], [3, 0], [3, 3], [0, 3]]}],
    }
    (truth / "a_gtFine_polygons.json").write_text(json.dumps(polygons))
    (files,) = cityscapes._get_cityscapes_files(str(images.parent), str(truth.parent))
    assert [Path(path).name for path in files] == [
        "a_leftImg8bit.png",
        "a_gtFine_instanceIds.png",
        "a_gtFine_labelIds.png",
        "a_gtFine_polygons.json",
    ]
    record = cityscapes._cityscapes_files_to_dict(files, from_json=True, to_polygons=False)
    assert (record["height"], record["width"]) == (4, 8)
    assert [annotation["category_id"] for annotation in record["annotations"]] == [2]
    assert record == cityscapes.load_cityscapes_instances(images.parent, truth.parent, True, False)[0]


def test_tables_of_lvis_are_read_when_they_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detectron2.data.datasets.compat_names import CategoriesOfFile

    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    table = CategoriesOfFile("lvis/lvis_v1_train.json")
    counts = CategoriesOfFile("lvis/lvis_v1_train.json", ("id", "image_count"))
    assert "lvis_v1_train" in repr(table)
    with pytest.raises(FileNotFoundError, match="lvis_v1_train.json"):
        len(table)
    categories = [
        {"id": 2, "name": "b", "synonyms": ["bee"], "image_count": 7},
        {"id": 1, "name": "a", "synonyms": ["ay"], "image_count": 5},
    ]
    (tmp_path / "lvis").mkdir()
    content = {"images": [], "annotations": [], "categories": categories}
    (tmp_path / "lvis" / "lvis_v1_train.json").write_text(json.dumps(content))
    assert [c["name"] for c in table] == ["a", "b"] and len(table) == 2 and table[-1]["id"] == 2
    assert counts == [{"id": 1, "image_count": 5}, {"id": 2, "image_count": 7}]
    assert [c["id"] for c in table[:1]] == [1]
    meta = lvis._get_lvis_instances_meta_v1()
    assert meta["thing_classes"] == ["ay", "bee"] and meta["class_image_count"] == [*counts]
    for name in ("LVIS_V1_CATEGORIES", "LVIS_V0_5_CATEGORIES", "LVIS_V1_CATEGORY_IMAGE_COUNT"):
        assert isinstance(getattr(lvis, name), CategoriesOfFile)
