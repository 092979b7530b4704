"""The tools that draw data sets and result files."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_util

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode


def _load_tool(repo_root: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, repo_root / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[str]:
    records = []
    for i in range(3):
        path = tmp_path / f"picture{i}.jpg"
        Image.fromarray(np.full((60, 80, 3), 90, dtype=np.uint8)).save(path)
        annotation = {
            "bbox": [10.0, 10, 30, 20],
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": 0,
            "iscrowd": 0,
            "segmentation": [[10.0, 10, 40, 10, 40, 30, 10, 30]],
        }
        records.append(
            {"file_name": str(path), "image_id": i, "height": 60, "width": 80, "annotations": [annotation]}
        )
    (tmp_path / "picture2.jpg").write_bytes(b"not a picture")
    name = "visualize_tools_set"
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(thing_classes=["cat"], thing_dataset_id_to_contiguous_id={5: 0})
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_annotations_are_drawn_and_broken_pictures_skipped(
    repo_root: Path, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = _load_tool(repo_root, "visualize_data")
    out = tmp_path / "out"
    tool.main(["--source", "annotation", "--output-dir", str(out), "DATASETS.TRAIN", f"('{dataset}',)"])
    assert sorted(p.name for p in out.iterdir()) == ["picture0.jpg", "picture1.jpg"]
    assert "picture2.jpg" in capsys.readouterr().out
    picture = np.asarray(Image.open(out / "picture0.jpg")).astype(int)
    assert abs(picture[25, 30] - 90).max() > 20 and abs(picture[55, 75] - 90).max() < 10


def test_what_the_loader_makes_is_drawn(repo_root: Path, dataset: str, tmp_path: Path) -> None:
    tool = _load_tool(repo_root, "visualize_data")
    out = tmp_path / "out"
    (tmp_path / "picture2.jpg").write_bytes((tmp_path / "picture1.jpg").read_bytes())
    options: list[Any] = ["DATASETS.TRAIN", f"('{dataset}',)", "DATALOADER.NUM_WORKERS", "0"]
    options += ["SOLVER.IMS_PER_BATCH", "1", "INPUT.MIN_SIZE_TRAIN", "(64,)", "MODEL.MASK_ON", "True"]
    options += ["MODEL.ROI_HEADS.NUM_CLASSES", "-1"]
    tool.main(["--source", "dataloader", "--output-dir", str(out), "--num-images", "2", *options])
    assert len(list(out.iterdir())) == 2


def test_data_set_must_be_named(repo_root: Path) -> None:
    with pytest.raises(ValueError, match="DATASETS.TRAIN"):
        _load_tool(repo_root, "visualize_data").main(["--source", "annotation"])


def test_results_are_drawn_beside_the_truth(repo_root: Path, dataset: str, tmp_path: Path) -> None:
    mask = np.zeros((60, 80), dtype=np.uint8, order="F")
    mask[10:30, 10:40] = 1
    rle = mask_util.encode(mask)
    entries = [
        {
            "image_id": 0,
            "category_id": 5,
            "bbox": [10, 10, 30, 20],
            "score": score,
            "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
        }
        for score in (0.9, 0.1)
    ]
    tool = _load_tool(repo_root, "visualize_json_results")
    found = tool.to_instances(entries, (60, 80), {5: 0}, 0.5)
    assert len(found) == 1 and found.pred_boxes.tensor.tolist() == [[10, 10, 40, 30]]
    results = tmp_path / "results.json"
    results.write_text(json.dumps(entries))
    out = tmp_path / "out"
    tool.main(["--input", str(results), "--output", str(out), "--dataset", dataset])
    assert sorted(p.name for p in out.iterdir()) == ["picture0.png", "picture1.png"]
    with Image.open(out / "picture0.png") as sheet:
        assert sheet.width >= 160
    results.write_text(json.dumps([{**entries[0], "category_id": 6}]))
    with pytest.raises(ValueError, match="category id 6"):
        tool.main(["--input", str(results), "--output", str(out), "--dataset", dataset])


def test_pictures_of_one_name_do_not_take_each_others_place(
    repo_root: Path, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = DatasetCatalog.get(dataset)
    (tmp_path / "more").mkdir()
    (tmp_path / "picture1.jpg").rename(tmp_path / "more" / "picture0.jpg")
    records[1]["file_name"] = str(tmp_path / "more" / "picture0.jpg")
    out = tmp_path / "out"
    options = ["--output-dir", str(out), "DATASETS.TRAIN", f"('{dataset}',)"]
    _load_tool(repo_root, "visualize_data").main(["--source", "annotation", *options])
    assert sorted(p.name for p in out.iterdir()) == ["picture0.jpg", "picture0_2.jpg"]
    results = tmp_path / "results.json"
    results.write_text("[]")
    arguments = ["--input", str(results), "--output", str(tmp_path / "sheets"), "--dataset", dataset]
    _load_tool(repo_root, "visualize_json_results").main(arguments)
    assert sorted(p.name for p in (tmp_path / "sheets").iterdir()) == ["picture0.png", "picture0_2.png"]


def test_prediction_and_truth_of_a_class_have_its_colour(
    repo_root: Path, dataset: str, tmp_path: Path
) -> None:
    MetadataCatalog.get(dataset).thing_colors = [[250, 0, 200]]
    entry = {"image_id": 0, "category_id": 5, "bbox": [10, 10, 30, 20], "score": 0.9}
    results = tmp_path / "results.json"
    results.write_text(json.dumps([entry, {**entry, "bbox": [45, 10, 20, 40]}]))
    arguments = ["--input", str(results), "--output", str(tmp_path / "out"), "--dataset", dataset]
    _load_tool(repo_root, "visualize_json_results").main(arguments)
    sheet = np.asarray(Image.open(tmp_path / "out" / "picture0.png")).astype(int)
    half = sheet.shape[1] // 2
    for side in (sheet[:, : half - 4], sheet[:, half + 4 :]):
        is_class_color = (side[..., 0] > 150) & (side[..., 1] < 60) & (side[..., 2] > 120)
        assert is_class_color.sum() > 40


def test_the_truth_beside_results_has_instances_alone(repo_root: Path, dataset: str, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((60, 80), dtype=np.uint8)).save(tmp_path / "stuff.png")
    for record in DatasetCatalog.get(dataset):
        record["sem_seg_file_name"] = str(tmp_path / "stuff.png")
    MetadataCatalog.get(dataset).set(stuff_classes=["sky"], stuff_colors=[[0, 0, 250]])
    (tmp_path / "results.json").write_text("[]")
    arguments = ["--input", str(tmp_path / "results.json"), "--output", str(tmp_path), "--dataset", dataset]
    _load_tool(repo_root, "visualize_json_results").main(arguments)
    sheet = np.asarray(Image.open(tmp_path / "picture0.png")).astype(int)
    truth = sheet[:, sheet.shape[1] // 2 + 4 :]
    assert (abs(truth - 90).max(axis=2) < 10).mean() > 0.5  # the picture is seen where no instance is
