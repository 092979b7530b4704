"""Two processes that share the images give the results of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import distributed_worker


@pytest.mark.slow
def test_two_processes_score_like_one(
    shared_dir: Path, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shared_dir / "real"))
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                distributed_worker.__file__,
                str(rank),
                "2",
                str(tmp_path / "meet"),
                str(tmp_path / str(rank)),
            ],
            env=environment,
        )
        for rank in range(2)
    ]
    assert [worker.wait(timeout=240) for worker in workers] == [0, 0]
    expected = {**distributed_worker.evaluate(0, 1), **distributed_worker.evaluate_panoptic(0, 1)}
    first, second = (json.loads((tmp_path / str(rank)).read_text()) for rank in range(2))
    assert second == {}
    assert list(first) == ["bbox", "sem_seg", "panoptic_seg"]
    assert json.dumps(first) == json.dumps(expected)
