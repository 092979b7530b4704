"""A project outside the package registers its parts, trains, evaluates and predicts, as published ones do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

PROJECT = Path(__file__).with_name("plugin_project")


def run_project(tmp_path: Path, repo_root: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error::DeprecationWarning:plugin", str(PROJECT / "train_net.py")]
    command += ["--config-file", str(PROJECT / "striped.yaml"), *args, "OUTPUT_DIR", str(tmp_path / "out")]
    env = os.environ | {"PYTHONPATH": str(repo_root), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, check=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "out").mkdir()
    done = run_project(folder, repo_root)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder, done.stdout


def test_project_trains_evaluates_and_predicts_from_its_checkpoint(trained: tuple[Path, str]) -> None:
    folder, output = trained
    assert output.splitlines()[-1] == "True ['light', 'lamp']"
    lines = [json.loads(line) for line in (folder / "out" / "metrics.json").read_text().splitlines()]
    assert lines[-1]["counts/images"] == 4
    assert lines[0]["plugin/num_boxes"] > 0
    assert {"loss_small_scores", "loss_box_reg", "loss_rpn_cls"} <= lines[0].keys()


def test_project_evaluates_its_checkpoint(trained: tuple[Path, str], repo_root: Path) -> None:
    folder, _ = trained
    done = run_project(
        folder, repo_root, "--eval-only", "MODEL.WEIGHTS", str(folder / "out" / "model_final.pth"),
        "TEST.EXPECTED_RESULTS", "[['counts', 'images', 4, 0.1]]",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout


# The first release's spelling of key and backbone.
OLD_CONFIG = "MODEL: {BACKBONE: {NAME: build_striped}, STRIPED: {WIDTH: 4, OUT_FEATURES: [s4, s8]}}"


def foreign_weights(channels: int) -> dict[str, Tensor]:
    """The plug-in's backbone under the names of its authors, every tensor of a value of its own."""
    shapes: dict[str, tuple[int, ...]] = {
        "entry.conv.weight": (channels, 3, 3, 3),
        "quarter.conv.weight": (channels, channels, 3, 3),
        "eighth.weight": (2 * channels, channels, 3, 3),
        "eighth.bias": (2 * channels,),
    }
    for norm in ("entry.bn", "quarter.bn"):
        shapes |= {
            f"{norm}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")
        }
    return {name: torch.full(shape, index + 1.0) for index, (name, shape) in enumerate(shapes.items())}


def run_script(script: Path, tmp_path: Path, repo_root: Path, *args: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(repo_root), str(PROJECT)])
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *args]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, check=False)


def load_weights(
    tmp_path: Path, repo_root: Path, weights: dict[str, Tensor], *opts: str
) -> subprocess.CompletedProcess[str]:
    torch.save(weights, tmp_path / "weights.pth")
    (tmp_path / "old.yaml").write_text(OLD_CONFIG)
    return run_script(PROJECT / "load_weights.py", tmp_path, repo_root, "old.yaml", "weights.pth", *opts)


@pytest.mark.parametrize("name", ["build_striped_backbone", "build_striped_fpn_backbone"])
def test_old_key_and_foreign_names_of_the_plugin_are_understood(
    tmp_path: Path, repo_root: Path, name: str
) -> None:
    weights = foreign_weights(4)
    pyramid = ["MODEL.FPN.IN_FEATURES", "['s4','s8']", "MODEL.FPN.OUT_CHANNELS", "8"]
    # The file says the old name, which the old key in it lets be read as the new one.
    opts = ["MODEL.BACKBONE.NAME", name, *pyramid] if "fpn" in name else []
    done = load_weights(tmp_path, repo_root, weights, *opts)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["channels"] == 4
    assert found["name"] == name
    prefix = "bottom_up." if "fpn" in name else ""
    for ours, theirs in (("stem.weight", "entry.conv.weight"), ("s4.norm.bias", "quarter.bn.bias")):
        assert found["sums"][prefix + ours] == weights[theirs].sum().item()


def test_weights_of_another_width_are_refused_with_the_key_to_change(tmp_path: Path, repo_root: Path) -> None:
    done = load_weights(tmp_path, repo_root, foreign_weights(6))
    assert done.returncode == 2
    assert "of a striped backbone of 6 channels" in done.stderr
    assert "set MODEL.STRIPED.CHANNELS to 6" in done.stderr


def test_missing_and_unknown_tensors_of_the_plugin_are_listed(tmp_path: Path, repo_root: Path) -> None:
    weights = foreign_weights(4)
    weights["extra.weight"] = weights.pop("quarter.bn.bias")
    done = load_weights(tmp_path, repo_root, weights)
    assert done.returncode == 2
    assert "1 unknown tensors: extra.weight; 1 missing tensors: s4.norm.bias" in done.stderr


def test_the_plugin_and_the_families_of_the_package_tell_each_other_apart(
    tmp_path: Path, repo_root: Path
) -> None:
    ours = foreign_weights(4)
    names = {"entry.conv": "stem", "entry.bn": "stem.norm", "eighth": "s8"}
    own = {
        f"{names[part]}.{leaf}": v
        for k, v in ours.items()
        for part, _, leaf in [k.rpartition(".")]
        if part in names
    }
    done = load_weights(tmp_path, repo_root, own, "MODEL.BACKBONE.NAME", "build_resnet_backbone")
    assert done.returncode == 2
    assert "config describes a ResNet-" in done.stderr
    assert "set MODEL.BACKBONE.NAME to a build_striped_* backbone" in done.stderr


def test_the_converter_knows_the_plugin(tmp_path: Path, repo_root: Path) -> None:
    torch.save(foreign_weights(4), tmp_path / "in.pth")
    tool = repo_root / "tools" / "convert-torchvision-to-d2.py"
    done = run_script(tool, tmp_path, repo_root, "in.pth", "out.safetensors", "--import", "plugin")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("striped backbone of 4 channels: 12 tensors written to out.safetensors")
    tree = yaml.safe_load(done.stdout.split("\n\n", 1)[1])
    assert tree["MODEL"]["STRIPED"] == {"CHANNELS": 4}
    assert tree["MODEL"]["BACKBONE"]["NAME"] == "build_striped_fpn_backbone"
    assert "RESNETS" not in tree["MODEL"]
