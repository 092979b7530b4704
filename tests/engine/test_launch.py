"""Starting processes, and training that gives the same in two processes as in one."""

from __future__ import annotations

import json
import math
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
    options = {"cwd": repo_root, "env": env, "timeout": 120}
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
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
    assert all(math.isfinite(value) for row in first["weights"] for value in row)  # no NaN arrived


TWO_LAUNCHES = """
import sys, torch, torch.distributed as dist
from datetime import timedelta
from detectron2.engine import launch
from detectron2.utils import comm

def gather(offset):
    everyone = comm.all_gather(comm.get_rank() + offset)
    local = comm.all_gather(comm.get_local_rank(), group=comm.get_local_process_group())
    comm.synchronize()
    return everyone, local, comm.reduce_dict({"a": torch.ones(())})["a"].item() > 0

for offset in (0, 10, 20):
    result = launch(gather, num_gpus_per_machine=0, args=(offset,), timeout=timedelta(seconds=20))
    assert result == ([offset, offset + 1], [0, 1], True), result
    assert not dist.is_initialized()
"""


@pytest.mark.parametrize("agent_store", [True, False])
def test_one_process_may_launch_several_times(repo_root: Path, tmp_path: Path, agent_store: bool) -> None:
    program = tmp_path / "program.py"
    program.write_text(TWO_LAUNCHES)
    env = {**os.environ, "PYTHONPATH": str(repo_root), "OMP_NUM_THREADS": "1"}
    if agent_store:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        done = subprocess.run(
            [*command, str(program)], env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _resolve_dist_url("auto", 1).rpartition(":")[2]}
    started = [
        subprocess.Popen(
            [sys.executable, str(program)],
            env={**env, "RANK": str(rank), "WORLD_SIZE": "2"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in started]
    assert [status for _, status in ends] == [0, 0], ends


@pytest.fixture
def given_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchrun sets for the last of four processes on two machines."""
    given = {"RANK": 3, "WORLD_SIZE": 4, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}
    for name, value in given.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.usefixtures("given_group")
@pytest.mark.parametrize("arguments", [(8, 1, 0), (3, 2, 1), (2, 3, 1), (2, 2, 0), (0, 4, 1)])
def test_arguments_against_the_environment_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"WORLD_SIZE=4 .*2 on each of 2 machines.*--nproc-per-node"):
        launch(add, *arguments, args=(2, 3))


@pytest.mark.usefixtures("given_group")
@pytest.mark.parametrize("arguments", [(1, 1, 0), (0, 1, 0), (2, 1, 0), (2, 2, 1), (1, 2, 1)])
def test_arguments_that_agree_with_the_environment_join_its_group(
    arguments: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[dict[str, Any]] = []
    module = sys.modules[launch.__module__]  # the package has the function under the module's name
    monkeypatch.setattr(module, "_make_store", lambda timeout: "store")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.distributed.init_process_group", lambda **kwargs: joined.append(kwargs))
    monkeypatch.setattr(module, "_run_joined", lambda function, num_local, args: num_local)
    assert launch(add, *arguments, args=(2, 3)) == 2
    assert [(kwargs["rank"], kwargs["world_size"], kwargs["backend"]) for kwargs in joined] == [
        (3, 4, "gloo")
    ]


def test_an_environment_that_counts_containers_does_not_shrink_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "1")  # of the machine, as some schedulers set it
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="unset RANK and WORLD_SIZE"):
        launch(add, 8, 2, 1, "tcp://host:29500", args=(2, 3))
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(ValueError, match="RANK in the environment must be a number, got 'first'"):
        launch(add, 1, args=(2, 3))
