"""The data set of tests that bring none of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from detectron2.data import DatasetCatalog, MetadataCatalog

from .two_objects import dataset_dicts


@pytest.fixture
def dataset() -> Iterator[str]:
    """Name of a data set of one image with a cat and a dog."""
    name = "evaluation_test_set"
    DatasetCatalog.register(name, dataset_dicts)
    MetadataCatalog.get(name).thing_classes = ["cat", "dog"]
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)
