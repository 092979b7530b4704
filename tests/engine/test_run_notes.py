"""Checkpoints that can be used without the files that they were trained with."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fvcore.common.checkpoint import Checkpointer
from torch import nn

import detectron2
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import LazyValue
from detectron2.engine import DefaultPredictor
from detectron2.engine.defaults import describe_run, load_run

from .test_predictor import EchoModel as EchoModel  # registers itself
from .tiny_run import TinyTrainer
from .tiny_run import tiny_cfg as tiny_cfg  # a fixture

IMAGE = np.random.default_rng(0).integers(0, 256, size=(8, 9, 3), dtype=np.uint8)


def save(path: Path, cfg: CfgNode, weight: float = 3.0) -> str:
    model = EchoModel(cfg)
    nn.init.constant_(model.weight, weight)
    checkpointer = DetectionCheckpointer(model, str(path.parent))
    checkpointer.notes = describe_run(cfg)
    checkpointer.save(path.stem)
    return str(path)


def echo_cfg() -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "EchoModel"
    cfg.INPUT.MIN_SIZE_TEST = 4
    cfg.INPUT.FORMAT = "RGB"
    return cfg


def test_predictor_of_a_finished_run_needs_the_checkpoint_only(tiny_cfg: CfgNode) -> None:
    tiny_cfg.INPUT.MIN_SIZE_TEST = 0
    trainer = TinyTrainer(tiny_cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    path = os.path.join(tiny_cfg.OUTPUT_DIR, "model_final.pth")
    predictor = DefaultPredictor.from_checkpoint(path)
    tiny_cfg.MODEL.WEIGHTS = path
    assert predictor.cfg.dump() == tiny_cfg.dump()
    expected = DefaultPredictor(tiny_cfg)(IMAGE)["prediction"]
    assert torch.equal(predictor(IMAGE)["prediction"], expected)


def test_file_is_plain_data_for_strict_and_for_older_loaders(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", echo_cfg())
    data = torch.load(path, weights_only=True)
    assert set(data) == {"model", "detectron2"}
    assert data["detectron2"]["versions"] == {
        "detectron2": detectron2.__version__,
        "torch": str(torch.__version__),
    }
    model = EchoModel(echo_cfg())
    rest = Checkpointer(model).load(path)  # the base class of the loaders that users have
    assert model.weight == 3
    assert set(rest) == {"detectron2"}


def test_files_of_a_bare_checkpointer_carry_versions(tmp_path: Path) -> None:
    DetectionCheckpointer(EchoModel(echo_cfg()), str(tmp_path)).save("a")
    assert set(torch.load(tmp_path / "a.pth", weights_only=True)["detectron2"]) == {"versions"}
    with pytest.raises(ValueError, match=r"a\.pth carries no config: .*MODEL\.WEIGHTS"):
        DefaultPredictor.from_checkpoint(str(tmp_path / "a.pth"))


def test_class_names_come_along_and_leave_the_catalog_alone(tmp_path: Path) -> None:
    cfg = echo_cfg()
    cfg.DATASETS.TEST = ("notes_without_names",)
    cfg.DATASETS.TRAIN = ("notes_with_names",)
    MetadataCatalog.get("notes_with_names").set(
        thing_classes=["cat", "dog"],
        thing_colors=np.array([[1, 2, 3], [4, 5, 6]]),
        keypoint_flip_map=[("left", "right")],
        thing_dataset_id_to_contiguous_id={7: np.int64(0), 9: np.int64(1)},
        json_file="/secret/path.json",
    )
    path = save(tmp_path / "a.pth", cfg)
    MetadataCatalog.remove("notes_with_names")
    metadata = DefaultPredictor.from_checkpoint(path).metadata
    assert metadata.as_dict() == {
        "name": "notes_with_names",
        "thing_classes": ["cat", "dog"],
        "thing_colors": [[1, 2, 3], [4, 5, 6]],
        "keypoint_flip_map": [("left", "right")],
        "thing_dataset_id_to_contiguous_id": {7: 0, 9: 1},
    }
    assert "notes_with_names" not in MetadataCatalog.list()
    MetadataCatalog.remove("notes_without_names")


class CountsReadings(LazyValue):
    """Stands for class names that lie in a file."""

    def __init__(self) -> None:
        self.count = 0

    def resolve(self) -> list[str]:
        self.count += 1
        return ["cat", "dog"]


class LiesNowhere(LazyValue):
    def resolve(self) -> list[str]:
        raise FileNotFoundError("names.json")


def test_class_names_in_files_are_read_when_a_checkpoint_is_written(
    tmp_path: Path, tiny_cfg: CfgNode
) -> None:
    names = CountsReadings()
    MetadataCatalog.get("notes_missing").set(thing_classes=LiesNowhere())
    MetadataCatalog.get("notes_lazy").set(thing_classes=names)
    tiny_cfg.DATASETS.TEST = ("notes_missing", "notes_lazy")
    try:
        checkpointer = TinyTrainer(tiny_cfg).checkpointer
        assert names.count == 0
        checkpointer.save("a")
        assert names.count > 0
        _, metadata = load_run(f"{tiny_cfg.OUTPUT_DIR}/a.pth")
        assert metadata.as_dict() == {"name": "notes_lazy", "thing_classes": ["cat", "dog"]}
    finally:
        MetadataCatalog.remove("notes_missing")
        MetadataCatalog.remove("notes_lazy")


def test_keys_of_a_project_and_overrides_are_kept(tmp_path: Path) -> None:
    cfg = echo_cfg()
    cfg.MODEL.PROJECT = CfgNode({"WIDTH": 3, "STEPS": (1, 2), "DEEP": {"NAME": "x"}})
    path = save(tmp_path / "a.pth", cfg)
    loaded, _ = load_run(path, ["INPUT.MIN_SIZE_TEST", "6", "MODEL.PROJECT.WIDTH", "5"])
    assert (loaded.MODEL.PROJECT.WIDTH, loaded.MODEL.PROJECT.DEEP.NAME) == (5, "x")
    assert list(loaded.MODEL.PROJECT.STEPS) == [1, 2]
    assert (loaded.INPUT.MIN_SIZE_TEST, loaded.INPUT.FORMAT) == (6, "RGB")
    assert loaded.MODEL.WEIGHTS == path
    with pytest.raises(KeyError, match=r"MODEL\.PROJEKT"):
        load_run(path, ["MODEL.PROJEKT.WIDTH", "5"])


def test_device_that_is_not_here_is_left_for_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg = echo_cfg()
    cfg.MODEL.DEVICE = "cuda"
    with caplog.at_level(logging.INFO):
        predictor = DefaultPredictor.from_checkpoint(save(tmp_path / "a.pth", cfg))
    assert predictor.cfg.MODEL.DEVICE == "cpu"
    assert "runs on the CPU" in caplog.text


def test_a_config_that_is_no_plain_data_costs_the_config_and_not_the_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = echo_cfg()
    cfg.MODEL.PROJECT = CfgNode({"CALL": 1})
    dict.__setitem__(cfg.MODEL.PROJECT, "CALL", print)
    path = save(tmp_path / "a.pth", cfg)
    assert "MODEL.PROJECT.CALL" in caplog.text
    DetectionCheckpointer(EchoModel(cfg)).load(path)


@pytest.mark.parametrize(
    "text",
    ["a: !!python/object/apply:os.system ['touch {marker}']", "MODEL: [", "MODEL: 3", "- 1", "\x00"],
)
def test_a_hostile_config_is_refused_and_runs_nothing(tmp_path: Path, text: str) -> None:
    marker = tmp_path / "marker"
    model = EchoModel(echo_cfg())
    notes = {"config": text.format(marker=marker)}
    torch.save({"model": model.state_dict(), "detectron2": notes}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="config"):
        DefaultPredictor.from_checkpoint(str(tmp_path / "a.pth"))
    assert not marker.exists()


@pytest.mark.parametrize("notes", [None, 3, {"config": 3}, {"metadata": 3}])
def test_notes_of_another_kind_are_no_config(tmp_path: Path, notes: object) -> None:
    torch.save({"model": EchoModel(echo_cfg()).state_dict(), "detectron2": notes}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="carries no config"):
        DefaultPredictor.from_checkpoint(str(tmp_path / "a.pth"))


def test_missing_checkpoints_are_named_with_near_ones(tmp_path: Path) -> None:
    save(tmp_path / "model_final.pth", echo_cfg())
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*model_fnal\.pth.*model_final\.pth"):
        DefaultPredictor.from_checkpoint(str(tmp_path / "model_fnal.pth"))


def test_a_real_detector_predicts_alike_in_another_process(tmp_path: Path) -> None:
    program = """
import sys, torch, numpy as np
from detectron2.engine import DefaultPredictor
predictor = DefaultPredictor.from_checkpoint(sys.argv[1])
out = predictor(np.full((40, 50, 3), 99, np.uint8))["instances"]
print(len(out), predictor.metadata.thing_classes[0])
"""
    from detectron2 import model_zoo
    from detectron2.modeling import build_model

    cfg = model_zoo.get_config("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml")
    cfg.MODEL.DEVICE, cfg.INPUT.MIN_SIZE_TEST = "cpu", 64
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    checkpointer = DetectionCheckpointer(build_model(cfg), str(tmp_path))
    checkpointer.notes = describe_run(cfg)
    checkpointer.save("a")
    command = [sys.executable, "-c", program, str(tmp_path / "a.pth")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "person"
