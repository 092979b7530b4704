"""COCO instance files: reading, errors in them, writing."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from PIL import Image
from pycocotools.coco import COCO

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import LazyValue
from detectron2.data.datasets import (
    load_coco_json,
    load_sem_seg,
    register_coco_instances,
    register_panoptic,
)
from detectron2.data.datasets.coco import convert_to_coco_dict, convert_to_coco_json, main
from detectron2.structures import BoxMode

from ..conftest import paint_ids

MakeCoco = Callable[..., tuple[Path, Path]]
TRIANGLE = [1.0, 1.0, 9.0, 1.0, 9.0, 9.0]


def test_records_have_the_standard_keys(make_coco: MakeCoco) -> None:
    json_file, root = make_coco()
    register_coco_instances("toy", {"note": 1}, json_file, root)
    first, second = DatasetCatalog.get("toy")
    assert first["file_name"] == str(root / "001.png") and second["image_id"] == 2
    assert (first["height"], first["width"]) == (30, 40)
    (annotation,) = first["annotations"]
    assert annotation["bbox"] == [4, 6, 20, 20] and annotation["bbox_mode"] == BoxMode.XYWH_ABS
    assert annotation["category_id"] == 1
    meta = MetadataCatalog.get("toy")
    assert meta.thing_classes == ["cat", "dog"] and meta.note == 1 and meta.evaluator_type == "coco"
    assert meta.thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}


def test_without_a_name_ids_stay(make_coco: MakeCoco) -> None:
    records = load_coco_json(*make_coco(score=0.5), extra_annotation_keys=["score"])
    assert records[0]["annotations"][0]["category_id"] == 7
    assert records[0]["annotations"][0]["score"] == 0.5


def test_registering_twice_is_harmless_but_not_with_other_files(make_coco: MakeCoco) -> None:
    json_file, root = make_coco()
    register_coco_instances("toy", {}, json_file, root)
    register_coco_instances("toy", {}, json_file, root)
    with pytest.raises(ValueError, match="already registered"):
        register_coco_instances("toy", {}, json_file, root / "other")


def test_keypoints_move_to_pixel_centres(make_coco: MakeCoco) -> None:
    (first, _) = load_coco_json(*make_coco(keypoints=[3, 4, 2, 0, 0, 0]), dataset_name="toy")
    assert first["annotations"][0]["keypoints"] == [3.5, 4.5, 2, 0.5, 0.5, 0]


def test_uncompressed_rle_is_compressed(make_coco: MakeCoco) -> None:
    mask = np.zeros((30, 40), dtype=np.uint8, order="F")
    mask[2:5, 3:6] = 1
    runs = [92, 3, 27, 3, 27, 3, 1045]  # column 3 starts at pixel 90, and its rows 2 to 4 are set
    (first, _) = load_coco_json(*make_coco(segmentation={"size": [30, 40], "counts": runs}, iscrowd=1))
    assert first["annotations"][0]["segmentation"] == coco_mask.encode(mask)
    runs[-1] -= 1
    with pytest.raises(ValueError, match="image 1 .*must add up to 1200.* they give 1199"):
        load_coco_json(*make_coco(segmentation={"size": [30, 40], "counts": runs}, iscrowd=1))


def test_short_polygons_are_counted_and_the_image_stays(make_coco: MakeCoco, caplog) -> None:
    caplog.set_level(logging.WARNING)
    annotations = [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 7,
            "bbox": [1, 1, 8, 8],
            "segmentation": [[1, 1, 9, 9], TRIANGLE],
        },
        {"id": 2, "image_id": 2, "category_id": 7, "bbox": [1, 1, 8, 8], "segmentation": [[1, 1, 9, 9]]},
    ]
    first, second = load_coco_json(*make_coco(annotations=annotations), dataset_name="toy_coco")
    assert first["annotations"][0]["segmentation"] == [TRIANGLE]
    assert second["annotations"] == []
    (message,) = [record.getMessage() for record in caplog.records]
    assert (
        message.startswith("2 polygons") and "1 instances" in message and "Annotation 1 of image 1" in message
    )


def test_category_outside_the_file_is_named(make_coco: MakeCoco) -> None:
    with pytest.raises(KeyError, match=r"Annotation 1 of image 1 .* category_id 99.*\[3, 7\]"):
        load_coco_json(*make_coco(category_id=99), dataset_name="toy")


def test_repeated_annotation_ids_are_refused(make_coco: MakeCoco) -> None:
    with pytest.raises(ValueError, match="occur more than once"):
        load_coco_json(*make_coco(id=5), dataset_name="toy")


def test_empty_box_and_ignore_are_refused(make_coco: MakeCoco) -> None:
    with pytest.raises(ValueError, match="empty 'bbox'"):
        load_coco_json(*make_coco(bbox=[]))
    with pytest.raises(ValueError, match="'ignore'"):
        load_coco_json(*make_coco(ignore=1))


def test_stray_annotations_are_counted(make_coco: MakeCoco, caplog) -> None:
    caplog.set_level(logging.WARNING)
    records = load_coco_json(*make_coco(image_id=77))
    assert [r["annotations"] for r in records] == [[], []]
    assert "2 annotations" in caplog.text


def test_missing_and_broken_json(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", "/data/somewhere")
    with pytest.raises(
        FileNotFoundError, match=r"nothing.json.*'toy'.*DETECTRON2_DATASETS is '/data/somewhere'"
    ):
        load_coco_json(tmp_path / "nothing.json", tmp_path, "toy")
    (tmp_path / "cut.json").write_text('{"images": [')
    with pytest.raises(ValueError, match="not complete JSON"):
        load_coco_json(tmp_path / "cut.json", tmp_path)
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="not in COCO's format"):
        load_coco_json(tmp_path / "list.json", tmp_path)


def test_metadata_that_contradicts_the_file(make_coco: MakeCoco) -> None:
    register_coco_instances("toy", {"thing_classes": ["bird"]}, *make_coco())
    with pytest.raises(ValueError, match=r"'thing_classes' of data set 'toy'.*'bird'"):
        DatasetCatalog.get("toy")


# pycocotools.mask.decode warns with NumPy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_export_is_read_back_by_pycocotools(make_coco: MakeCoco, tmp_path: Path, capsys) -> None:
    mask = coco_mask.encode(np.asfortranarray(np.eye(30, 40, dtype=np.uint8)))
    annotations = [
        {"id": 8, "image_id": 1, "category_id": 7, "bbox": [1, 1, 8.12345, 8], "segmentation": [TRIANGLE]},
        {"id": 9, "image_id": 2, "category_id": 3, "bbox": [0, 0, 30, 30], "iscrowd": 1,
         "segmentation": {**mask, "counts": mask["counts"].decode()}},
        {"id": 10, "image_id": 2, "category_id": 3, "bbox": [0, 0, 3, 5], "keypoints": [3, 4, 2, 0, 0, 0]},
    ]  # fmt: skip
    register_coco_instances("toy", {}, *make_coco(annotations=annotations))
    output = tmp_path / "out" / "toy.json"
    convert_to_coco_json("toy", str(output))
    coco = COCO(str(output))
    capsys.readouterr()
    polygon, crowd, person = coco.loadAnns([1, 2, 3])
    assert polygon["bbox"] == [1, 1, 8.123, 8] and polygon["area"] == 32 and polygon["category_id"] == 7
    assert (
        np.array_equal(coco.annToMask(crowd), np.eye(30, 40))
        and crowd["area"] == 30
        and crowd["iscrowd"] == 1
    )
    assert person["keypoints"] == [3, 4, 2, 0, 0, 0] and person["num_keypoints"] == 1 and person["area"] == 15
    assert [c["name"] for c in coco.loadCats([3, 7])] == ["cat", "dog"]


def test_export_keeps_a_file_of_the_same_data_only(make_coco: MakeCoco, tmp_path: Path, caplog) -> None:
    register_coco_instances("toy", {}, *make_coco())
    output = tmp_path / "toy.json"
    output.write_text("{}")
    convert_to_coco_json("toy", str(output))
    assert "is replaced" in caplog.text
    written = json.loads(output.read_text())
    assert len(written["annotations"]) == 2
    output.write_text(json.dumps({**written, "mark": 1}))
    convert_to_coco_json("toy", str(output))
    assert json.loads(output.read_text())["mark"] == 1
    convert_to_coco_json("toy", str(output), allow_cached=False)
    assert "mark" not in json.loads(output.read_text())
    make_coco(bbox=[5, 6, 20, 20])  # the same path
    convert_to_coco_json("toy", str(output))
    assert json.loads(output.read_text())["annotations"][0]["bbox"] == [5, 6, 20, 20]


def test_export_sees_another_png_under_the_same_name(make_panoptic, tmp_path: Path) -> None:
    made = make_panoptic()
    ids = made.pop("ids")
    register_panoptic("mine", **made)
    output = tmp_path / "mine.json"
    convert_to_coco_json("mine", str(output))
    before, *_ = json.loads(output.read_text())["annotations"]
    png = min(Path(made["panoptic_root"]).glob("*.png"))
    grown = ids.copy()
    grown[-3:] = 5
    paint_ids(grown).save(png)
    convert_to_coco_json("mine", str(output))
    after, *_ = json.loads(output.read_text())["annotations"]
    assert after["area"] == (grown == 5).sum() != before["area"]


def test_class_names_and_numbers_are_known_before_loading(make_coco: MakeCoco, tmp_path: Path) -> None:
    json_file, root = make_coco()
    register_coco_instances("toy", {}, json_file, root)
    meta = MetadataCatalog.get("toy")
    assert meta.thing_classes == ["cat", "dog"]
    assert meta.thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}
    content = json.loads(json_file.read_text())
    content["categories"][0]["name"] = "lion"
    json_file.write_text(json.dumps(content))
    assert meta.thing_classes == ["lion", "dog"]
    DatasetCatalog.get("toy")
    assert meta.thing_classes == ["lion", "dog"]


def test_registering_reads_no_file_and_a_missing_one_is_like_an_unset_value(tmp_path: Path) -> None:
    register_coco_instances("toy", {}, tmp_path / "not_yet.json", tmp_path)
    meta = MetadataCatalog.get("toy")
    assert not hasattr(meta, "thing_classes") and meta.get("thing_classes", ["?"]) == ["?"]
    with pytest.raises(AttributeError, match=r"not_yet\.json.*does not exist"):
        meta.thing_classes  # noqa: B018  # the look-up is what is tested
    meta.thing_classes = ["mine"]
    register_coco_instances("toy", {}, tmp_path / "not_yet.json", tmp_path)
    assert meta.thing_classes == ["mine"]


def test_classes_of_a_file_that_is_not_in_the_format_are_an_error(tmp_path: Path) -> None:
    """Results are a list, and no value that is missing so far."""
    results = tmp_path / "results.json"
    results.write_text(json.dumps([{"image_id": 1}]))
    register_coco_instances("toy", {}, results, tmp_path)
    with pytest.raises(ValueError, match=r"results\.json.*is not in COCO's format.*got list"):
        MetadataCatalog.get("toy").get("thing_classes")


def test_a_fault_in_a_lazy_value_is_no_missing_value() -> None:
    class Faulty(LazyValue):
        def resolve(self) -> str:
            return (3).name  # type: ignore[attr-defined]  # the fault

    metadata = MetadataCatalog.get("faulty").set(note=Faulty())
    try:
        with pytest.raises(AttributeError, match="'int' object has no attribute 'name'"):
            metadata.get("note")
    finally:
        MetadataCatalog.remove("faulty")


def test_classes_that_were_set_by_hand_must_be_those_of_the_file(make_coco: MakeCoco) -> None:
    register_coco_instances("toy", {}, *make_coco())
    MetadataCatalog.get("toy").thing_classes = ["dog", "cat"]
    with pytest.raises(ValueError, match="'thing_classes' of data set 'toy'"):
        DatasetCatalog.get("toy")


@pytest.mark.parametrize("orientation", [1, 6])
def test_sizes_that_the_file_lacks_come_from_the_images(
    make_coco: MakeCoco, caplog, orientation: int
) -> None:
    json_file, root = make_coco()
    content = json.loads(json_file.read_text())
    for image in content["images"]:
        del image["width"], image["height"]
    json_file.write_text(json.dumps(content))
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", (40, 30)).save(root / "002.png", exif=exif)
    first, second = load_coco_json(json_file, root)
    assert (first["height"], first["width"]) == (30, 40)
    assert (second["height"], second["width"]) == ((30, 40) if orientation == 1 else (40, 30))
    assert "2 of 2 images" in caplog.text
    (root / "002.png").unlink()
    with pytest.raises(FileNotFoundError, match="002"):
        load_coco_json(json_file, root)


def test_repeated_image_ids_are_refused(make_coco: MakeCoco) -> None:
    json_file, root = make_coco()
    content = json.loads(json_file.read_text())
    content["images"][1]["id"] = 1
    json_file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"1 image ids more than once, 1 among them.*an 'id' of its own"):
        load_coco_json(json_file, root)
    records = [{"file_name": "a", "image_id": 5, "height": 4, "width": 5, "annotations": []}] * 2
    DatasetCatalog.register("twice", lambda: records)
    MetadataCatalog.get("twice").set(thing_classes=["a"])
    with pytest.raises(ValueError, match="5 among them"):
        convert_to_coco_dict("twice")


def test_export_of_custom_records() -> None:
    box = {"bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    records = [
        {"file_name": "a", "height": 4, "width": 5, "annotations": [
            {**box, "bbox": np.array([1, 1, 3, 4]), "segmentation": np.eye(4, 5)},
            {"bbox": [2.0, 2, 2, 1, 30], "bbox_mode": BoxMode.XYWHA_ABS, "category_id": 0},
        ]},
        {"file_name": "b", "height": 4, "width": 5},
    ]  # fmt: skip
    DatasetCatalog.register("toy", lambda: records)
    MetadataCatalog.get("toy").set(thing_classes=["a"])
    content = convert_to_coco_dict("toy")
    array, rotated = content["annotations"]
    assert array["bbox"] == [1, 1, 2, 3] and array["area"] == 4 and array["category_id"] == 0
    assert rotated["bbox"] == [2, 2, 2, 1, 30] and rotated["area"] == 2
    assert [image["id"] for image in content["images"]] == [0, 1]
    json.dumps(content)


def test_label_maps_are_paired_by_name(tmp_path: Path, caplog) -> None:
    for name in ("gt/b.png", "gt/a.png", "gt/c.png", "im/a.jpg", "im/b.jpg", "im/d.jpg", "im/a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    records = load_sem_seg(tmp_path / "gt", tmp_path / "im")
    assert [Path(r["file_name"]).name for r in records] == ["a.jpg", "b.jpg"]
    assert [Path(r["sem_seg_file_name"]).name for r in records] == ["a.png", "b.png"]
    assert "the 2 with a common name" in caplog.text
    with pytest.raises(FileNotFoundError, match="no .bmp file"):
        load_sem_seg(tmp_path / "gt", tmp_path / "im", gt_ext="bmp")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_sem_seg(tmp_path / "nothing", tmp_path / "im")


def test_checker_names_missing_images(make_coco: MakeCoco, monkeypatch, capsys) -> None:
    json_file, root = make_coco()
    monkeypatch.setattr("sys.argv", ["coco", str(json_file), str(root), "toy"])
    main()
    (root / "002.png").unlink()
    with pytest.raises(SystemExit, match=r"1 of 2 images do not exist, .*002\.png"):
        main()
    monkeypatch.setattr("sys.argv", ["coco"])
    with pytest.raises(SystemExit, match="usage"):
        main()
