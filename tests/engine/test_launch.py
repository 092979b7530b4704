"""Starting processes, and training that gives the same in two processes as in one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from detectron2.engine import launch
from detectron2.engine.launch import _resolve_dist_url

from .two_process_worker import train_and_report


def add(a: int, b: int) -> int:
    return a + b


@pytest.mark.parametrize("num_gpus", [0, 1])
def test_one_process_calls_the_function_here(num_gpus: int) -> None:
    assert launch(add, num_gpus, args=(2, 3)) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 1, 0), "num_gpus=-1"),
        ((1, 2, 2, "tcp://localhost:1"), "machine_rank=2"),
        ((0, 2, 0, "tcp://localhost:1"), "torchrun"),
        ((torch.cuda.device_count() + 2, 1, 0), "--num-gpus"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        launch(add, *arguments, args=(2, 3))


def test_auto_address_is_for_one_machine() -> None:
    host, port = _resolve_dist_url("auto", num_machines=1).rsplit(":", 1)
    assert host == "tcp://127.0.0.1"
    assert 0 < int(port) < 65536
    assert _resolve_dist_url("tcp://host:29500", num_machines=4) == "tcp://host:29500"
    with pytest.raises(ValueError, match="--dist-url tcp://HOST:PORT"):
        _resolve_dist_url("auto", num_machines=2)


def torchrun(repo_root: Path, num_processes: int, folder: Path, poison: str) -> list[dict[str, Any]]:
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(num_processes)]
    command += ["tests/engine/two_process_worker.py", str(folder), poison]
    env = {**os.environ, "PYTHONPATH": str(repo_root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=repo_root, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(num_processes)]


def test_two_processes_train_as_one_does_with_the_same_global_batch(repo_root: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    train_and_report(str(tmp_path / "one"), "clean")
    single = json.loads((tmp_path / "one" / "rank0.json").read_text())
    first, second = torchrun(repo_root, 2, tmp_path / "two", "clean")
    assert (single["world_size"], first["world_size"], second["rank"]) == (1, 2, 1)
    assert (first["local"], second["local"]) == ([0, 2], [1, 2])
    assert len(single["losses"]) == 6
    assert first["losses"] == pytest.approx(single["losses"], rel=1e-6)
    assert second["losses"] == []  # only the main process writes metrics
    assert first["weights"] == second["weights"]
    for one, two in zip(single["weights"], first["weights"]):
        assert two == pytest.approx(one, rel=1e-5)


def test_a_non_finite_loss_in_one_process_stops_all(repo_root: Path, tmp_path: Path) -> None:
    first, second = torchrun(repo_root, 2, tmp_path / "two", "poisoned")
    assert first["iter"] == second["iter"] == 1
    assert "rank 0" in first["error"] or "rank 1" in first["error"]
    assert first["weights"] == second["weights"]
    assert all(value == value for row in first["weights"] for value in row)  # no NaN arrived
