"""The converter: files in, files and a config out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.convert_file import convert_file, describe_conversion, suggest_config
from detectron2.checkpoint.reading import read_checkpoint_file
from detectron2.config import get_cfg
from detectron2.modeling.backbone import build_backbone

from .foreign import STAGES, backbone_cfg, torchvision_name


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small Res2Net v1b under timm's names, some of it in half precision."""
    torch.manual_seed(0)
    weights = build_backbone(backbone_cfg("build_res2net_backbone", SCALE=2, NUM_GROUPS=2)).state_dict()
    theirs = {torchvision_name(name): value for name, value in weights.items()}
    theirs["layer1.0.conv1.weight"] = theirs["layer1.0.conv1.weight"].half()
    torch.save(theirs | {"fc.weight": torch.zeros(2, 2)}, tmp_path / "in.pth")
    return tmp_path / "in.pth"


@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".safetensors"])
def test_every_output_format_loads_into_a_detector(source: Path, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / "new" / f"out{suffix}"
    converted = convert_file(str(source), str(target))
    read = read_checkpoint_file(str(target))
    assert read["matching_heuristics"] is True
    assert set(read["model"]) == set(converted.weights)
    for name, value in converted.weights.items():
        assert torch.equal(torch.as_tensor(read["model"][name]), value)
        assert value.dtype == torch.float32
    model = build_backbone(backbone_cfg("build_res2net_fpn_backbone", SCALE=2, NUM_GROUPS=2))
    DetectionCheckpointer(model).load(str(target))
    loaded = model.bottom_up.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in converted.weights.items())


def test_suggested_config_builds_the_architecture(source: Path, tmp_path: Path) -> None:
    target = str(tmp_path / "out.pth")
    converted = convert_file(str(source), target)
    cfg = get_cfg()
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = STAGES
    (tmp_path / "a.yaml").write_text(suggest_config(converted.layout, target))
    cfg.merge_from_file(str(tmp_path / "a.yaml"))
    assert cfg.INPUT.FORMAT == "RGB"
    assert cfg.MODEL.PIXEL_MEAN == [123.675, 116.28, 103.53]
    assert cfg.MODEL.PIXEL_STD == [58.395, 57.12, 57.375]
    assert cfg.MODEL.RESNETS.STRIDE_IN_1X1 is False
    assert cfg.MODEL.WEIGHTS == target
    DetectionCheckpointer(build_backbone(cfg)).load(cfg.MODEL.WEIGHTS)


def test_weights_out_of_caffe_get_its_input_format(source: Path, tmp_path: Path) -> None:
    converted = convert_file(str(source), str(tmp_path / "out.pth"))
    tree = yaml.safe_load(suggest_config(converted.layout, "out.pth", is_caffe=True))
    assert tree["INPUT"]["FORMAT"] == "BGR"
    assert tree["MODEL"]["PIXEL_STD"] == [1.0, 1.0, 1.0]
    assert tree["MODEL"]["RESNETS"]["STRIDE_IN_1X1"] is True


def test_description_says_what_was_dropped_and_that_names_hide_the_flavour(
    source: Path, tmp_path: Path
) -> None:
    target = str(tmp_path / "out.pth")
    text = describe_conversion(convert_file(str(source), target), target)
    assert text.startswith("Res2Net-2x1x1x1 (2 groups of width 4, scale 2): ")
    assert "dropped: fc.weight (and " in text
    assert "Names do not tell the flavour" in text
    assert yaml.safe_load(text.split("\n\n", 1)[1])["MODEL"]["RES2NET"]["SCALE"] == 2


@pytest.mark.parametrize(
    ("source_name", "target_name", "error", "message"),
    [
        ("in.pth", "out.onnx", ValueError, r"must end in one of \.pkl, \.pth, \.safetensors"),
        ("absent.pth", "out.pkl", FileNotFoundError, "no file .*absent.pth"),
        ("other.pth", "out.pkl", ValueError, r"other\.pth: .*no backbone that is known"),
        ("list.pth", "out.pkl", ValueError, "must hold a dict of tensors"),
        ("mixed.pth", "out.pkl", ValueError, r"these are none: \['epoch'\]"),
    ],
)
def test_impossible_conversions_are_named(
    source: Path, tmp_path: Path, source_name: str, target_name: str, error: type, message: str
) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save([1], tmp_path / "list.pth")
    torch.save({"weight": torch.zeros(1), "epoch": 3}, tmp_path / "mixed.pth")
    with pytest.raises(error, match=message):
        convert_file(str(tmp_path / source_name), str(tmp_path / target_name))
    assert not (tmp_path / target_name).exists()


def test_the_tool_prints_the_config_and_fails_with_a_sentence(
    source: Path, tmp_path: Path, repo_root: Path
) -> None:
    tool = [sys.executable, str(repo_root / "tools" / "convert-torchvision-to-d2.py")]
    good, bad = str(tmp_path / "out.safetensors"), str(tmp_path / "absent.pth")
    done = subprocess.run(
        [*tool, str(source), good], capture_output=True, text=True, check=False, cwd=repo_root
    )
    assert done.returncode == 0, done.stderr
    assert "SCALE: 2" in done.stdout
    assert Path(good).exists()
    done = subprocess.run([*tool, bad, good], capture_output=True, text=True, check=False, cwd=repo_root)
    assert (done.returncode, done.stderr) == (1, f"error: there is no file {bad}\n")
