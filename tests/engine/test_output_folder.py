"""A run that starts anew leaves the files of an earlier one as they are."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_argument_parser, default_setup
from detectron2.engine.defaults import output_folder
from detectron2.utils import comm

from .test_setup import _keep_global_state as _keep_global_state  # a fixture for every test

TRACES = ["metrics.json", "last_checkpoint", "model_final.pth", "model_0004999.pth"]


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_folder, "_folders_of_this_process", set())


def make_cfg(folder: Path) -> CfgNode:
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(folder)
    cfg.freeze()
    return cfg


def set_up(cfg: CfgNode, *words: str) -> str:
    default_setup(cfg, default_argument_parser().parse_args(words))
    return cfg.OUTPUT_DIR


@pytest.mark.parametrize("trace", TRACES)
def test_a_new_run_goes_to_the_next_free_folder(tmp_path: Path, trace: str) -> None:
    used = tmp_path / "out"
    used.mkdir()
    for name in (trace, "config.yaml", "log.txt"):
        (used / name).write_text("of the earlier run")
    cfg = make_cfg(used)
    assert set_up(cfg) == f"{used}_2"
    assert cfg.is_frozen()
    log = (tmp_path / "out_2" / "log.txt").read_text().splitlines()
    (message,) = [line for line in log if "holds an earlier run" in line]
    assert trace in message and f"{used}_2" in message and "--resume" in message
    assert {path.name: path.read_text() for path in used.iterdir()} == dict.fromkeys(
        (trace, "config.yaml", "log.txt"), "of the earlier run"
    )
    assert f"OUTPUT_DIR: {used}_2" in (tmp_path / "out_2" / "config.yaml").read_text()


def test_folders_in_use_are_passed_over(tmp_path: Path) -> None:
    for name in ("out", "out_2", "out_3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text("{}")
    (tmp_path / "out_4").mkdir()  # a run that never started
    assert set_up(make_cfg(tmp_path / "out")) == str(tmp_path / "out_4")


@pytest.mark.parametrize("words", [["--resume"], ["--eval-only"], ["--eval-only", "--resume"]])
def test_resuming_and_evaluating_stay_in_the_folder(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    assert set_up(make_cfg(tmp_path), *words) == str(tmp_path)


def test_a_script_without_the_flag_stays_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    cfg = make_cfg(tmp_path)
    default_setup(cfg, argparse.Namespace())
    assert str(tmp_path) == cfg.OUTPUT_DIR


def test_evaluating_keeps_the_config_of_the_training(tmp_path: Path) -> None:
    set_up(make_cfg(tmp_path))
    text = (tmp_path / "config.yaml").read_text()
    cfg = make_cfg(tmp_path).clone()
    cfg.defrost()
    cfg.TEST.DETECTIONS_PER_IMAGE = 7
    set_up(cfg, "--eval-only")
    assert (tmp_path / "config.yaml").read_text() == text
    assert "DETECTIONS_PER_IMAGE: 7" in (tmp_path / "log.txt").read_text()


def test_one_process_may_prepare_its_folder_again(tmp_path: Path) -> None:
    for _ in range(2):
        assert set_up(make_cfg(tmp_path)) == str(tmp_path)
        (tmp_path / "model_final.pth").write_text("written by this process")


def test_the_next_folder_stays_that_of_the_process(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text("of the earlier run")
    for _ in range(2):
        assert set_up(make_cfg(tmp_path / "out")) == str(tmp_path / "out_2")
        (tmp_path / "out_2" / "metrics.json").write_text("written by this process")


@pytest.mark.parametrize("words", ["--eval-only", "--resume"])
def test_a_run_that_was_looked_at_is_not_written_over(tmp_path: Path, words: str) -> None:
    used = tmp_path / "out"
    used.mkdir()
    (used / "model_final.pth").write_text("of the earlier run")
    assert set_up(make_cfg(used), words) == str(used)
    assert set_up(make_cfg(used)) == f"{used}_2"


@pytest.mark.parametrize("folder", [".", "./"])
def test_the_working_folder_has_a_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    (tmp_path / "run" / "metrics.json").write_text("{}")
    assert output_folder.choose_output_folder(folder, starts_anew=True) == str(tmp_path / "run_2")


def test_lazy_configs_follow(tmp_path: Path) -> None:
    (tmp_path / "last_checkpoint").write_text("x")
    cfg = OmegaConf.create(
        {"train": {"output_dir": str(tmp_path)}, "evaluator": {"dir": "${train.output_dir}/x"}}
    )
    default_setup(cfg, argparse.Namespace(resume=False, eval_only=False))
    assert cfg.evaluator.dir == f"{tmp_path}_2/x"


def test_other_processes_follow_the_main_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "last_checkpoint").write_text("x")
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    monkeypatch.setattr(comm, "all_gather", lambda data: ["chosen by the main process", data])
    assert output_folder.choose_output_folder(str(tmp_path), starts_anew=True) == "chosen by the main process"


def test_two_processes_of_the_tool_write_two_folders(tmp_path: Path) -> None:
    program = f"""
import json, sys
from detectron2.config import get_cfg
from detectron2.engine import default_argument_parser, default_setup, default_writers
from detectron2.utils.events import EventStorage
cfg = get_cfg()
cfg.OUTPUT_DIR = {str(tmp_path / "out")!r}
default_setup(cfg, default_argument_parser().parse_args(sys.argv[1:]))
with EventStorage() as storage:
    storage.put_scalar("loss", 1.0)
    for writer in default_writers(cfg.OUTPUT_DIR, 1):
        writer.write()
"""
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    for name in ("out", "out_2"):
        (line,) = (tmp_path / name / "metrics.json").read_text().splitlines()
        assert json.loads(line)["loss"] == 1.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out_2"]
