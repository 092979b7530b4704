"""Saving, resuming, and loading weights of every origin."""

from __future__ import annotations

import logging
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from fvcore.common.checkpoint import Checkpointer
from torch import Tensor, nn

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling.backbone import build_backbone
from detectron2.utils import comm

from .foreign import backbone_cfg, torchvision_name

RES2NET_FPN = "build_res2net_fpn_backbone"


class Detector(nn.Module):
    """A backbone and a head, named as in a real detector."""

    def __init__(self, cfg: CfgNode, num_classes: int = 3) -> None:
        super().__init__()
        self.backbone = build_backbone(cfg)
        self.head = nn.Linear(8, num_classes)


def make_model(seed: int = 0, width: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(OrderedDict(first=nn.Linear(2, width), norm=nn.BatchNorm1d(width)))


def assert_equal_weights(a: nn.Module, b: nn.Module) -> None:
    ours, theirs = a.state_dict(), b.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def backbone_file(cfg: CfgNode, path: Path) -> dict[str, Tensor]:
    """Write a backbone as torchvision would, and return it in our names."""
    torch.manual_seed(1)
    ours = build_backbone(cfg).state_dict()
    theirs = {torchvision_name(name): value for name, value in ours.items()}
    torch.save(theirs | {"fc.weight": torch.zeros(5, 128), "fc.bias": torch.zeros(5)}, path)
    return {name: value for name, value in ours.items() if not name.endswith("num_batches_tracked")}


def test_it_is_a_checkpointer_of_fvcore() -> None:
    assert isinstance(DetectionCheckpointer(make_model()), Checkpointer)


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.rand(5, 2)).sum().backward()
    optimizer.step()
    writer = DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer)
    writer.save("model_0000004", iteration=4, best=np.float64(0.5))
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000004.pth"]

    other = make_model(seed=1)
    other_optimizer = torch.optim.SGD(other.parameters(), lr=0.3, momentum=0.9)
    reader = DetectionCheckpointer(other, str(tmp_path), optimizer=other_optimizer)
    assert reader.has_checkpoint()
    assert reader.get_checkpoint_file() == str(tmp_path / "model_0000004.pth")
    rest = reader.resume_or_load("not used", resume=True)
    assert (rest["iteration"], rest["best"]) == (4, 0.5)
    assert_equal_weights(other, model)
    assert other_optimizer.param_groups[0]["lr"] == 0.1
    momentum = other_optimizer.state[other.first.weight]["momentum_buffer"]
    assert torch.equal(momentum, optimizer.state[model.first.weight]["momentum_buffer"])


def test_without_resuming_only_weights_are_loaded(tmp_path: Path) -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer).save("a")
    other_optimizer = torch.optim.SGD(make_model().parameters(), lr=0.3)
    reader = DetectionCheckpointer(make_model(1), str(tmp_path / "other"), optimizer=other_optimizer)
    assert not reader.has_checkpoint()
    assert reader.get_checkpoint_file() == ""
    reader.resume_or_load(str(tmp_path / "a.pth"), resume=True)  # nothing to resume from here
    assert_equal_weights(reader.model, model)
    assert other_optimizer.param_groups[0]["lr"] == 0.3


def test_no_path_loads_nothing() -> None:
    assert DetectionCheckpointer(make_model()).load("") == {}


@pytest.mark.parametrize("save_to_disk", [True, False])
def test_nothing_is_written_where_it_should_not(tmp_path: Path, save_to_disk: bool) -> None:
    DetectionCheckpointer(
        make_model(), str(tmp_path) if not save_to_disk else "", save_to_disk=save_to_disk
    ).save("a")
    assert os.listdir(tmp_path) == []


def test_a_name_with_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without folders"):
        DetectionCheckpointer(make_model(), str(tmp_path)).save("a/b")


def test_a_save_that_fails_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpointer = DetectionCheckpointer(make_model(), str(tmp_path))
    checkpointer.save("model", iteration=1)
    before = (tmp_path / "model.pth").read_bytes()

    def write_half(data: object, file) -> None:
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(OSError, match="No space left"):
        checkpointer.save("model", iteration=2)
    assert (tmp_path / "model.pth").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model.pth"]


@pytest.mark.parametrize("content", ["cut", "empty", "text"])
def test_a_broken_last_checkpoint_names_the_one_before(tmp_path: Path, content: str) -> None:
    checkpointer = DetectionCheckpointer(make_model(), str(tmp_path))
    checkpointer.save("model_1")
    checkpointer.save("model_2")
    last = tmp_path / "model_2.pth"
    whole = last.read_bytes()
    last.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"not a checkpoint"}[content])
    message = r"model_2\.pth .*previous checkpoint is .*/model_1\.pth: to go on from it, write model_1\.pth"
    with pytest.raises(ValueError, match=message):
        checkpointer.resume_or_load("", resume=True)


def test_a_missing_last_checkpoint_names_the_one_before(tmp_path: Path) -> None:
    checkpointer = DetectionCheckpointer(make_model(), str(tmp_path))
    checkpointer.save("model_1")
    checkpointer.tag_last_checkpoint("model_2.pth")
    with pytest.raises(
        FileNotFoundError, match=r"no checkpoint .*model_2\.pth.*previous checkpoint is .*model_1\.pth"
    ):
        checkpointer.resume_or_load("", resume=True)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint /nowhere/weights.pth"):
        DetectionCheckpointer(make_model()).load("/nowhere/weights.pth")


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_are_taken_off(tmp_path: Path, key: str | None, prefix: str) -> None:
    model = make_model()
    state = {prefix + name: value for name, value in model.state_dict().items()}
    torch.save({key: state} if key else state, tmp_path / "a.pth")
    other = make_model(1)
    DetectionCheckpointer(other).load(str(tmp_path / "a.pth"))
    assert_equal_weights(other, model)


@pytest.mark.parametrize("suffix", [".pkl", ".safetensors", ".pth"])
def test_every_format_loads(tmp_path: Path, suffix: str) -> None:
    model = make_model()
    path = tmp_path / f"a{suffix}"
    state = model.state_dict()
    if suffix == ".pkl":
        arrays = {name: value.numpy() for name, value in state.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "somebody"}))
    elif suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=False)  # as published before 2020
    other = make_model(1)
    DetectionCheckpointer(other).load(str(path))
    assert_equal_weights(other, model)


def test_report_is_one_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = make_model().state_dict()
    state["first.weight"] = torch.zeros(7, 2)
    state["extra.weight"] = torch.zeros(1)
    state["extra.num_batches_tracked"] = torch.zeros(1)
    del state["norm.weight"], state["norm.bias"]
    torch.save({"model": state}, tmp_path / "a.pth")
    model = make_model(1)
    before = model.first.weight.clone()
    DetectionCheckpointer(model).load(str(tmp_path / "a.pth"))
    assert torch.equal(model.first.weight, before)
    record = caplog.records[-1]
    assert record.levelno == logging.WARNING
    text = record.getMessage()
    assert text.startswith("matched 3 of 5 tensors, skipped: nothing\n")
    assert "norm.{bias, weight}" in text
    assert "extra.weight" in text
    assert "first.weight (7, 2) -> (4, 2)" in text
    assert "num_batches_tracked" not in text


def test_weights_of_something_else_are_an_error(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: none of the 1 tensors .*encoder\.weight.*first\.weight"):
        DetectionCheckpointer(make_model()).load(str(tmp_path / "a.pth"))
    torch.save(make_model(width=9).state_dict(), tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"first\.weight, for one, has shape \(9, 2\) instead of \(4, 2\)"):
        DetectionCheckpointer(make_model()).load(str(tmp_path / "b.pth"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "must hold a dict of tensors, it holds a list"),
        ({"model": {"a": "text"}}, "a str at 'a'"),
        ({"model": {1: torch.zeros(1)}}, "at 1"),
    ],
)
def test_files_without_weights_are_an_error(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        DetectionCheckpointer(make_model()).load(str(tmp_path / "a.pth"))


class _RunsCode:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_no_file_runs_code(tmp_path: Path, suffix: str) -> None:
    path, marker = tmp_path / f"a{suffix}", tmp_path / "was_run"
    data = {"model": make_model().state_dict() if suffix == ".pth" else {}, "note": _RunsCode(marker)}
    if suffix == ".pth":
        torch.save(data, path)
    else:
        path.write_bytes(pickle.dumps(data))
    with pytest.raises(ValueError, match=r"(posix|nt)\.system"):
        DetectionCheckpointer(make_model()).load(str(path))
    assert not marker.exists()


def test_weights_shared_by_two_modules_are_not_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = nn.Module()
    model.a = nn.Linear(2, 2)
    model.b = model.a
    torch.save({"a.weight": torch.ones(2, 2), "a.bias": torch.ones(2)}, tmp_path / "a.pth")
    with caplog.at_level(logging.INFO):
        DetectionCheckpointer(model).load(str(tmp_path / "a.pth"))
    assert caplog.records[-1].getMessage() == "matched 2 of 2 tensors, skipped: nothing"


@pytest.mark.parametrize("is_flagged", [True, False])
def test_backbone_alone_finds_its_place_in_a_detector(tmp_path: Path, is_flagged: bool) -> None:
    cfg = backbone_cfg(RES2NET_FPN)
    torch.manual_seed(1)
    bottom_up = build_backbone(cfg).bottom_up
    notes = {"matching_heuristics": True} if is_flagged else {}
    torch.save({"model": bottom_up.state_dict()} | notes, tmp_path / "a.pth")
    detector = Detector(cfg)
    DetectionCheckpointer(detector).load(str(tmp_path / "a.pth"))
    assert_equal_weights(detector.backbone.bottom_up, bottom_up)


def test_a_query_asks_for_matching_by_endings(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(4, 2), "norm.bias": torch.ones(4)}, tmp_path / "a.pth")
    model = nn.Module()
    model.inner = nn.Module()
    model.inner.weight = nn.Parameter(torch.zeros(4, 2))
    model.norm = nn.BatchNorm1d(4, affine=True)
    del model.norm.weight
    model.norm.register_parameter("weight", None)
    DetectionCheckpointer(model).load(f"{tmp_path / 'a.pth'}?matching_heuristics=True")
    assert model.inner.weight.sum() == 8
    assert model.norm.bias.sum() == 4


@pytest.mark.parametrize("name", [RES2NET_FPN, "build_resnet_fpn_backbone"])
def test_files_of_torchvision_and_timm_load_directly(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = backbone_cfg(name)
    cfg_alone = backbone_cfg(name.replace("_fpn", ""))
    expected = backbone_file(cfg_alone, tmp_path / "a.pth")
    detector = Detector(cfg)
    with caplog.at_level(logging.INFO):
        DetectionCheckpointer(detector).load(str(tmp_path / "a.pth"))
    loaded = detector.backbone.bottom_up.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in expected.items())
    record = caplog.records[-1]
    n = len(expected)
    assert record.getMessage().startswith(f"matched {n} of {n} tensors, skipped: fc.{{bias, weight}}\n")
    assert record.levelno == logging.INFO


@pytest.mark.parametrize("keys", [{"SCALE": 2}, {"WIDTH_PER_GROUP": 2}])
def test_res2net_of_other_width_or_scale_names_both_keys(tmp_path: Path, keys: dict[str, int]) -> None:
    backbone_file(backbone_cfg("build_res2net_backbone", **keys), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="RES2NET") as error:
        DetectionCheckpointer(Detector(backbone_cfg(RES2NET_FPN))).load(str(tmp_path / "a.pth"))
    assert f"MODEL.RES2NET.SCALE to {keys.get('SCALE', 4)}" in str(error.value)
    assert f"MODEL.RESNETS.WIDTH_PER_GROUP to {keys.get('WIDTH_PER_GROUP', 4)}" in str(error.value)


def test_res2net_for_a_resnet_names_the_backbone(tmp_path: Path) -> None:
    backbone_file(backbone_cfg("build_res2net_backbone"), tmp_path / "a.pth")
    detector = Detector(backbone_cfg("build_resnet_fpn_backbone"))
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    with pytest.raises(ValueError, match=r"MODEL\.BACKBONE\.NAME to a build_res2net_\* backbone"):
        DetectionCheckpointer(detector).load(str(tmp_path / "a.pth"))
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


def test_other_number_of_classes_leaves_the_head_as_it_is(tmp_path: Path) -> None:
    cfg = backbone_cfg(RES2NET_FPN)
    torch.save({"model": Detector(cfg, num_classes=80).state_dict()}, tmp_path / "a.pth")
    detector = Detector(cfg, num_classes=3)
    before = detector.head.weight.clone()
    DetectionCheckpointer(detector).load(str(tmp_path / "a.pth"))
    assert torch.equal(detector.head.weight, before)


def test_caffe2_backbone_without_statistics_fills_frozen_norms(tmp_path: Path) -> None:
    cfg = backbone_cfg("build_resnet_fpn_backbone", NORM="FrozenBN")
    detector = Detector(cfg)
    stem = detector.backbone.bottom_up.stem
    blobs = {
        "conv1_w": np.ones((8, 3, 7, 7), np.float32),
        "conv1_w_momentum": np.ones(1, np.float32),
        "res_conv1_bn_s": np.full(8, 2, np.float32),
        "res_conv1_bn_b": np.full(8, 3, np.float32),
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    DetectionCheckpointer(detector).load(str(tmp_path / "a.pkl"))
    assert stem.conv1.weight.mean() == 1
    assert stem.conv1.norm.weight.tolist() == [2.0] * 8
    assert stem.conv1.norm.running_mean.tolist() == [0.0] * 8
    assert stem.conv1.norm.running_var.tolist() == pytest.approx([1.0] * 8, abs=1e-4)


def test_real_imagenet_weights_load_but_for_the_classifier(
    shared_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = backbone_cfg(
        "build_resnet_fpn_backbone", WIDTH_PER_GROUP=64, STEM_OUT_CHANNELS=64, RES2_OUT_CHANNELS=256
    )
    path = shared_dir / "real" / "weights" / "resnet50_msra_torchvision_fp16.pth"
    with caplog.at_level(logging.INFO):
        DetectionCheckpointer(Detector(cfg)).load(str(path))
    text = caplog.records[-1].getMessage()
    assert text.startswith("matched 265 of 265 tensors, skipped: fc.{bias, weight}\n")
    assert "not in the model" not in text


def test_a_process_that_does_not_see_the_file_gets_it_from_one_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    DetectionCheckpointer(model, str(tmp_path)).save("a", iteration=3)
    whole = torch.load(tmp_path / "a.pth", weights_only=True)
    answers = iter([[True, False], [whole, None]])
    monkeypatch.setattr(comm, "get_rank", lambda: 1)
    monkeypatch.setattr(comm, "all_gather", lambda _: next(answers))
    other = make_model(1)
    assert DetectionCheckpointer(other).load("/only/on/the/first/machine.pth")["iteration"] == 3
    assert_equal_weights(other, model)
