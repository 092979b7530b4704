"""The tables of data sets and their metadata."""

from __future__ import annotations

import functools
import pickle
from dataclasses import dataclass

import pytest

from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.data.catalog import LazyValue


def test_get_calls_the_registered_function() -> None:
    DatasetCatalog.register("toy", lambda: [{"file_name": "a"}])
    assert DatasetCatalog.get("toy") == [{"file_name": "a"}]
    assert "toy" in DatasetCatalog.list() and "toy" in DatasetCatalog


def test_unknown_name_lists_near_matches() -> None:
    with pytest.raises(KeyError, match="coco_2017_train_panoptic_separated"):
        DatasetCatalog.get("coco_2017_train_panoptic_seperated")


@pytest.mark.parametrize("remove", [DatasetCatalog.remove, DatasetCatalog.pop])
def test_removed_name_is_free_again(remove) -> None:
    DatasetCatalog.register("toy", list)
    remove("toy")
    assert "toy" not in DatasetCatalog
    DatasetCatalog.register("toy", dict)
    with pytest.raises(KeyError):
        DatasetCatalog.remove("toyota")


def _make_loader(length: int):
    return lambda: [{}] * length


def test_same_function_may_be_registered_again() -> None:
    for _ in range(2):  # as a notebook cell that is run twice
        DatasetCatalog.register("toy", _make_loader(3))
        DatasetCatalog.register("toy_partial", functools.partial(range, 3))


@pytest.mark.parametrize("other", [_make_loader(4), len, functools.partial(range, 4)])
def test_name_cannot_be_taken_by_another_function(other) -> None:
    DatasetCatalog.register("toy", _make_loader(3))
    with pytest.raises(ValueError, match="'toy' is already registered"):
        DatasetCatalog.register("toy", other)


def test_data_instead_of_a_function_is_refused() -> None:
    with pytest.raises(TypeError, match="lambda"):
        DatasetCatalog.register("toy", [{}])


def test_metadata_is_made_once_and_keeps_values() -> None:
    meta = MetadataCatalog.get("toy").set(thing_classes=["a"], ignore_label=255)
    assert MetadataCatalog.get("toy") is meta
    meta.thing_classes = ["a"]
    with pytest.raises(
        ValueError, match=r"'thing_classes' of data set 'toy' cannot be set to a different value"
    ):
        meta.thing_classes = ["b"]
    assert meta.get("stuff_classes") is None and meta.get("stuff_classes", 3) == 3
    assert meta.as_dict() == {"name": "toy", "thing_classes": ["a"], "ignore_label": 255}


def test_missing_metadata_names_what_there_is() -> None:
    meta = Metadata(name="toy", ignore_label=1)
    assert not hasattr(meta, "thing_classes")
    with pytest.raises(AttributeError, match=r"'toy' has no 'thing_classes'. It has: ignore_label"):
        _ = meta.thing_classes


def test_metadata_can_be_removed() -> None:
    first = MetadataCatalog.get("toy")
    MetadataCatalog.remove("toy")
    assert MetadataCatalog.get("toy") is not first
    with pytest.raises(KeyError):
        MetadataCatalog.remove("nothing")


@dataclass(frozen=True)
class _Doubled(LazyValue):
    number: int

    def resolve(self) -> int:
        return 2 * self.number


def test_lazy_value_is_resolved_when_read() -> None:
    meta = Metadata(name="toy").set(size=_Doubled(4))
    assert meta.size == 8 and meta.get("size") == 8 and meta.as_dict()["size"] == 8
    meta.size = 8
    with pytest.raises(ValueError, match="size"):
        meta.size = 9


def test_metadata_survives_pickling() -> None:
    meta = Metadata(name="toy").set(size=_Doubled(4), thing_classes=["a"])
    assert pickle.loads(pickle.dumps(meta)).as_dict() == meta.as_dict()
