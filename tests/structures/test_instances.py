"""Instances: fields that are indexed, moved and concatenated together."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from detectron2.structures.boxes import Boxes
from detectron2.structures.instances import Instances
from detectron2.structures.masks import PolygonMasks


def make_instances(num: int = 3) -> Instances:
    instances = Instances((480, 640), scores=torch.arange(num) / 10)
    instances.gt_boxes = Boxes(torch.arange(num * 4.0).view(num, 4))
    instances.names = [f"object {i}" for i in range(num)]
    return instances


def test_fields_are_attributes() -> None:
    instances = make_instances()
    assert instances.image_size == (480, 640) and len(instances) == 3
    assert instances.has("scores") and not instances.has("classes")
    assert instances.get("names") is instances.names is instances.get_fields()["names"]
    instances.remove("names")
    assert not instances.has("names")
    with pytest.raises(KeyError):
        instances.remove("names")
    with pytest.raises(KeyError):
        instances.get("names")


def test_a_missing_field_names_those_that_are_there() -> None:
    with pytest.raises(AttributeError, match="no field 'gt_box'.*Did you mean gt_boxes"):
        _ = make_instances().gt_box
    assert getattr(make_instances(), "classes", None) is None


def test_fields_of_another_length_are_refused() -> None:
    instances = make_instances()
    with pytest.raises(ValueError, match="'classes' has 2 entries, but these are 3 instances"):
        instances.classes = torch.zeros(2)
    instances.scores = torch.ones(3)
    assert instances.scores.eq(1).all()


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (0, [0]),
        (-1, [2]),
        (slice(0, 2), [0, 1]),
        (torch.tensor([True, False, True]), [0, 2]),
        (torch.tensor([], dtype=torch.int64), []),
    ],
)
def test_indexing_indexes_every_field(item: object, expected: list[int]) -> None:
    instances = make_instances()
    if isinstance(item, torch.Tensor):
        instances.remove("names")  # a list knows no tensors
    picked = instances[item]
    assert len(picked) == len(expected) and picked.image_size == (480, 640)
    assert picked.scores.tolist() == pytest.approx([i / 10 for i in expected])
    assert picked.gt_boxes.tensor[:, 0].tolist() == [4.0 * i for i in expected]
    if picked.has("names"):
        assert picked.names == [f"object {i}" for i in expected]


def test_indices_out_of_range() -> None:
    for index in (3, -4):
        with pytest.raises(IndexError, match="3 instances"):
            make_instances()[index]


def test_cat_joins_every_kind_of_field() -> None:
    masks = PolygonMasks([[[0.0, 0, 1, 0, 1, 1]]] * 3)
    first, second = make_instances(), make_instances(0)
    first.gt_masks, second.gt_masks = masks, PolygonMasks([])
    joined = Instances.cat([first, second, first])
    assert len(joined) == 6 and joined.names == first.names * 2
    assert len(joined.gt_boxes) == 6 and len(joined.gt_masks) == 6
    assert Instances.cat([first]) is first


def test_cat_says_what_does_not_match() -> None:
    first, other = make_instances(), make_instances()
    with pytest.raises(ValueError, match="no Instances"):
        Instances.cat([])
    with pytest.raises(TypeError, match="Tensor"):
        Instances.cat([first, torch.zeros(3)])
    with pytest.raises(ValueError, match="image sizes differ"):
        Instances.cat([first, Instances((1, 1), scores=torch.zeros(1))])
    other.remove("names")
    with pytest.raises(ValueError, match="fields differ"):
        Instances.cat([first, other])
    first.extra = other.extra = "abc"
    with pytest.raises(TypeError, match="'extra' is a str"):
        Instances.cat([first, first])


def test_moving_leaves_what_cannot_move() -> None:
    instances = make_instances()
    moved = instances.to("cpu")
    assert moved is not instances and moved.names == instances.names and len(moved.gt_boxes) == 3
    assert instances[:0].to(torch.device("cpu")).gt_boxes.tensor.shape == (0, 4)


def test_without_fields_there_is_no_length() -> None:
    instances = Instances((3, 4))
    with pytest.raises(NotImplementedError):
        len(instances)
    with pytest.raises(NotImplementedError):
        iter(instances)
    assert "num_instances=0" in str(instances)
    assert Instances.cat([instances, Instances((3, 4))]).get_fields() == {}


def test_copies_and_pickles() -> None:
    instances = make_instances()
    for other in (copy.deepcopy(instances), pickle.loads(pickle.dumps(instances))):
        assert other.image_size == (480, 640) and torch.equal(other.scores, instances.scores)
        assert "num_instances=3, image_height=480, image_width=640" in repr(other)
