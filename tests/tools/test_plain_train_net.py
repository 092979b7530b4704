"""tools/plain_train_net.py as it is called from a shell, on a small model and a few small scenes."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from detectron2.data.datasets.shapes import write_shapes
from tests.engine.tiny import TinyModel, make_samples

SETTINGS = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "SOLVER.IMS_PER_BATCH": "2",
    "SOLVER.MAX_ITER": "3",
    "SOLVER.BASE_LR": "0.005",
    "SOLVER.WARMUP_ITERS": "1",
    "SOLVER.CHECKPOINT_PERIOD": "2",
    "TEST.EVAL_PERIOD": "2",
    "INPUT.MIN_SIZE_TRAIN": "(64,)",
    "INPUT.MIN_SIZE_TEST": "64",
    "SEED": "1",
}


Run = Callable[..., int]


@pytest.fixture
def run(repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the tool in this process; gives the exit status."""
    for split, count in (("train", 4), ("val", 2)):
        write_shapes(split, count, root=tmp_path, image_size=(64, 80))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    script = str(repo_root / "tools" / "plain_train_net.py")
    config = str(repo_root / "configs" / "Quickstart" / "panoptic_fpn_R2_shapes.yaml")

    def run(*options: str, **changed: str) -> int:
        settings = {**SETTINGS, "OUTPUT_DIR": str(tmp_path / "out")}
        settings.update({key.replace("__", "."): value for key, value in changed.items()})
        pairs = [text for pair in settings.items() for text in pair]
        command = [script, "--config-file", config, "--num-gpus", "0", *options, *pairs]
        monkeypatch.setattr(sys, "argv", command)
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run


def iterations(folder: Path) -> list[int]:
    lines = (folder / "metrics.json").read_text().splitlines()
    return [line["iteration"] for line in map(json.loads, lines) if "total_loss" in line]


def test_train_resume_and_evaluate(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run() == 0
    assert iterations(out) == [2]
    assert (out / "model_0000001.pth").is_file()
    log = (out / "log.txt").read_text()
    assert log.count("Results of shapes_panoptic_val") == 2
    scores = [line for line in capsys.readouterr().out.splitlines() if "copypaste" in line][-1]

    assert (
        run("--eval-only", MODEL__WEIGHTS=str(out / "model_final.pth"), OUTPUT_DIR=str(tmp_path / "eval"))
        == 0
    )
    assert scores.partition("copypaste")[2] in capsys.readouterr().out

    assert run("--resume", SOLVER__MAX_ITER="5", TEST__EVAL_PERIOD="0") == 0
    assert iterations(out) == [2, 4]
    assert "Training from iteration 3 to 5" in (out / "log.txt").read_text()


def test_old_checkpoints_go_those_of_before_resuming_too(run: Run, tmp_path: Path) -> None:
    changed = {"TEST__EVAL_PERIOD": "0", "DATASETS__TEST": "()", "SOLVER__CHECKPOINT_PERIOD": "1"}
    assert run(SOLVER__CHECKPOINT_KEEP="3", **changed) == 0
    assert run("--resume", SOLVER__CHECKPOINT_KEEP="2", SOLVER__MAX_ITER="4", **changed) == 0
    kept = sorted(path.stem for path in (tmp_path / "out").glob("*.pth"))
    assert kept == ["model_0000002", "model_0000003", "model_final"]


def test_a_period_of_0_saves_at_the_end_only(run: Run, tmp_path: Path) -> None:
    assert run(SOLVER__MAX_ITER="1", DATASETS__TEST="()", SOLVER__CHECKPOINT_PERIOD="0") == 0
    assert [path.stem for path in (tmp_path / "out").glob("*.pth")] == ["model_final"]


def test_mistakes_are_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(SOLVER__MAX_ITERS="3") == 2
    assert "SOLVER.MAX_ITER" in capsys.readouterr().err
    assert run(SOLVER__BASE_LR="1e30", SOLVER__CLIP_GRADIENTS__ENABLED="False") == 2
    assert "Lower SOLVER.BASE_LR" in capsys.readouterr().err


def test_a_non_finite_loss_in_one_process_stops_all(repo_root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["tests/tools/plain_train_worker.py", str(repo_root / "tools" / "plain_train_net.py")]
    env = {**os.environ, "PYTHONPATH": str(repo_root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(tmp_path)],
        cwd=repo_root,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert "not finite in process 1" in first["error"]
    assert first == second
    model, samples = TinyModel(), make_samples(8)[:4]
    assert first["losses"][0]["loss_fit"] == pytest.approx(model(samples)["loss_fit"].item())
