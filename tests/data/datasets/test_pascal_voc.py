"""Folders in PASCAL VOC's layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_pascal_voc

XML = """<annotation><size><width>40</width><height>30</height></size><object><name>mug</name>
<bndbox><xmin>3</xmin><ymin>5</ymin><xmax>20</xmax><ymax>25</ymax></bndbox></object></annotation>"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "one.xml").write_text(XML)
    return tmp_path


def test_classes_of_ones_own(folder: Path) -> None:
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "train.txt").write_text("one\n")
    register_pascal_voc("mugs", folder, "train", 2012, class_names=["plate", "mug"])
    assert MetadataCatalog.get("mugs").thing_classes == ["plate", "mug"]
    (record,) = DatasetCatalog.get("mugs")
    assert record["image_id"] == "one" and record["annotations"][0]["category_id"] == 1
    assert record["annotations"][0]["bbox"] == [2, 4, 20, 25]


def test_a_folder_without_lists_is_told_how_to_make_one(folder: Path) -> None:
    register_pascal_voc("mugs", folder, "train", 2012, class_names=["mug"])
    with pytest.raises(FileNotFoundError, match=r"train\.txt.*does not exist.*ls Annotations.*train\.txt"):
        DatasetCatalog.get("mugs")
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "val.txt").write_text("one\n")
    with pytest.raises(FileNotFoundError, match="lists of the splits val"):
        DatasetCatalog.get("mugs")
