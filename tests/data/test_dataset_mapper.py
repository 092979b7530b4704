"""From dicts to model inputs."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.config import get_cfg
from detectron2.data import DatasetMapper, get_detection_dataset_dicts
from detectron2.data import transforms as T
from detectron2.data.datasets import register_coco_instances, register_panoptic
from detectron2.data.detection_utils import SizeMismatchError, build_augmentation
from detectron2.structures import BitMasks, BoxMode, PolygonMasks


@pytest.fixture
def record(make_coco: Callable[..., tuple[Path, Path]]) -> dict[str, Any]:
    register_coco_instances("toy", {}, *make_coco())
    return get_detection_dataset_dicts("toy")[0]


def _mapper(*augmentations: Any, **options: Any) -> DatasetMapper:
    defaults = {"is_train": True, "augmentations": augmentations, "image_format": "BGR"}
    return DatasetMapper(**(defaults | options))


def test_output_has_the_published_format(record: dict[str, Any]) -> None:
    before = copy.deepcopy(record)
    mapped = _mapper(T.Resize((60, 80)), use_instance_mask=True)(record)
    assert record == before
    assert mapped["image"].dtype == torch.uint8 and mapped["image"].shape == (3, 60, 80)
    assert (mapped["height"], mapped["width"], mapped["image_id"]) == (30, 40, 1)
    instances = mapped["instances"]
    assert instances.image_size == (60, 80) and instances.gt_classes.tolist() == [1]
    assert instances.gt_boxes.tensor.tolist() == [[8, 12, 48, 52]]
    assert isinstance(instances.gt_masks, PolygonMasks)
    assert "annotations" not in mapped


@pytest.mark.parametrize("format", ["RGB", "BGR", "L"])
def test_image_is_in_the_configured_format(record: dict[str, Any], format: str) -> None:
    pixels = np.asarray(Image.open(record["file_name"]).convert("L" if format == "L" else "RGB"))
    expected = {"RGB": lambda: pixels, "BGR": lambda: pixels[:, :, ::-1], "L": lambda: pixels[:, :, None]}[
        format
    ]()
    mapped = _mapper(image_format=format)(record)
    assert np.array_equal(mapped["image"].numpy(), expected.transpose(2, 0, 1))
    mapped["image"] += 1  # writable


def test_inference_leaves_annotations_out(record: dict[str, Any]) -> None:
    mapped = _mapper(is_train=False)(record)
    assert "annotations" not in mapped and "instances" not in mapped


def test_crowds_are_left_out(record: dict[str, Any]) -> None:
    record["annotations"][0]["iscrowd"] = 1
    assert len(_mapper()(record)["instances"]) == 0


def test_image_without_annotations_maps_to_empty_instances(record: dict[str, Any]) -> None:
    record["annotations"] = []
    mapper = _mapper(T.RandomCrop("absolute", (10, 10)), use_instance_mask=True, recompute_boxes=True)
    assert len(mapper(record)["instances"]) == 0


def test_boxes_are_recomputed_from_cropped_masks(record: dict[str, Any]) -> None:
    # A triangle whose box is larger than what the crop leaves of it.
    record["annotations"][0].update(segmentation=[[4.0, 6.0, 24.0, 6.0, 4.0, 26.0]], bbox=[4, 6, 20, 20])
    crop = T.CropTransform(14, 0, 26, 30)
    loose = _mapper(crop, use_instance_mask=True)(record)["instances"]
    tight = _mapper(crop, use_instance_mask=True, recompute_boxes=True)(record)["instances"]
    assert loose.gt_boxes.tensor.tolist() == [[0, 6, 10, 26]]
    assert tight.gt_boxes.tensor.tolist() == [[0, 6, 10, 16]]
    with pytest.raises(ValueError, match="needs use_instance_mask"):
        _mapper(recompute_boxes=True)


def test_boxes_outside_the_crop_disappear(record: dict[str, Any]) -> None:
    assert len(_mapper(T.CropTransform(30, 0, 10, 10))(record)["instances"]) == 0


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_panoptic_png_gives_masks_and_stuff(
    make_panoptic, expected_stuff: np.ndarray, mask_format: str
) -> None:
    made = make_panoptic()
    ids = made.pop("ids")
    register_panoptic("mine", **made)
    record = get_detection_dataset_dicts("mine")[0]
    mapper = _mapper(T.HFlipTransform(40), use_instance_mask=True, instance_mask_format=mask_format)
    mapped = mapper(record)
    instances = mapped["instances"]
    assert isinstance(instances.gt_masks, BitMasks) and instances.gt_classes.tolist() == [0]
    assert np.array_equal(instances.gt_masks.tensor[0].numpy(), (ids == 5)[:, ::-1])
    assert mapped["sem_seg"].dtype == torch.int64
    assert np.array_equal(mapped["sem_seg"].numpy(), expected_stuff[:, ::-1])
    assert "sem_seg_labels" not in mapped
    boxes_only = _mapper()(record)["instances"]
    assert not boxes_only.has("gt_masks") and len(boxes_only) == 1


def test_a_subclass_overrides_what_becomes_of_annotations(make_panoptic) -> None:
    made = make_panoptic()
    ids = made.pop("ids")
    register_panoptic("mine", **made)

    class Marking(DatasetMapper):
        def _transform_annotations(self, dataset_dict, transforms, image_shape):
            self.seen = [anno.get("segmentation") for anno in dataset_dict["annotations"]]
            super()._transform_annotations(dataset_dict, transforms, image_shape)
            dataset_dict["instances"].marks = dataset_dict["instances"].gt_classes + 10

    mapper = Marking(True, augmentations=[], image_format="BGR", use_instance_mask=True)
    mapped = mapper(get_detection_dataset_dicts("mine")[0])
    assert mapped["instances"].marks.tolist() == [10]
    assert np.array_equal(mapper.seen[0], ids == 5)


def test_stuff_map_of_its_own_is_read(record: dict[str, Any], tmp_path: Path) -> None:
    labels = np.random.RandomState(0).randint(0, 5, (30, 40)).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / "labels.png")
    record["sem_seg_file_name"] = str(tmp_path / "labels.png")
    mapped = _mapper()(record)
    assert np.array_equal(mapped["sem_seg"].numpy(), labels) and "sem_seg_file_name" not in mapped


def test_proposals_are_kept_when_asked_for(record: dict[str, Any]) -> None:
    record |= {
        "proposal_boxes": np.array([[0.0, 0, 9, 9], [1, 1, 5, 5]]),
        "proposal_objectness_logits": np.array([2.0, 1.0]),
        "proposal_bbox_mode": BoxMode.XYXY_ABS,
    }
    mapped = _mapper(precomputed_proposal_topk=1)(record)
    assert mapped["proposals"].proposal_boxes.tensor.tolist() == [[0, 0, 9, 9]]


def test_config_chooses_augmentations() -> None:
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    cfg.INPUT.CROP.ENABLED = True
    mapper = DatasetMapper(cfg, True)
    assert [type(a).__name__ for a in mapper.augmentations.augs] == [
        "RandomCrop",
        "ResizeShortestEdge",
        "RandomFlip",
    ]
    assert mapper.recompute_boxes and mapper.use_instance_mask
    test = DatasetMapper(cfg, False)
    assert [type(a).__name__ for a in test.augmentations.augs] == ["ResizeShortestEdge"]
    cfg.INPUT.RANDOM_FLIP = "none"
    assert len(build_augmentation(cfg, True)) == 1
    cfg.INPUT.RANDOM_FLIP = "sideways"
    with pytest.raises(ValueError, match=r"INPUT.RANDOM_FLIP .* got 'sideways'"):
        build_augmentation(cfg, True)


# What users' files do wrong.


def test_missing_image_names_file_and_data_set(record: dict[str, Any]) -> None:
    Path(record["file_name"]).unlink()
    with pytest.raises(FileNotFoundError, match=r"Data set 'toy'.*001\.png"):
        _mapper()(record)


def test_truncated_jpeg_names_file_and_data_set(record: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.open(record["file_name"]).resize((400, 300)).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    record.update(file_name=str(path), width=400, height=300)
    with pytest.raises(ValueError, match=r"Data set 'toy'.*cut\.jpg.*truncated"):
        _mapper()(record)


def test_size_mismatch_names_both_sizes(record: dict[str, Any]) -> None:
    record["width"] = 41
    with pytest.raises(SizeMismatchError, match=r"'toy' is 40 x 30 .* says 41 x 30"):
        _mapper()(record)


def test_png_with_an_id_that_the_json_lacks(make_panoptic) -> None:
    made = make_panoptic()
    del made["ids"]
    content = json.loads(made["panoptic_json"].read_text())
    content["annotations"][0]["segments_info"] = content["annotations"][0]["segments_info"][1:]
    made["panoptic_json"].write_text(json.dumps(content))
    register_panoptic("mine", **made)
    with pytest.raises(ValueError, match=r"Data set 'mine'.*001\.png' has 419 pixels of segment id 70000"):
        _mapper()(get_detection_dataset_dicts("mine")[0])


def test_png_of_another_size_than_its_image(make_panoptic) -> None:
    made = make_panoptic()
    del made["ids"]
    Image.new("RGB", (10, 10)).save(made["panoptic_root"] / "001.png")
    register_panoptic("mine", **made)
    with pytest.raises(SizeMismatchError, match=r"001\.png' is 10 x 10 .* is 40 x 30"):
        _mapper()(get_detection_dataset_dicts("mine")[0])
