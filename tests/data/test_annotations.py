"""Annotations to training targets."""

from __future__ import annotations

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch

from detectron2.data import MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode, PolygonMasks
from detectron2.utils.user_errors import UserValueError

SQUARE = [2.0, 2.0, 6.0, 2.0, 6.0, 6.0, 2.0, 6.0]
FLIP_DOUBLE = T.TransformList([T.HFlipTransform(10), T.ResizeTransform(10, 10, 20, 20)])


def _annotation(**changes):
    return {"bbox": [2, 2, 4, 4], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 3, "iscrowd": 0} | changes


def test_box_is_transformed_and_clipped() -> None:
    moved = utils.transform_instance_annotations(_annotation(), FLIP_DOUBLE, (20, 20))
    assert moved["bbox"].tolist() == [8, 4, 16, 12] and moved["bbox_mode"] == BoxMode.XYXY_ABS
    wide = utils.transform_instance_annotations(
        _annotation(bbox=[-5, -5, 50, 7]), T.NoOpTransform(), (10, 12)
    )
    assert wide["bbox"].tolist() == [0, 0, 12, 2]


def test_integer_boxes_keep_fractions() -> None:
    resize = T.ResizeTransform(10, 10, 15, 15)
    moved = utils.transform_instance_annotations(_annotation(bbox=[1, 1, 4, 4]), resize, (15, 15))
    assert moved["bbox"].tolist() == [1.5, 1.5, 7.5, 7.5]


def test_list_of_transforms_is_accepted() -> None:
    moved = utils.transform_instance_annotations(_annotation(), [T.HFlipTransform(10)], (10, 10))
    assert moved["bbox"].tolist() == [4, 2, 8, 6]


def test_polygons_are_transformed() -> None:
    moved = utils.transform_instance_annotations(_annotation(segmentation=[SQUARE]), FLIP_DOUBLE, (20, 20))
    (polygon,) = moved["segmentation"]
    assert polygon.reshape(-1, 2).tolist() == [[16, 4], [8, 4], [8, 12], [16, 12]]
    instances = utils.annotations_to_instances([moved], (20, 20))
    assert isinstance(instances.gt_masks, PolygonMasks)


def test_polygons_of_whole_numbers_are_scaled_to_whole_numbers() -> None:
    corners = [1, 1, 5, 1, 5, 5]
    resize = T.ResizeTransform(10, 10, 15, 15)
    whole, floating = (
        utils.transform_instance_annotations(_annotation(segmentation=[polygon]), resize, (15, 15))
        for polygon in (corners, [float(v) for v in corners])
    )
    assert whole["segmentation"][0].tolist() == [1, 1, 7, 1, 7, 7]
    assert floating["segmentation"][0].tolist() == [1.5, 1.5, 7.5, 1.5, 7.5, 7.5]
    masks = utils.annotations_to_instances([whole], (15, 15)).gt_masks
    assert masks.polygons[0][0].dtype == np.float64


def _rle_forms(mask: np.ndarray) -> dict[str, dict]:
    compressed = coco_mask.encode(np.asfortranarray(mask))
    runs, value = [], 0
    for pixel in mask.T.reshape(-1):
        if not runs or pixel != value:
            if not runs and pixel:
                runs.append(0)
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return {
        "bytes": compressed,
        "text": {**compressed, "counts": compressed["counts"].decode()},
        "list": {"size": list(mask.shape), "counts": runs},
    }


@pytest.mark.parametrize("form", ["bytes", "text", "list"])
def test_every_form_of_rle_becomes_a_bit_mask(form: str) -> None:
    mask = np.zeros((10, 10), dtype=np.uint8)
    mask[2:6, 1:4] = 1
    annotation = _annotation(segmentation=_rle_forms(mask)[form])
    moved = utils.transform_instance_annotations(annotation, FLIP_DOUBLE, (20, 20))
    instances = utils.annotations_to_instances([moved], (20, 20), mask_format="bitmask")
    expected = mask[:, ::-1].repeat(2, 0).repeat(2, 1).astype(bool)
    assert isinstance(instances.gt_masks, BitMasks)
    assert np.array_equal(instances.gt_masks.tensor[0].numpy(), expected)


def test_rle_of_wrong_length_is_refused() -> None:
    annotation = _annotation(segmentation={"size": [10, 10], "counts": [3, 4]})
    with pytest.raises(ValueError, match="add up to 100"):
        utils.transform_instance_annotations(annotation, T.NoOpTransform(), (10, 10))


def test_polygons_arrays_and_rle_mix_as_bit_masks() -> None:
    mask = np.zeros((10, 10), dtype=np.uint8)
    mask[2:6, 2:6] = 1
    annos = [
        _annotation(segmentation=[np.array(SQUARE)]),
        _annotation(segmentation=mask),
        _annotation(segmentation=coco_mask.encode(np.asfortranarray(mask))),
    ]
    masks = utils.annotations_to_instances(annos, (10, 10), mask_format="bitmask").gt_masks.tensor
    for one in masks:
        assert np.array_equal(one.numpy(), mask.astype(bool))


def test_rle_in_polygon_format_names_the_key() -> None:
    annos = [_annotation(segmentation=np.zeros((10, 10), dtype=np.uint8))]
    with pytest.raises(ValueError, match="INPUT.MASK_FORMAT to 'bitmask'"):
        utils.annotations_to_instances(annos, (10, 10))
    with pytest.raises(ValueError, match="'polygons'"):
        utils.annotations_to_instances(annos, (10, 10), mask_format="polygons")


def test_mask_of_another_size_than_the_image() -> None:
    with pytest.raises(ValueError, match=r"\(5, 5\).*\(10, 10\)"):
        utils.transform_instance_annotations(
            _annotation(segmentation=np.zeros((5, 5), dtype=np.uint8)), T.NoOpTransform(), (10, 10)
        )


def test_instances_refuse_a_mask_of_another_size() -> None:
    annotation = _annotation(segmentation=np.ones((5, 8), dtype=np.uint8))
    with pytest.raises(UserValueError, match=r"\(5, 8\).*\(10, 10\).*as large as the image"):
        utils.annotations_to_instances([annotation], (10, 10), mask_format="bitmask")


def test_no_annotations_make_empty_instances() -> None:
    instances = utils.annotations_to_instances([], (10, 10))
    assert instances.gt_boxes.tensor.shape == (0, 4) and instances.gt_classes.dtype == torch.int64
    assert len(utils.filter_empty_instances(instances)) == 0


def test_masks_on_some_annotations_only_are_an_error() -> None:
    with pytest.raises(ValueError, match="1 of the 2 annotations of an image have no 'segmentation'"):
        utils.annotations_to_instances([_annotation(segmentation=[SQUARE]), _annotation()], (10, 10))


def test_empty_boxes_and_masks_are_dropped() -> None:
    annos = [
        _annotation(segmentation=[SQUARE]),
        _annotation(bbox=[3, 3, 0, 4], segmentation=[SQUARE]),
        _annotation(category_id=5, segmentation=[]),
    ]
    instances = utils.annotations_to_instances(annos, (10, 10))
    assert utils.filter_empty_instances(instances).gt_classes.tolist() == [3]
    by_box, kept = utils.filter_empty_instances(instances, by_mask=False, return_mask=True)
    assert by_box.gt_classes.tolist() == [3, 5] and kept.tolist() == [True, False, True]
    with pytest.raises(ValueError, match="by_box"):
        utils.filter_empty_instances(instances, by_box=False, by_mask=False)


def test_rotated_boxes() -> None:
    annotation = _annotation(bbox=[4.0, 5.0, 4.0, 2.0, 30.0], bbox_mode=BoxMode.XYWHA_ABS)
    moved = utils.transform_instance_annotations(annotation, T.HFlipTransform(10), (10, 10))
    instances = utils.annotations_to_instances_rotated([moved], (10, 10))
    torch.testing.assert_close(instances.gt_boxes.tensor, torch.tensor([[6.0, 5.0, 4.0, 2.0, -30.0]]))
    assert len(utils.annotations_to_instances_rotated([], (10, 10))) == 0


@pytest.fixture
def person() -> str:
    MetadataCatalog.get("persons").set(
        keypoint_names=("nose", "left_eye", "right_eye"), keypoint_flip_map=(("left_eye", "right_eye"),)
    )
    return "persons"


def test_flip_indices_exchange_pairs(person: str) -> None:
    assert utils.create_keypoint_hflip_indices(person) == [0, 2, 1]
    assert utils.create_keypoint_hflip_indices("keypoints_coco_2017_train") == [
        0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15,
    ]  # fmt: skip


def test_keypoints_flip_and_leave_the_image(person: str) -> None:
    points = [5.0, 5.0, 2, 1.0, 2.0, 2, 9.0, 1.0, 1]
    indices = utils.create_keypoint_hflip_indices(person)
    flipped = utils.transform_keypoint_annotations(points, T.HFlipTransform(10), (10, 10), indices)
    assert flipped.tolist() == [[5, 5, 2], [1, 1, 1], [9, 2, 2]]
    twice = T.TransformList([T.TransformList([T.HFlipTransform(10)]), T.HFlipTransform(10)])
    assert utils.transform_keypoint_annotations(points, twice, (10, 10)).reshape(-1).tolist() == points
    cropped = utils.transform_keypoint_annotations(points, T.CropTransform(0, 0, 6, 6), (6, 6))
    assert cropped.tolist() == [[5, 5, 2], [1, 2, 2], [0, 0, 0]]
    instances = utils.annotations_to_instances([_annotation(keypoints=cropped)], (6, 6))
    assert instances.gt_keypoints.tensor.shape == (1, 3, 3)


def test_flip_without_indices_is_an_error(person: str) -> None:
    with pytest.raises(ValueError, match="keypoint_flip_map"):
        utils.transform_keypoint_annotations([1.0, 1, 2], T.HFlipTransform(10), (10, 10))
    with pytest.raises(ValueError, match="1 keypoints"):
        utils.transform_keypoint_annotations([1.0, 1, 2], T.HFlipTransform(10), (10, 10), [0, 1])


def test_metadata_must_agree() -> None:
    MetadataCatalog.get("a").set(thing_classes=["x"])
    MetadataCatalog.get("b").set(thing_classes=["y"])
    utils.check_metadata_consistency("thing_classes", ["a", "a"])
    utils.check_metadata_consistency("thing_classes", [])
    with pytest.raises(ValueError, match=r"'a' has \['x'\], 'b' has \['y'\]"):
        utils.check_metadata_consistency("thing_classes", ["a", "b"])


def test_fed_loss_weights_follow_ids() -> None:
    MetadataCatalog.get("a").set(class_image_count=[{"id": 2, "image_count": 9}, {"id": 1, "image_count": 4}])
    assert utils.get_fed_loss_cls_weights("a", 0.5).tolist() == [2, 3]


def test_proposals_are_transformed_clipped_and_cut() -> None:
    record = {
        "proposal_boxes": np.array([[0.0, 0, 4, 4], [5, 5, 5, 9], [2, 2, 60, 6]]),
        "proposal_objectness_logits": np.array([3.0, 2.0, 1.0]),
        "proposal_bbox_mode": BoxMode.XYXY_ABS,
    }
    utils.transform_proposals(record, (10, 10), T.HFlipTransform(10), proposal_topk=2)
    assert record["proposals"].proposal_boxes.tensor.tolist() == [[6, 0, 10, 4], [0, 2, 8, 6]]
    assert record["proposals"].objectness_logits.tolist() == [3, 1]
    assert set(record) == {"proposals"}


def test_crop_with_instance_holds_its_centre() -> None:
    np.random.seed(0)
    for _ in range(50):
        crop = utils.gen_crop_transform_with_instance((5, 6), (20, 30), _annotation(bbox=[10, 3, 8, 4]))
        assert crop.x0 <= 14 <= crop.x0 + 6 and crop.y0 <= 5 <= crop.y0 + 5
        assert 0 <= crop.x0 <= 24 and 0 <= crop.y0 <= 15 and (crop.h, crop.w) == (5, 6)
    with pytest.raises(ValueError, match="outside the image"):
        utils.gen_crop_transform_with_instance((5, 6), (20, 30), _annotation(bbox=[40, 3, 8, 4]))
