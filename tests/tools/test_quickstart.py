"""The steps of the quickstart that are not training: settings, results and what is skipped."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from detectron2.utils.user_errors import UserValueError

_SCORES = {
    "panoptic_seg": {"PQ": 51.26},
    "bbox": {"AP": 40.1, "APs": None},
    "segm": {"AP": 39.9},
    "sem_seg": {},
}


@pytest.fixture(scope="module")
def quickstart(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("tools/quickstart.py")


def _config(quickstart: ModuleType, folder: Path, *arguments: str):
    args = quickstart.parse_args(["--output-dir", str(folder), *arguments, "SOLVER.AMP.ENABLED", "False"])
    return quickstart.make_config(args)


def test_config_points_to_the_shipped_backbone_from_anywhere(quickstart: ModuleType, tmp_path: Path) -> None:
    cfg = _config(quickstart, tmp_path, "--max-iter", "10")
    assert Path(cfg.MODEL.WEIGHTS).is_absolute()
    assert cfg.SOLVER.MAX_ITER == 10 and cfg.SOLVER.WARMUP_ITERS <= 2


def test_another_run_in_the_folder_is_refused_by_name_of_the_setting(
    quickstart: ModuleType, tmp_path: Path
) -> None:
    files = quickstart.OutputFiles(tmp_path)
    cfg = _config(quickstart, tmp_path)
    quickstart.check_same_run(cfg, files)  # nothing there yet
    files.config.write_text(cfg.dump())
    quickstart.check_same_run(cfg, files)
    with pytest.raises(ValueError, match="SOLVER.MAX_ITER"):
        quickstart.check_same_run(_config(quickstart, tmp_path, "--max-iter", "3"), files)


def test_results_become_tables_and_a_page(quickstart: ModuleType, tmp_path: Path) -> None:
    files = quickstart.OutputFiles(tmp_path)
    results = {"scores": _SCORES, "machine": "a machine", "command": "the command"}
    assert quickstart.headline_scores(results) == {"PQ": 51.26, "box AP": 40.1, "mask AP": 39.9}
    table = quickstart.write_tables(results, files)
    assert "| 51.3 | 40.1 | 39.9 |" in table
    assert "the command" in files.results_table.read_text()
    files.metrics.write_text(json.dumps({"iteration": 1, "total_loss": 2.0, "lr": 0.1}))
    quickstart.write_report(_config(quickstart, tmp_path), results, [], files)
    page = files.report.read_text()
    assert "http" not in page and "51.3" in page


def test_finished_steps_are_skipped(quickstart: ModuleType, tmp_path: Path) -> None:
    files = quickstart.OutputFiles(tmp_path)
    cfg = _config(quickstart, tmp_path)
    files.model.write_bytes(b"not a model: loading it would fail")
    quickstart.train(cfg, files, quickstart.parse_args([]))
    files.results.write_text(json.dumps({"scores": _SCORES}))
    assert quickstart.evaluate(cfg, files) == {"scores": _SCORES}


@pytest.mark.parametrize(("error", "status"), [(UserValueError("another run"), 2), (ValueError("a bug"), 1)])
def test_only_a_mistake_of_the_user_hides_its_traceback(
    repo_root: Path, tmp_path: Path, error: Exception, status: int
) -> None:
    program = f"""
import runpy, sys
from detectron2.utils.user_errors import UserValueError
import detectron2.data.datasets.shapes as shapes
def fail(*args, **kwargs):
    raise {error!r}
shapes.write_shapes = fail
sys.argv = ["quickstart.py", "--output-dir", {str(tmp_path)!r}]
runpy.run_path("tools/quickstart.py", run_name="__main__")
"""
    env = {**os.environ, "PYTHONPATH": str(repo_root)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=repo_root, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    assert ("Traceback" in done.stderr) is (status == 1)
    assert "Traceback" in (tmp_path / "log.txt").read_text()
