"""Reading LVIS's format, and the metadata that follows from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.lvis import get_lvis_instances_meta, load_lvis_json, register_lvis_instances
from detectron2.data.detection_utils import get_fed_loss_cls_weights
from detectron2.structures import BoxMode

CONTENT: dict[str, Any] = {
    "images": [
        {
            "id": 9,
            "height": 30,
            "width": 40,
            "coco_url": "http://images.cocodataset.org/train2017/000000000009.jpg",
            "neg_category_ids": [2],
            "not_exhaustive_category_ids": [1],
        },
        {"id": 4, "height": 30, "width": 40, "file_name": "four.jpg"},
    ],
    "categories": [
        {"id": 2, "name": "mouse", "synonyms": ["mouse_(computer)", "pointer"], "image_count": 16},
        {"id": 1, "name": "aerosol", "synonyms": [], "image_count": 4},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 9,
            "category_id": 2,
            "bbox": [1, 2, 3, 4],
            "area": 12,
            "segmentation": [[1, 2, 4, 2, 4, 6]],
        }
    ],
}


@pytest.fixture
def json_file(tmp_path: Path) -> str:
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(CONTENT))
    return str(path)


def test_numbers_of_categories_are_known_before_loading(json_file: str) -> None:
    register_lvis_instances("numbered_lvis", {}, json_file, "coco/")
    try:
        metadata = MetadataCatalog.get("numbered_lvis")
        assert metadata.thing_dataset_id_to_contiguous_id == {1: 0, 2: 1}
        metadata.thing_dataset_id_to_contiguous_id = {1: 0, 2: 5}  # a numbering of one's own wins
        assert load_lvis_json(json_file, "coco/", "numbered_lvis")[1]["annotations"][0]["category_id"] == 5
    finally:
        DatasetCatalog.remove("numbered_lvis")
        MetadataCatalog.remove("numbered_lvis")


@pytest.fixture
def dataset(json_file: str) -> Iterator[str]:
    register_lvis_instances("my_lvis", {}, json_file, "coco/")
    yield "my_lvis"
    DatasetCatalog.remove("my_lvis")
    MetadataCatalog.remove("my_lvis")


def test_records(dataset: str) -> None:
    first, second = DatasetCatalog.get(dataset)
    assert (first["file_name"], first["annotations"], first["neg_category_ids"]) == ("coco/four.jpg", [], [])
    assert second == {
        "file_name": "coco/train2017/000000000009.jpg",
        "height": 30,
        "width": 40,
        "image_id": 9,
        "neg_category_ids": [2],
        "not_exhaustive_category_ids": [1],
        "annotations": [
            {
                "bbox": [1, 2, 3, 4],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": 1,
                "segmentation": [[1, 2, 4, 2, 4, 6]],
            }
        ],
    }


def test_metadata_follows_from_the_file(dataset: str) -> None:
    metadata = MetadataCatalog.get(dataset)
    assert metadata.thing_classes == ["aerosol", "mouse_(computer)"]
    assert metadata.evaluator_type == "lvis"
    assert get_fed_loss_cls_weights(dataset, 0.5).tolist() == [2, 4]


def test_images_are_counted_where_the_file_has_no_counts(tmp_path: Path) -> None:
    categories = [{k: v for k, v in c.items() if k != "image_count"} for c in CONTENT["categories"]]
    twice = CONTENT["annotations"] + [{**CONTENT["annotations"][0], "id": 2}]
    path = tmp_path / "counted.json"
    path.write_text(json.dumps({**CONTENT, "categories": categories, "annotations": twice}))
    try:
        register_lvis_instances("counted_lvis", {}, path, "coco")
        assert get_fed_loss_cls_weights("counted_lvis").tolist() == [0, 1]
    finally:
        DatasetCatalog.remove("counted_lvis")
        MetadataCatalog.remove("counted_lvis")


def test_a_changed_file_is_read_again(dataset: str, json_file: str) -> None:
    assert MetadataCatalog.get(dataset).thing_classes[0] == "aerosol"
    path = Path(json_file)
    path.write_text(path.read_text().replace("aerosol", "spray"))
    assert MetadataCatalog.get(dataset).thing_classes[0] == "spray"


def test_built_in_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    metadata = MetadataCatalog.get("lvis_v1_train")
    with pytest.raises(FileNotFoundError, match="lvis_v1_train.json"):
        metadata.class_image_count  # noqa: B018
    assert metadata.get("thing_classes") is None  # drawing does without names then
    (tmp_path / "lvis").mkdir()
    (tmp_path / "lvis/lvis_v1_train.json").write_text(json.dumps(CONTENT))
    assert metadata.thing_classes == ["aerosol", "mouse_(computer)"]
    assert DatasetCatalog.get("lvis_v1_train")[1]["file_name"] == str(
        tmp_path / "coco/train2017/000000000009.jpg"
    )
    assert len(MetadataCatalog.get("lvis_v0.5_val_cocofied").thing_classes) == 80
    own = MetadataCatalog.get("lvis_shared_meta").set(**get_lvis_instances_meta("lvis_v1_val"))
    assert own.class_image_count[1] == {"id": 2, "image_count": 16}
    MetadataCatalog.remove("lvis_shared_meta")
    with pytest.raises(ValueError, match="lvis_v0.5"):
        get_lvis_instances_meta("my_data")


def test_ids_that_are_not_lvis_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "gap.json"
    path.write_text(json.dumps({**CONTENT, "categories": [{"id": 7, "name": "x"}]}))
    with pytest.raises(ValueError, match="not 1 to 1"):
        load_lvis_json(path, "coco")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="LVIS"):
        load_lvis_json(tmp_path / "list.json", "coco")
