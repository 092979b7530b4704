"""tools/train_net.py as it is called from a shell, on a small model and a few small scenes."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detectron2.data.datasets.shapes import write_shapes

CONFIG = "configs/Quickstart/panoptic_fpn_R2_shapes.yaml"
# Without what makes a step random: the weights that a step leads to can then be compared between runs.
SEMANTIC = [
    "MODEL.META_ARCHITECTURE",
    "SemanticSegmentor",
    "SOLVER.CLIP_GRADIENTS.ENABLED",
    "False",
    "INPUT.RANDOM_FLIP",
    "none",
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a few scenes."""
    root = tmp_path_factory.mktemp("datasets")
    write_shapes("train", 4, root=root, image_size=(64, 80))
    write_shapes("val", 2, root=root, image_size=(64, 80))
    return root


def arguments(
    output: Path, *options: str, overrides: list[str] | None = None, config: str = CONFIG
) -> list[str]:
    command = ["--config-file", config, "--num-gpus", "0", *options]
    command += ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "OUTPUT_DIR", str(output), "SEED", "1"]
    command += ["SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "3", "SOLVER.WARMUP_ITERS", "1"]
    command += ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "SOLVER.BASE_LR", "0.005"]
    return command + (overrides or [])


class Shell:
    """Runs the tool in this process, as `python tools/train_net.py ...` would in another."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.script = str(root / "tools" / "train_net.py")
        self.monkeypatch = monkeypatch
        monkeypatch.chdir(root)

    def __call__(self, *args: str) -> int:
        """Return the exit status."""
        self.monkeypatch.setattr(sys, "argv", [self.script, *args])
        try:
            runpy.run_path(self.script, run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
        return 0


@pytest.fixture
def shell(repo_root: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(scenes))
    return Shell(repo_root, monkeypatch)


def read_metrics(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]


def final_numbers(output: Path) -> dict[str, float]:
    last = read_metrics(output)[-1]
    return {name: value for name, value in last.items() if "/" in name and "grad" not in name}


def test_train_evaluate_and_resume(shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell(*arguments(tmp_path)) == 0
    numbers = final_numbers(tmp_path)
    assert {"panoptic_seg/PQ", "sem_seg/mIoU", "bbox/AP"} <= numbers.keys()

    # --eval-only repeats the numbers of training's end.
    capsys.readouterr()
    weights = ["MODEL.WEIGHTS", str(tmp_path / "model_final.pth")]
    assert shell(*arguments(tmp_path / "eval", "--eval-only", overrides=weights)) == 0
    expected = f"copypaste: {numbers['sem_seg/mIoU']:.4f},{numbers['sem_seg/fwIoU']:.4f}"
    assert expected in capsys.readouterr().out

    # --resume goes on behind the last iteration ...
    assert shell(*arguments(tmp_path, "--resume", overrides=["SOLVER.MAX_ITER", "5"])) == 0
    assert "Training from iteration 3 to 5" in (tmp_path / "log.txt").read_text()
    assert "total_loss" in read_metrics(tmp_path)[-2]
    assert read_metrics(tmp_path)[-2]["iteration"] == 4

    # ... and says so when there is nothing left to train.
    capsys.readouterr()
    assert shell(*arguments(tmp_path, "--resume", overrides=["SOLVER.MAX_ITER", "5"])) == 0
    output = capsys.readouterr().out
    assert "Nothing is trained" in output and "SOLVER.MAX_ITER is 5" in output
    assert "copypaste" in output


def load_final_weights(output: Path) -> dict[str, Any]:
    return torch.load(output / "model_final.pth", weights_only=True)["model"]


def torchrun(repo_root: Path, scenes: Path, num_processes: int, *args: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(num_processes), "tools/train_net.py", *args]
    env = {**os.environ, "PYTHONPATH": str(repo_root), "OMP_NUM_THREADS": "1"}
    env["DETECTRON2_DATASETS"] = str(scenes)
    options = {"cwd": repo_root, "env": env, "timeout": 300}
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_give_what_one_gives_with_the_same_batch(
    shell: Shell, repo_root: Path, scenes: Path, tmp_path: Path
) -> None:
    overrides = [*SEMANTIC, "DATASETS.TEST", "()"]
    assert shell(*arguments(tmp_path / "one", overrides=overrides)) == 0
    torchrun(repo_root, scenes, 2, *arguments(tmp_path / "two", overrides=overrides))
    losses = [read_metrics(tmp_path / name)[-1]["total_loss"] for name in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    one, two = (load_final_weights(tmp_path / name) for name in ("one", "two"))
    for name, value in one.items():
        # Convolutions over one image and over two sum in another order.
        torch.testing.assert_close(torch.as_tensor(two[name]), torch.as_tensor(value), rtol=1e-3, atol=1e-4)
    assert (tmp_path / "two" / "log.txt.rank1").is_file()


@pytest.mark.parametrize(
    ("options", "overrides", "message"),
    [
        ([], ["SOLVER.MAX_ITERS", "3"], "SOLVER.MAX_ITER"),
        ([], ["SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER"),
        ([], ["MODEL.WEIGHTS", "no_such_model.pth"], "no_such_model.pth"),
        (["--eval-only"], [], "--eval-only needs weights"),
        (["--num-machines", "2"], [], "torchrun"),
        ([], ["DATASETS.TRAIN", "('coco_2017_train',)"], "DETECTRON2_DATASETS"),
        ([], ["DATASETS.TRAIN", "('shapes_panoptik_train',)"], "shapes_panoptic_train"),
        ([], ["OUTPUT_DIR", "/proc/no/such/folder"], "OUTPUT_DIR"),
    ],
)
def test_what_a_user_gets_wrong_is_told_in_one_message(
    shell: Shell,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    overrides: list[str],
    message: str,
) -> None:
    assert shell(*arguments(tmp_path, *options, overrides=overrides)) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "model_final.pth").exists()


def test_a_misspelt_config_is_answered_with_the_near_ones(
    shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell(*arguments(tmp_path, config="configs/Quickstart/panoptic_fpn_shapes.yaml")) == 2
    assert CONFIG in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        np.zeros(2).reshape(3)

    monkeypatch.setattr("detectron2.engine.defaults.trainer.build_optimizer", broken)
    with pytest.raises(ValueError, match="cannot reshape"):
        shell(*arguments(tmp_path))


def test_augmented_evaluation_comes_before_the_writers(shell: Shell, tmp_path: Path) -> None:
    """With the one version that is the image itself, it gives the numbers of the plain one."""
    augmentation = ["TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(64,)", "TEST.AUG.FLIP", "False"]
    assert shell(*arguments(tmp_path, overrides=[*augmentation, "SOLVER.MAX_ITER", "1"])) == 0
    last = read_metrics(tmp_path)[-1]
    for name in ("sem_seg/mIoU", "panoptic_seg/PQ", "bbox/AP", "segm/AP"):
        assert last[name.replace("/", "_TTA/")] == pytest.approx(last[name], nan_ok=True)
    assert (tmp_path / "inference_TTA").is_dir()


def test_augmentation_that_is_not_possible_is_told_before_training(
    shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["TEST.AUG.ENABLED", "True", "MODEL.META_ARCHITECTURE", "RetinaNet"]
    assert shell(*arguments(tmp_path, overrides=overrides)) != 0
    assert "Test-time augmentation is for" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
