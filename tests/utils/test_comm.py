"""Communication between processes: alone, and between two on the CPU."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detectron2.utils import comm

ROOT = Path(__file__).resolve().parents[2]


def test_one_process_is_a_world_of_its_own() -> None:
    assert (comm.get_world_size(), comm.get_rank()) == (1, 0)
    assert (comm.get_local_size(), comm.get_local_rank()) == (1, 0)
    assert comm.get_local_process_group() is None
    assert comm.is_main_process()
    comm.synchronize()
    data = object()
    assert comm.all_gather(data) == [data]
    assert comm.gather(data) == [data]
    assert 0 <= comm.shared_random_seed() < 2**31
    losses = {"a": torch.tensor(1.0)}
    assert comm.reduce_dict(losses) == losses
    assert comm.reduce_dict({}) == {}


WORKER = """
import atexit
import sys
atexit.register(lambda: print("kept:", comm._LOCAL_PROCESS_GROUP))  # runs last
import torch
import torch.distributed as dist
from detectron2.utils import comm

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{sys.argv[2]}", rank=rank, world_size=2)
assert (comm.get_world_size(), comm.get_rank(), comm.is_main_process()) == (2, rank, rank == 0)

for function in (comm.get_local_rank, comm.get_local_size, comm.get_local_process_group):
    try:
        function()
    except RuntimeError as e:
        assert "create_local_process_group" in str(e)
    else:
        raise AssertionError("a local group that was never made")
try:
    comm.create_local_process_group(3)
except ValueError as e:
    assert "do not split" in str(e)
else:
    raise AssertionError
machines = int(sys.argv[3])
comm.create_local_process_group(2 // machines)
assert comm.get_local_size() == 2 // machines
assert comm.get_local_rank() == (rank if machines == 1 else 0)

torch.manual_seed(rank)
payload = {"rank": rank, "long": "x" * (1000 * (rank + 1)), "tensor": torch.full((rank,), 1.0)}
everything = comm.all_gather(payload)
assert [item["rank"] for item in everything] == [0, 1]
assert [len(item["long"]) for item in everything] == [1000, 2000]
assert [len(item["tensor"]) for item in everything] == [0, 1]
assert comm.all_gather(rank, group=comm.get_local_process_group()) == ([0, 1] if machines == 1 else [rank])
for dst in (0, 1):
    assert comm.gather(rank, dst=dst) == ([0, 1] if rank == dst else [])
seeds = comm.all_gather(comm.shared_random_seed())
assert seeds[0] == seeds[1]

# The order of names differs between processes, and so does what a key holds.
losses = {"a": torch.tensor(1.0 + rank), "b": torch.tensor(10.0 + rank)}
if rank:
    losses = dict(reversed(losses.items()))
mean, total = comm.reduce_dict(losses), comm.reduce_dict(losses, average=False)
if rank == 0:
    assert {k: float(v) for k, v in mean.items()} == {"a": 1.5, "b": 10.5}
    assert {k: float(v) for k, v in total.items()} == {"a": 3.0, "b": 21.0}
assert float(losses["a"]) == 1.0 + rank
comm.synchronize()
dist.destroy_process_group()
"""


@pytest.mark.parametrize("machines", [1, 2])
def test_two_processes(tmp_path: Path, machines: int) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(port), str(machines)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = []
    try:
        outputs += [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    # A group that outlives the interpreter aborts some processes, now and then.
    assert ["kept: None" in output for output in outputs] == [True, True], "\n".join(outputs)
