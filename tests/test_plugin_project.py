"""A project outside the package registers its parts, trains, evaluates and predicts, as published ones do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
