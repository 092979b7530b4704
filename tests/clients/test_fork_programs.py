"""Training scripts as projects have them, of early 2020 and of version 0.6, run as programs.

They are of our own wording, share `fork/common.py`, and use the names, the call forms and the order of
arguments that such scripts use. Their config is spelled as the public Res2Net fork spells it. They run as
they are, from another folder.
"""

from __future__ import annotations

import json
import math
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.data.datasets.shapes import write_shapes
from detectron2.engine import default_argument_parser

PROGRAMS = ("trainer_2020", "loop_2020", "trainer_06", "loop_06")
FORK = Path(__file__).parent / "fork"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("datasets")
    write_shapes("train", 2, root=root, image_size=(64, 80))
    return root


class Project:
    """Runs one program in a folder of its own."""

    def __init__(self, program: str, scenes: Path, folder: Path, root: Path) -> None:
        self.script = str(FORK / f"{program}.py")
        self.folder = folder
        self.env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        self.env["DETECTRON2_DATASETS"] = str(scenes)

    def run(self, *options: str, output: str = "out", num_processes: int = 1, **changed: str) -> str:
        """Return what it printed."""
        start = [sys.executable]
        if num_processes > 1:
            start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
        settings = {"MODEL.DEVICE": "cpu", "SEED": "1", "OUTPUT_DIR": output}
        settings |= {key.replace("__", "."): value for key, value in changed.items()}
        pairs = [text for pair in settings.items() for text in pair]
        config = ["--config-file", str(FORK / "panoptic_fpn_R2_narrow.yaml")]
        done = subprocess.run(
            [*start, self.script, *config, *options, *pairs],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def iterations(self) -> list[int]:
        lines = (self.folder / "out" / "metrics.json").read_text().splitlines()
        return [line["iteration"] for line in map(json.loads, lines) if "total_loss" in line]


@pytest.fixture(params=PROGRAMS)
def project(request: pytest.FixtureRequest, scenes: Path, tmp_path: Path, repo_root: Path) -> Project:
    return Project(request.param, scenes, tmp_path, repo_root)


def scores(output: str) -> dict[str, dict[str, float]]:
    """The last scores of each task, from the lines that are made for copying."""
    lines = re.findall(r"copypaste: (.*)", output)
    found = {}
    for task, names, values in zip(lines, lines[1:], lines[2:]):
        if task.startswith("Task: "):
            numbers = map(float, values.split(","))
            found[task.removeprefix("Task: ")] = dict(zip(names.split(","), numbers))
    return found


@pytest.mark.slow
def test_train_resume_and_evaluate(project: Project) -> None:
    # One of them long enough to find something.
    num_steps = 40 if "trainer_2020" in project.script else 10
    trained = scores(project.run(SOLVER__MAX_ITER=str(num_steps)))
    assert set(trained) >= {"sem_seg", "bbox", "panoptic_seg"}
    counts_from_one = "loop_2020" in project.script
    assert project.iterations()[-1] == num_steps - 1 + counts_from_one
    out = project.folder / "out"
    assert (out / "last_checkpoint").read_text() == "model_final.pth"
    names = torch.load(out / "model_final.pth", weights_only=True)["model"]
    assert "backbone.bottom_up.res2.0.convs.2.weight" in names  # it is a Res2Net that was trained

    resumed = project.run("--resume", SOLVER__MAX_ITER=str(num_steps + 10))
    assert project.iterations()[-1] == num_steps + 9 + counts_from_one
    assert re.search(rf"from iteration {num_steps + counts_from_one}\b", resumed)
    numbers = scores(resumed)
    assert numbers["panoptic_seg"]["PQ"] > 0 or num_steps < 40
    assert numbers["sem_seg"]["mIoU"] > 0

    weights = {"MODEL__WEIGHTS": str(out / "model_final.pth")}
    again = scores(project.run("--eval-only", output="eval", **weights))
    for task, values in numbers.items():
        assert again[task] == pytest.approx(values, nan_ok=True), task


@pytest.mark.slow
@pytest.mark.parametrize("project", ["trainer_2020", "loop_06"], indirect=True)
def test_in_two_processes(project: Project) -> None:
    found = scores(project.run(num_processes=2, SOLVER__MAX_ITER="4"))
    assert math.isfinite(found["panoptic_seg"]["PQ"]) and found["sem_seg"]["mIoU"] > 0
    resumed = project.run("--resume", num_processes=2, SOLVER__MAX_ITER="6")
    assert re.search(r"from iteration (4|5)", resumed)
    assert scores(resumed)["sem_seg"]["mIoU"] > 0
    # Two processes score the same weights as one does. (In training each has batch statistics of its own.)
    weights = {"MODEL__WEIGHTS": str(project.folder / "out" / "model_final.pth")}
    alone = scores(project.run("--eval-only", output="alone", **weights))
    together = scores(project.run("--eval-only", output="together", num_processes=2, **weights))
    assert set(alone) == set(together) >= {"sem_seg", "bbox", "panoptic_seg"}
    for task, values in alone.items():
        assert together[task] == pytest.approx(values, nan_ok=True), task


def test_augmented_evaluation_that_is_registered_later(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such scripts add the hook when the trainer is there; its boxes and masks are scored all the same."""
    shapes = scenes / "shapes"
    register_coco_instances(
        "fork_things", {}, str(shapes / "annotations" / "instances_train.json"), str(shapes / "train")
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(FORK))
    settings = {
        "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
        "MODEL.DEVICE": "cpu",
        "INPUT.MASK_FORMAT": "bitmask",
        "DATASETS.TRAIN": "('fork_things',)",
        "DATASETS.TEST": "('fork_things',)",
        "SOLVER.MAX_ITER": "1",
        "TEST.AUG.ENABLED": "True",
        "TEST.AUG.MIN_SIZES": "(64,)",
        "OUTPUT_DIR": "out",
    }
    pairs = [text for pair in settings.items() for text in pair]
    config = str(FORK / "panoptic_fpn_R2_narrow.yaml")
    try:
        program = runpy.run_path(str(FORK / "trainer_2020.py"))
        program["main"](default_argument_parser().parse_args(["--config-file", config, *pairs]))
    finally:
        sys.modules.pop("common", None)
        DatasetCatalog.remove("fork_things")
        MetadataCatalog.remove("fork_things")
    for folder in ("inference", "inference_TTA"):
        records = json.loads((tmp_path / "out" / folder / "coco_instances_results.json").read_text())
        assert {"bbox", "segmentation", "score"} <= records[0].keys()
