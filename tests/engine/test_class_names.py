"""A checkpoint knows what its classes are called: it is not scored under other names in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from detectron2 import model_zoo
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.class_names import expect_classes
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine.defaults import DefaultPredictor, describe_run, load_metadata
from detectron2.engine.defaults.evaluation_checks import check_test_sets
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, inference_on_dataset
from detectron2.modeling import build_model

ABC = ["cat", "dog", "emu"]


@pytest.fixture
def register() -> Iterator[Callable[..., str]]:
    names = []

    def add(things: list[str] | None = None, stuff: list[str] | None = None) -> str:
        name = f"class_names_{len(names)}"
        metadata = MetadataCatalog.get(name)
        metadata.set(**{k: v for k, v in (("thing_classes", things), ("stuff_classes", stuff)) if v})
        names.append(name)
        return name

    yield add
    for name in names:
        MetadataCatalog.remove(name)


def small_cfg(train: str, test: str, *, kind: str = "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml") -> CfgNode:
    cfg = model_zoo.get_config(kind)
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 4
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 8
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (train,), (test,)
    for section in (cfg.MODEL.ROI_HEADS, cfg.MODEL.RETINANET):
        section.NUM_CLASSES = len(MetadataCatalog.get(train).thing_classes)
    return cfg


def save(cfg: CfgNode, folder: Path) -> tuple[str, nn.Module]:
    model = build_model(cfg)
    checkpointer = DetectionCheckpointer(model, str(folder))
    checkpointer.notes = describe_run(cfg)
    checkpointer.save("old")
    return str(folder / "old.pth"), model


class Scores(DatasetEvaluator):
    def __init__(self, name: str) -> None:
        self._metadata = MetadataCatalog.get(name)

    def evaluate(self) -> dict[str, Any]:
        return {"scored": True}


def evaluate(model: nn.Module, name: str) -> Any:
    return inference_on_dataset(model, [], DatasetEvaluators([Scores(name)]))


def test_fine_tuning_keeps_the_rows_of_classes_that_both_have(
    tmp_path: Path, register: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    old_set, new_set = register(ABC), register(["fox", "emu", "gnu", "cat"])
    path, old = save(small_cfg(old_set, old_set), tmp_path)
    cfg = small_cfg(new_set, new_set)
    new = build_model(cfg)
    initial = {name: value.clone() for name, value in new.state_dict().items()}
    optimizer = torch.optim.SGD(new.parameters(), lr=0.1)
    DetectionCheckpointer(new, optimizer=optimizer).resume_or_load(path, resume=False)
    (message,) = [text for text in caplog.messages if "thing_classes" in text]
    assert "'fox', 'gnu'" in message and "'dog'" in message and "rows of emu, cat" in message

    ours, theirs = new.state_dict(), old.state_dict()
    for part in ("weight", "bias"):
        cls, box = f"roi_heads.box_predictor.cls_score.{part}", f"roi_heads.box_predictor.bbox_pred.{part}"
        expected = [initial[cls][0], theirs[cls][2], initial[cls][2], theirs[cls][0], theirs[cls][3]]
        assert torch.equal(ours[cls], torch.stack(expected))
        boxes = [initial[box][:4], theirs[box][8:12], initial[box][8:12], theirs[box][:4]]
        assert torch.equal(ours[box], torch.cat(boxes))
    assert torch.equal(ours["roi_heads.res5.0.conv1.weight"], theirs["roi_heads.res5.0.conv1.weight"])
    assert evaluate(new, new_set) == {"scored": True}


def test_resuming_and_classes_without_a_common_name_go_by_position(
    tmp_path: Path, register: Callable[..., str]
) -> None:
    old_set, renamed, turned = register(ABC), register(["gato", "perro", "avestruz"]), register(ABC[::-1])
    path, old = save(small_cfg(old_set, old_set), tmp_path)
    for train, resumes in ((renamed, False), (turned, True)):
        model = build_model(small_cfg(train, train))
        checkpointer = DetectionCheckpointer(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
        checkpointer.load(path, checkpointables=None if resumes else [])
        name = "roi_heads.box_predictor.cls_score.weight"
        assert torch.equal(model.state_dict()[name], old.state_dict()[name])


def test_fine_tuning_on_data_without_names_forgets_those_of_the_file(
    tmp_path: Path, register: Callable[..., str]
) -> None:
    old_set, new_set = register(ABC), register(["fox", "gnu", "yak"])
    path, _ = save(small_cfg(old_set, old_set), tmp_path)
    model = build_model(small_cfg(old_set, new_set))
    expect_classes(model, dict)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    DetectionCheckpointer(model, optimizer=optimizer).resume_or_load(path, resume=False)
    assert evaluate(model, new_set) == {"scored": True}


def test_evaluation_on_another_order_is_refused(tmp_path: Path, register: Callable[..., str]) -> None:
    same, turned, other, more = (
        register(ABC),
        register(["dog", "cat", "emu"]),
        register(["cat"]),
        register([*ABC, "fox"]),
    )
    path, _ = save(small_cfg(same, same), tmp_path)
    cfg = small_cfg(same, turned)
    model = build_model(cfg)
    DetectionCheckpointer(model).load(path)
    assert evaluate(model, same) == {"scored": True}
    with pytest.raises(ValueError, match=rf"{turned}.*old\.pth.*another order, class 0 is 'cat' .*'dog'"):
        evaluate(model, turned)
    with pytest.raises(ValueError, match="does not have 'dog', 'emu'"):
        evaluate(model, other)
    with pytest.raises(ValueError, match="does not know 'fox'"):
        evaluate(nn.parallel.DataParallel(model), more)
    cfg.TEST.CHECK_CLASS_NAMES = False
    model = build_model(cfg)
    DetectionCheckpointer(model).load(path)
    assert evaluate(model, turned) == {"scored": True}


def test_only_classes_that_the_model_predicts_are_compared(
    tmp_path: Path, register: Callable[..., str]
) -> None:
    trained, tested = register(ABC, ["sky", "sea"]), register(ABC, ["sea", "sky"])
    path, _ = save(small_cfg(trained, trained), tmp_path)
    model = build_model(small_cfg(trained, tested))
    DetectionCheckpointer(model).load(path)
    assert evaluate(model, tested) == {"scored": True}


def test_files_without_names_are_not_compared(tmp_path: Path, register: Callable[..., str]) -> None:
    trained, turned = register(ABC), register(ABC[::-1])
    path, old = save(small_cfg(trained, trained), tmp_path)
    model = build_model(small_cfg(turned, turned))
    checkpointer = DetectionCheckpointer(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    checkpointer.load(path)
    torch.save({"model": old.state_dict()}, tmp_path / "bare.pth")
    checkpointer.load(str(tmp_path / "bare.pth"), checkpointables=[])
    assert evaluate(model, turned) == {"scored": True}
    name = "roi_heads.box_predictor.cls_score.weight"
    assert torch.equal(model.state_dict()[name], old.state_dict()[name])


def test_a_checkpoint_names_the_classes_that_it_was_trained_on(
    tmp_path: Path, register: Callable[..., str]
) -> None:
    trained, tested = register(ABC), register(ABC[::-1])
    path, _ = save(small_cfg(trained, tested), tmp_path)
    notes = torch.load(path, weights_only=True)["detectron2"]
    assert notes["metadata"]["thing_classes"] == ABC


def test_test_sets_of_another_order_are_refused_before_training(
    register: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    cfg = small_cfg(register(ABC, ["sky", "sea"]), register(ABC[::-1], ["sea", "sky"]))
    for has_own_evaluators in (True, False):
        with pytest.raises(ValueError, match="other thing_classes than the training data: .*another order"):
            check_test_sets(cfg, has_own_evaluators)
    cfg.TEST.CHECK_CLASS_NAMES = False
    check_test_sets(cfg, has_own_evaluators=False)

    other = small_cfg(register(ABC, ["sky", "sea"]), register(["cat", "dog", "fox"], ["sea", "sky"]))
    with pytest.raises(ValueError, match="does not know 'fox' and the data set does not have 'emu'"):
        check_test_sets(other, has_own_evaluators=False)
    check_test_sets(other, has_own_evaluators=True)
    (message,) = [text for text in caplog.messages if "other thing_classes" in text]
    assert "'fox'" in message


def test_training_sets_that_disagree_leave_classes_unknown(
    tmp_path: Path, register: Callable[..., str]
) -> None:
    first, second = register(ABC), register(["cat", "fox", "gnu"])
    cfg = small_cfg(first, second)
    cfg.DATASETS.TRAIN = (first, second)
    path, _ = save(cfg, tmp_path)
    assert torch.load(path, weights_only=True)["detectron2"]["metadata"]["thing_classes"] == ABC
    model = build_model(cfg)
    DetectionCheckpointer(model).load(path)
    assert evaluate(model, second) == {"scored": True}
    check_test_sets(cfg, has_own_evaluators=False)


def test_a_predictor_says_that_the_data_set_names_classes_otherwise(
    tmp_path: Path, register: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    trained, turned = register(ABC), register(ABC[::-1])
    path, _ = save(small_cfg(trained, trained), tmp_path)
    for test, warns in ((trained, False), (turned, True)):
        caplog.clear()
        cfg = small_cfg(trained, test)
        cfg.MODEL.WEIGHTS = path
        DefaultPredictor(cfg)
        assert any("another order, class 0 is 'cat'" in message for message in caplog.messages) is warns
    caplog.clear()
    names = load_metadata(path)
    assert DefaultPredictor(cfg, metadata=names).metadata is names  # whoever draws these needs no warning
    assert not any("another order" in message for message in caplog.messages)
