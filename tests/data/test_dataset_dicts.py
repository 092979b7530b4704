"""Loading data sets by name: joins, filters, proposals, and checks of annotations."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, TensorDataset

from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.build import (
    filter_images_with_few_keypoints,
    load_proposals_into_dataset,
    print_instances_class_histogram,
)
from detectron2.structures import BoxMode


def _record(*annotations: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "file_name": "a.jpg",
        "image_id": 1,
        "height": 30,
        "width": 40,
        "annotations": list(annotations),
    } | changes


def _annotation(**changes: Any) -> dict[str, Any]:
    return {"bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 0} | changes


def _register(name: str, *records: dict[str, Any], classes: tuple[str, ...] = ("cat", "dog")) -> str:
    DatasetCatalog.register(name, lambda: list(records))
    MetadataCatalog.get(name).set(thing_classes=list(classes))
    return name


def test_data_sets_are_joined_in_order() -> None:
    names = [_register("a", _record(_annotation())), _register("b", _record(_annotation(), image_id=2))]
    records = get_detection_dataset_dicts(names)
    assert [(r["dataset_name"], r["image_id"]) for r in records] == [("a", 1), ("b", 2)]
    assert "dataset_name" not in DatasetCatalog.get("a")[0]


def test_images_without_usable_annotations_are_counted_with_the_key(caplog) -> None:
    caplog.set_level(logging.INFO)
    name = _register("a", _record(_annotation()), _record(), _record(_annotation(iscrowd=1)))
    assert len(get_detection_dataset_dicts(name)) == 1
    assert (
        "Left out 2 of 3 images" in caplog.text
        and "DATALOADER.FILTER_EMPTY_ANNOTATIONS to False" in caplog.text
    )
    assert len(get_detection_dataset_dicts(name, filter_empty=False)) == 3


def test_few_keypoints_are_filtered() -> None:
    two = _record(_annotation(keypoints=[1, 1, 2, 3, 3, 1, 0, 0, 0]))
    assert filter_images_with_few_keypoints([two, _record(_annotation())], 2) == [two]
    assert filter_images_with_few_keypoints([two], 3) == []


def test_data_without_keypoints_names_the_keys() -> None:
    annotation = {"bbox": [0, 0, 2, 2], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": 0}
    record = {"file_name": "a", "image_id": 3, "height": 4, "width": 5, "annotations": [annotation]}
    DatasetCatalog.register("people", lambda: [record])
    with pytest.raises(ValueError, match="1 visible keypoints.*KEYPOINT_ON to False"):
        get_detection_dataset_dicts("people", min_keypoints=1)


def test_repeated_image_ids_are_counted(caplog) -> None:
    record = {"file_name": "a", "image_id": 3, "height": 4, "width": 5, "annotations": []}
    DatasetCatalog.register("copies", lambda: [record] * 3)
    assert len(get_detection_dataset_dicts("copies", filter_empty=False)) == 3
    assert "copies has 2 images whose image_id another one has too" in caplog.text


def test_empty_data_set_is_an_error() -> None:
    with pytest.raises(ValueError, match="'nothing' is empty"):
        get_detection_dataset_dicts(_register("nothing"))
    with pytest.raises(ValueError, match="DATASETS.TRAIN"):
        get_detection_dataset_dicts([])
    with pytest.raises(ValueError, match="No image of a is left after filtering"):
        get_detection_dataset_dicts(_register("a", _record()))


def test_unknown_data_set_lists_near_names() -> None:
    with pytest.raises(KeyError, match="coco_2017_train"):
        get_detection_dataset_dicts("coco2017_train")


def test_data_sets_with_other_classes_do_not_mix() -> None:
    names = [
        _register("a", _record(_annotation())),
        _register("b", _record(_annotation()), classes=("bird",)),
    ]
    with pytest.raises(ValueError, match="must have the same 'thing_classes'"):
        get_detection_dataset_dicts(names)
    assert len(get_detection_dataset_dicts(names, check_consistency=False)) == 2


@pytest.mark.parametrize("id", [2, -1])
def test_class_outside_the_metadata(id: int) -> None:
    with pytest.raises(ValueError, match=r"Data set a: category_id must lie in \[0, 1\]"):
        get_detection_dataset_dicts(_register("a", _record(_annotation(category_id=id))))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("mode", [BoxMode.XYWH_ABS, BoxMode.XYXY_ABS])
def test_box_that_is_not_finite(value: float, mode: BoxMode) -> None:
    broken = _annotation(bbox=[1, value, 3, 4], bbox_mode=mode)
    with pytest.raises(
        ValueError, match=r"'a' has 1 boxes that are not finite, the first in image 'bad.jpg'"
    ):
        get_detection_dataset_dicts(
            _register("a", _record(_annotation()), _record(broken, file_name="bad.jpg"))
        )


def test_boxes_outside_and_empty_boxes_are_counted(caplog) -> None:
    outside = [_annotation(bbox=[40, 2, 3, 4]), _annotation(bbox=[-9, 2, 9, 4])]
    empty = _annotation(bbox=[5, 5, 0, 3])
    inside = [_annotation(bbox=[-2, -2, 100, 100]), _annotation()]
    records = get_detection_dataset_dicts(_register("a", _record(*outside, empty, *inside)))
    assert len(records[0]["annotations"]) == 5
    warnings = [m for m in caplog.messages if "not trained on" in m]
    assert len(warnings) == 2
    assert (
        "2 of 5 boxes of data set a lie outside their image" in warnings[0] and "[40, 2, 3, 4]" in warnings[0]
    )
    assert "1 of 5 boxes of data set a have no area" in warnings[1]


def test_torch_data_sets_pass_through() -> None:
    DatasetCatalog.register("t", lambda: TensorDataset(torch.zeros(2)))
    DatasetCatalog.register("u", lambda: TensorDataset(torch.zeros(2)))
    assert isinstance(get_detection_dataset_dicts("t"), TensorDataset)
    assert isinstance(get_detection_dataset_dicts(["t", "u"]), ConcatDataset)
    with pytest.raises(ValueError, match="do not mix"):
        get_detection_dataset_dicts(["t", _register("a", _record(_annotation()))])


@pytest.mark.parametrize("old_names", [False, True])
def test_proposals_come_best_first(tmp_path: Path, old_names: bool) -> None:
    content = {
        "ids": [2, 1],
        "boxes": [np.zeros((1, 4)), np.array([[0, 0, 1, 1], [0, 0, 2, 2]])],
        "objectness_logits": [np.zeros(1), np.array([1.0, 5.0])],
    }
    if old_names:
        content = {
            "indexes": content["ids"], "bboxes": content["boxes"], "scores": content["objectness_logits"],
            "bbox_mode": 1,
        }  # fmt: skip
    path = tmp_path / "proposals.pkl"
    path.write_bytes(pickle.dumps(content))
    (record,) = load_proposals_into_dataset([_record(image_id="1")], str(path))
    assert record["proposal_boxes"].tolist() == [[0, 0, 2, 2], [0, 0, 1, 1]]
    assert record["proposal_bbox_mode"] == (BoxMode.XYWH_ABS if old_names else BoxMode.XYXY_ABS)
    with pytest.raises(ValueError, match="no proposals for 1 of 1 images"):
        load_proposals_into_dataset([_record(image_id=3)], str(path))
    name = _register("a", _record(_annotation()))
    assert "proposal_boxes" in get_detection_dataset_dicts(name, proposal_files=[str(path)])[0]
    with pytest.raises(ValueError, match="1 data sets need as many proposal files"):
        get_detection_dataset_dicts(name, proposal_files=[str(path)] * 2)


def test_histogram_counts_instances_without_crowds(caplog) -> None:
    caplog.set_level(logging.INFO)
    records = [
        _record(_annotation(), _annotation(category_id=2), _annotation(iscrowd=1)),
        _record(_annotation()),
    ]
    print_instances_class_histogram(records, ["cat", "dog", "a very long name of a class"])
    assert "3 instances of 3 classes" in caplog.text and "a very long name.." in caplog.text
    print_instances_class_histogram([], ["cat"])
    print_instances_class_histogram([], [])


def test_rotated_boxes_must_be_finite_too() -> None:
    rotated = _annotation(bbox=[1, 2, 3, 4, float("nan")], bbox_mode=BoxMode.XYWHA_ABS)
    with pytest.raises(ValueError, match="not finite"):
        get_detection_dataset_dicts(_register("a", _record(rotated)))
