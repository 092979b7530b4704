"""Cityscapes from a tiny copy of its folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hotcoco import mask as rle
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.cityscapes import load_cityscapes_instances
from detectron2.data.datasets.cityscapes_panoptic import load_cityscapes_panoptic

HEIGHT, WIDTH = 40, 60
NAME = "ulm_000000_000019"


def rectangle(x0: int, y0: int, x1: int, y1: int) -> list[list[int]]:
    """All pixels from (x0, y0) to (x1, y1), both included."""
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


SHAPES: list[dict[str, Any]] = [  # from back to front
    {"label": "road", "polygon": rectangle(0, 0, 59, 39)},
    {"label": "car", "polygon": rectangle(10, 10, 29, 19)},
    {"label": "license plate", "polygon": rectangle(12, 12, 14, 13)},
    {"label": "pole", "polygon": rectangle(20, 5, 21, 30)},
    {"label": "persongroup", "polygon": rectangle(40, 10, 49, 29)},
    {"label": "person", "polygon": rectangle(40, 20, 49, 29)},
    {"label": "bus", "polygon": rectangle(2, 2, 5, 5), "deleted": 1},
]


def expected_masks() -> dict[tuple[int, int], np.ndarray]:
    """(category_id, iscrowd) -> what is seen."""
    car, group, person = (np.zeros((HEIGHT, WIDTH), bool) for _ in range(3))
    car[10:20, 10:30] = True
    car[:, 20:22] = False
    group[10:20, 40:50] = True
    person[20:30, 40:50] = True
    return {(2, 0): car, (0, 1): group, (0, 0): person}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    images, truth = tmp_path / "cityscapes/leftImg8bit/val/ulm", tmp_path / "cityscapes/gtFine/val/ulm"
    images.mkdir(parents=True)
    truth.mkdir(parents=True)
    (tmp_path / "cityscapes/leftImg8bit/val/license.txt").write_text("text")
    Image.new("RGB", (WIDTH, HEIGHT)).save(images / f"{NAME}_leftImg8bit.png")
    content = {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": SHAPES}
    (truth / f"{NAME}_gtFine_polygons.json").write_text(json.dumps(content))
    ids = np.full((HEIGHT, WIDTH), 7, np.uint16)
    for (category, is_crowd), mask in expected_masks().items():
        id = (24, 25, 26)[category]
        ids[mask] = id if is_crowd else 1000 * id
    Image.fromarray(ids).save(truth / f"{NAME}_gtFine_instanceIds.png")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("from_json", [True, False])
def test_what_is_seen_of_each_instance(root: Path, from_json: bool) -> None:
    folders = (root / "cityscapes/leftImg8bit/val", root / "cityscapes/gtFine/val")
    (record,) = load_cityscapes_instances(*folders, from_json=from_json, to_polygons=False)
    assert (record["height"], record["width"]) == (HEIGHT, WIDTH)
    assert record["image_id"] == f"{NAME}_leftImg8bit.png"
    found = {(a["category_id"], a["iscrowd"]): a for a in record["annotations"]}
    expected = expected_masks()
    assert found.keys() == expected.keys() and len(record["annotations"]) == 3
    for key, mask in expected.items():
        np.testing.assert_array_equal(rle.decode(found[key]["segmentation"]).astype(bool), mask)
    assert found[2, 0]["bbox"] == [10, 10, 30, 20]


def test_polygons_are_the_default(root: Path) -> None:
    (record,) = DatasetCatalog.get("cityscapes_fine_instance_seg_val")
    car = next(a for a in record["annotations"] if a["category_id"] == 2)
    assert len(car["segmentation"]) == 2  # the pole parts it
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in car["segmentation"]])
    assert points.min(0).tolist() == [10.5, 10.5] and points.max(0).tolist() == [29.5, 19.5]
    metadata = MetadataCatalog.get("cityscapes_fine_instance_seg_val")
    assert metadata.thing_classes[2] == "car" and metadata.evaluator_type == "cityscapes_instance"


def test_semantic_maps_have_to_be_made_first(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="csCreateTrainIdLabelImgs"):
        DatasetCatalog.get("cityscapes_fine_sem_seg_val")
    labels = root / f"cityscapes/gtFine/val/ulm/{NAME}_gtFine_labelTrainIds.png"
    Image.new("L", (WIDTH, HEIGHT)).save(labels)
    (record,) = DatasetCatalog.get("cityscapes_fine_sem_seg_val")
    assert record["sem_seg_file_name"] == str(labels) and record["height"] == HEIGHT
    assert len(MetadataCatalog.get("cityscapes_fine_sem_seg_val").stuff_classes) == 19


def test_panoptic_segments(root: Path) -> None:
    truth = root / "cityscapes/gtFine"
    annotation = {
        "image_id": NAME,
        "file_name": f"{NAME}_gtFine_panoptic.png",
        "segments_info": [{"id": 26000, "category_id": 26, "iscrowd": 0}, {"id": 7, "category_id": 7}],
    }
    (truth / "cityscapes_panoptic_val.json").write_text(json.dumps({"annotations": [annotation]}))
    with pytest.raises(FileNotFoundError, match="csCreatePanopticImgs"):
        DatasetCatalog.get("cityscapes_fine_panoptic_val")
    (truth / "cityscapes_panoptic_val").mkdir()
    png = truth / "cityscapes_panoptic_val" / f"{NAME}_gtFine_panoptic.png"
    Image.new("RGB", (WIDTH, HEIGHT)).save(png)
    (record,) = DatasetCatalog.get("cityscapes_fine_panoptic_val")
    assert record["image_id"] == NAME and record["pan_seg_file_name"] == str(png)
    assert [segment["category_id"] for segment in record["segments_info"]] == [13, 0]
    assert record["sem_seg_file_name"] == str(truth / f"val/ulm/{NAME}_gtFine_labelTrainIds.png")
    annotation["image_id"] = "nowhere"
    (truth / "broken.json").write_text(json.dumps({"annotations": [annotation]}))
    mapping = {"thing_dataset_id_to_contiguous_id": {}, "stuff_dataset_id_to_contiguous_id": {}}
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_cityscapes_panoptic(root / "cityscapes/leftImg8bit/val", truth, truth / "broken.json", mapping)


def test_no_images_is_explained(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="DETECTRON2_DATASETS"):
        load_cityscapes_instances(tmp_path, tmp_path)
