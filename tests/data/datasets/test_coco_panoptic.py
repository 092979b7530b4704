"""Panoptic data sets: standard, separated, and registered by one call."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
import pytest

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import (
    register_coco_panoptic,
    register_coco_panoptic_separated,
    register_panoptic,
)
from detectron2.data.datasets.builtin_meta import separated_panoptic_meta, standard_panoptic_meta
from detectron2.data.datasets.coco import convert_to_coco_dict
from detectron2.data.datasets.coco_panoptic import merge_to_panoptic
from detectron2.data.detection_utils import read_sem_seg
from detectron2.data.detection_utils.panoptic_png import draw_labels

MakePanoptic = Callable[..., dict[str, Any]]
CATEGORIES = [
    {"id": 3, "name": "cat", "isthing": 1},
    {"id": 7, "name": "dog", "isthing": 1},
    {"id": 20, "name": "grass", "isthing": 0},
    {"id": 21, "name": "sky", "isthing": 0},
]


def _paths(made: dict[str, Any]) -> dict[str, Path]:
    return {key: made[key] for key in ("image_root", "panoptic_root", "panoptic_json")}


def test_one_call_registers_everything(make_panoptic: MakePanoptic, expected_stuff: np.ndarray) -> None:
    made = make_panoptic()
    register_panoptic("mine", **_paths(made))
    meta = MetadataCatalog.get("mine")
    assert meta.thing_classes == ["cat", "dog"] and meta.stuff_classes == ["things", "grass", "sky"]
    assert meta.thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}
    assert meta.stuff_dataset_id_to_contiguous_id == {0: 0, 20: 1, 21: 2}
    assert meta.thing_colors[0] == [255, 0, 0] and len(meta.stuff_colors) == 3
    assert meta.evaluator_type == "coco_panoptic_seg" and meta.ignore_label == 255
    record = DatasetCatalog.get("mine")[0]
    assert record["file_name"] == str(made["image_root"] / "001.png")
    cat, crowd = record["annotations"]
    assert cat["category_id"] == 0 and cat["bbox"] == [4, 6, 20, 20] and crowd["iscrowd"] == 1
    assert [s["isthing"] for s in record["segments_info"]] == [False, False, True, True]
    assert np.array_equal(read_sem_seg(record), expected_stuff)


def test_registration_reads_nothing_and_allows_repetition(tmp_path: Path) -> None:
    for _ in range(2):
        register_panoptic("later", tmp_path / "i", tmp_path / "p", tmp_path / "p.json")
    with pytest.raises(FileNotFoundError, match=r"p\.json"):
        _ = MetadataCatalog.get("later").thing_classes
    with pytest.raises(FileNotFoundError, match=r"p\.json"):
        DatasetCatalog.get("later")


def test_missing_boxes_are_measured(make_panoptic: MakePanoptic) -> None:
    register_panoptic("mine", **_paths(make_panoptic(with_boxes=False)))
    record = DatasetCatalog.get("mine")[0]
    assert [a["bbox"] for a in record["annotations"]] == [[4, 6, 20, 20], [30, 20, 8, 8]]
    assert [s["area"] for s in record["segments_info"]][2:] == [400, 64]


# pycocotools.mask.decode warns with NumPy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_coco_export_takes_masks_from_the_png(make_panoptic: MakePanoptic) -> None:
    made = make_panoptic()
    register_panoptic("mine", **_paths(made))
    content = convert_to_coco_dict("mine")
    assert [a["category_id"] for a in content["annotations"]] == [3, 7, 3, 7]
    assert [a["area"] for a in content["annotations"]] == [400, 64, 400, 64]
    assert np.array_equal(coco_mask.decode(content["annotations"][0]["segmentation"]), made["ids"] == 5)


def test_category_id_zero_keeps_its_meaning() -> None:
    categories = [{"id": 0, "name": "sky", "isthing": 0}, {"id": 1, "name": "cat", "isthing": 1}]
    meta = separated_panoptic_meta(categories)
    assert meta["stuff_dataset_id_to_contiguous_id"] == {-1: 0, 0: 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["categories"][0].pop("isthing"), "lacks isthing"),
        (lambda c: c["categories"].clear(), "no 'categories'"),
        (lambda c: c["categories"].append(c["categories"][0]), "twice"),
        (lambda c: c["annotations"][0]["segments_info"][0].update(category_id=5), "category_id 5"),
        (lambda c: c["annotations"][0].pop("segments_info"), "is it the instances file"),
        (lambda c: c.pop("annotations"), "no 'annotations'"),
    ],
)
def test_faults_of_the_json_are_named(make_panoptic: MakePanoptic, change, message: str) -> None:
    made = make_panoptic()
    content = json.loads(made["panoptic_json"].read_text())
    change(content)
    made["panoptic_json"].write_text(json.dumps(content))
    register_panoptic("mine", **_paths(made))
    with pytest.raises((ValueError, KeyError), match=message):
        DatasetCatalog.get("mine")


def test_standard_panoptic_numbers_all_classes(make_panoptic: MakePanoptic) -> None:
    meta = {
        "thing_dataset_id_to_contiguous_id": {3: 0, 7: 1},
        "stuff_dataset_id_to_contiguous_id": {20: 2, 21: 3},
    }
    made = _paths(make_panoptic())
    register_coco_panoptic("std", meta, made["image_root"], made["panoptic_root"], made["panoptic_json"])
    record = DatasetCatalog.get("std")[0]
    assert [s["category_id"] for s in record["segments_info"]] == [3, 2, 0, 1]
    assert record["pan_seg_file_name"] == str(made["panoptic_root"] / "001.png")
    assert "annotations" not in record and read_sem_seg(record) is None
    assert MetadataCatalog.get("std").json_file is None


def test_metadata_follows_from_the_categories_before_loading(
    make_panoptic: MakePanoptic, tmp_path: Path
) -> None:
    made = _paths(make_panoptic())
    places = (made["image_root"], made["panoptic_root"], made["panoptic_json"])
    register_coco_panoptic("std", {}, *places)
    standard = MetadataCatalog.get("std")
    assert standard.thing_classes == standard.stuff_classes == ["cat", "dog", "grass", "sky"]
    assert standard.thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}
    assert standard.stuff_dataset_id_to_contiguous_id == {20: 2, 21: 3}
    assert [s["category_id"] for s in DatasetCatalog.get("std")[0]["segments_info"]] == [3, 2, 0, 1]
    register_coco_panoptic_separated("sep", {}, *places, tmp_path / "stuff", tmp_path / "things.json")
    for name in ("sep_separated", "sep_stuffonly"):
        metadata = MetadataCatalog.get(name)
        assert metadata.thing_classes == ["cat", "dog"]
        assert metadata.stuff_classes == ["things", "grass", "sky"]
    assert len(DatasetCatalog.get("sep_stuffonly")) == 2


def test_image_name_follows_the_png_where_the_json_lists_no_images(make_panoptic: MakePanoptic) -> None:
    made = _paths(make_panoptic(suffix=".jpg"))
    content = json.loads(made["panoptic_json"].read_text())
    del content["images"]
    made["panoptic_json"].write_text(json.dumps(content))
    register_panoptic("mine", **made)
    assert DatasetCatalog.get("mine")[1]["file_name"].endswith("002.jpg")


@pytest.fixture
def separated(make_panoptic: MakePanoptic, tmp_path: Path) -> Path:
    """A separated data set called toy, with an instances file; returns the folder of its stuff maps."""
    made = make_panoptic()
    square = [4.0, 6.0, 24.0, 6.0, 24.0, 26.0, 4.0, 26.0]
    instances = {
        "images": json.loads(made["panoptic_json"].read_text())["images"],
        "categories": CATEGORIES[:2],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 3, "bbox": [4, 6, 20, 20], "segmentation": [square]}
            for i in (1, 2)
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    register_coco_panoptic_separated(
        "toy", separated_panoptic_meta(CATEGORIES), made["image_root"], made["panoptic_root"],
        made["panoptic_json"], tmp_path / "stuff", tmp_path / "instances.json",
    )  # fmt: skip
    return tmp_path / "stuff"


def test_absent_stuff_maps_are_derived_and_mentioned_once(
    separated: Path, expected_stuff: np.ndarray, caplog
) -> None:
    caplog.set_level(logging.WARNING)
    records = DatasetCatalog.get("toy_separated")
    assert len(records) == 2 and all(r["annotations"] for r in records)
    assert all(np.array_equal(read_sem_seg(r), expected_stuff) for r in records)
    messages = [m for m in caplog.messages if "stuff maps" in m]
    assert len(messages) == 1 and "prepare_panoptic_fpn.py" in messages[0]
    assert np.array_equal(read_sem_seg(DatasetCatalog.get("toy_stuffonly")[1]), expected_stuff)


def test_existing_stuff_maps_are_used_each(separated: Path, caplog) -> None:
    from PIL import Image

    separated.mkdir()
    marker = np.full((30, 40), 2, dtype=np.uint8)
    Image.fromarray(marker).save(separated / "002.png")
    first, second = DatasetCatalog.get("toy_separated")
    assert "sem_seg_labels" in first and np.array_equal(read_sem_seg(second), marker)
    assert "1 of 2 stuff maps" in caplog.text


def test_merge_needs_a_map_for_every_image() -> None:
    merged = merge_to_panoptic(
        [{"file_name": "a", "annotations": []}], [{"file_name": "a", "sem_seg_file_name": "s"}]
    )
    assert merged == [{"file_name": "a", "annotations": [], "sem_seg_file_name": "s"}]
    with pytest.raises(ValueError, match="1 of 1 images"):
        merge_to_panoptic([{"file_name": "b"}], [{"file_name": "a"}])


def test_png_with_unknown_id_is_named() -> None:
    ids = np.zeros((3, 4), dtype=np.int32)
    ids[1, 2:] = 259
    assert draw_labels(ids, {259: 7}, "x.png").tolist() == [[255] * 4, [255, 255, 7, 7], [255] * 4]
    with pytest.raises(ValueError, match=r"'x.png' has 2 pixels of segment id 259 \(colour \(3, 1, 0\)\)"):
        draw_labels(ids, {5: 1}, "x.png")
    with pytest.raises(ValueError, match="lists 0 ids: none"):
        draw_labels(ids, {}, "x.png")


@pytest.mark.parametrize("shape", [(1, 1), (0, 3), (5, 7)])
def test_labels_equal_a_loop_over_pixels(shape: tuple[int, int]) -> None:
    ids = np.random.RandomState(0).choice([0, 3, 900, 70000], size=shape)
    labels = {3: 0, 900: 4, 70000: 255}
    expected = [[labels.get(int(id), 255) for id in row] for row in ids]
    assert draw_labels(ids, labels, "x.png").tolist() == expected


def test_classes_without_a_colour_get_one_each() -> None:
    categories = [{"id": i, "name": f"class {i}", "isthing": i % 2} for i in range(1, 151)]
    categories[3]["color"] = [10, 20, 30]
    meta = separated_panoptic_meta(categories)
    colors = [tuple(color) for color in meta["thing_colors"] + meta["stuff_colors"]]
    assert len(set(colors)) == 151 and meta["stuff_colors"][2] == [10, 20, 30]
    distances = np.linalg.norm(np.subtract.outer(colors, colors).diagonal(axis1=1, axis2=3), axis=2)
    assert (distances + 99 * np.eye(len(colors))).min() > 15
    assert all(isinstance(channel, int) for color in colors for channel in color)


def test_one_numbering_of_all_classes_has_a_colour_for_each() -> None:
    categories = [{"id": i, "name": f"class {i}", "isthing": i % 2} for i in range(1, 100)]
    meta = standard_panoptic_meta(categories)
    assert meta["thing_colors"] == meta["stuff_colors"]
    assert len({tuple(color) for color in meta["thing_colors"]}) == 99
