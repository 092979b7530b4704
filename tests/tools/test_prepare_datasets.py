"""The scripts that bring published annotations into the form that the built-in data sets expect."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from detectron2.data.datasets import load_lvis_json

LoadScript = Callable[[str], ModuleType]


@pytest.fixture
def ade20k(load_script: LoadScript) -> ModuleType:
    return load_script("datasets/prepare_ade20k_sem_seg.py")


@pytest.fixture
def lvis(load_script: LoadScript) -> ModuleType:
    return load_script("datasets/prepare_cocofied_lvis.py")


def test_ade20k_maps_are_shifted(ade20k: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ADEChallengeData2016"
    labels = np.array([[0, 1, 150], [2, 0, 3]], dtype=np.uint8)
    for split in ("training", "validation"):
        (folder / "annotations" / split).mkdir(parents=True)
        Image.fromarray(labels).save(folder / "annotations" / split / "one.png")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert ade20k.main([]) == 0
    for split in ("training", "validation"):
        written = np.asarray(Image.open(folder / "annotations_detectron2" / split / "one.png"))
        assert written.tolist() == [[255, 0, 149], [1, 255, 2]]


def test_ade20k_refuses_what_is_no_label_map(ade20k: ModuleType, tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 200, dtype=np.uint8)).save(tmp_path / "map.png")
    with pytest.raises(ValueError, match="values up to 200"):
        ade20k.convert(tmp_path / "map.png", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_both_say_where_they_looked(
    ade20k: ModuleType, lvis: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ade20k.main(["--root", str(tmp_path)]) == lvis.main(["--root", str(tmp_path)]) == 1
    report = capsys.readouterr().err
    assert "ADEChallengeData2016" in report and "lvis_v0.5_train.json" in report


def test_all_classes_of_coco_have_a_synset(lvis: ModuleType) -> None:
    ids = lvis.coco_id_of_synset()
    assert len(ids) == 80 and ids["person.n.01"] == 1 and ids["toothbrush.n.01"] == 90
    assert (ids["traffic_light.n.01"], ids["beef.n.01"], ids["bag.n.06"]) == (10, 21, 33)


def test_lvis_is_reduced_to_classes_of_coco(
    lvis: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = {"bbox": [0, 0, 2, 2], "area": 4, "segmentation": [[0, 0, 2, 0, 2, 2]], "image_id": 7}
    content = {
        "info": {"year": 2019},
        "categories": [
            {"id": 1, "synset": "acorn.n.01", "name": "acorn", "synonyms": ["acorn"]},
            {"id": 2, "synset": "beef.n.01", "name": "cow", "synonyms": ["cow"]},
            {"id": 3, "synset": "toothbrush.n.01", "name": "toothbrush", "synonyms": ["toothbrush"]},
            {"id": 4, "synset": "person.n.01", "name": "person", "synonyms": ["person"]},
        ],
        "images": [
            {
                "id": 7,
                "file_name": "7.jpg",
                "height": 4,
                "width": 4,
                "neg_category_ids": [1, 3],
                "not_exhaustive_category_ids": [1, 2],
            }
        ],
        "annotations": [{**box, "id": 5, "category_id": 1}, {**box, "id": 9, "category_id": 2}],
    }
    (tmp_path / "lvis").mkdir()
    (tmp_path / "lvis" / "lvis_v0.5_val.json").write_text(json.dumps(content))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert lvis.main([]) == 0
    path = tmp_path / "lvis" / "lvis_v0.5_val_cocofied.json"
    reduced = json.loads(path.read_text())
    assert reduced["info"] == {"year": 2019}
    assert reduced["annotations"] == [{**box, "id": 1, "category_id": 21}]
    assert [(c["id"], c["name"]) for c in reduced["categories"]] == [(21, "cow"), (90, "toothbrush")]
    assert reduced["images"][0]["neg_category_ids"] == [90]
    assert reduced["images"][0]["not_exhaustive_category_ids"] == [21]
    record = load_lvis_json(str(path), str(tmp_path), "lvis_v0.5_val_cocofied")[0]
    assert [a["category_id"] for a in record["annotations"]] == [19]  # the twentieth class of COCO


def test_lvis_refuses_a_file_of_coco(lvis: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "coco.json").write_text(json.dumps({"categories": [{"id": 1, "name": "person"}]}))
    with pytest.raises(ValueError, match="no 'synset'"):
        lvis.cocofy_lvis(tmp_path / "coco.json", tmp_path / "out.json")
