"""Start one function in all processes of a run: spawned per GPU, given by torchrun, or just here."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from detectron2.utils import comm
from detectron2.utils.user_errors import UserValueError

__all__ = ["DEFAULT_TIMEOUT", "launch"]

DEFAULT_TIMEOUT = timedelta(minutes=30)

logger = logging.getLogger(__name__)


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple[Any, ...] = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> Any:
    """Run `main_func(*args)` in every process of a run, with `detectron2.utils.comm` ready to use.

    Under torchrun (or anything that sets RANK and WORLD_SIZE) this process joins the group that is given,
    and none is started: with NCCL where GPUs are asked for and there, with gloo otherwise. Without it, one
    process per GPU is spawned when there is more than one in the run, and else the function is simply called.

    Args:
        main_func: a function at module level, so that spawned processes can find it.
        num_gpus_per_machine: processes to spawn on each machine, one GPU each; 0 runs on the CPU.
        num_machines: number of machines in the run; the command is given on each of them.
        machine_rank: which of the machines this is, from 0.
        dist_url: `tcp://host:port` where processes meet, on machine 0. "auto" picks a free port of this
            machine, for runs on one machine. None is for runs of one process, and torchrun.
        args: arguments of `main_func`.
        timeout: how long one process waits for another.

    Returns:
        What `main_func` returned, where it ran in this process; None where it was spawned.

    Raises:
        ValueError: the arguments do not fit each other or this machine.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return _run_in_given_group(main_func, num_gpus_per_machine > 0, args, timeout)
    _check_arguments(num_gpus_per_machine, num_machines, machine_rank)
    world_size = num_machines * num_gpus_per_machine
    if world_size <= 1:
        return main_func(*args)
    dist_url = _resolve_dist_url(dist_url, num_machines)
    try:
        mp.start_processes(
            _run_spawned,
            nprocs=num_gpus_per_machine,
            args=(main_func, world_size, num_gpus_per_machine, machine_rank, dist_url, args, timeout),
            daemon=False,
            start_method="spawn",
        )
    except mp.ProcessExitedException as error:
        if error.exit_code > 0:  # by sys.exit, which has said why; a signal has not
            raise SystemExit(error.exit_code) from error
        raise
    return None


def _check_arguments(num_gpus_per_machine: int, num_machines: int, machine_rank: int) -> None:
    if num_gpus_per_machine < 0 or num_machines < 1 or not 0 <= machine_rank < num_machines:
        raise UserValueError(
            "launch needs num_gpus >= 0, num_machines >= 1 and 0 <= machine_rank < num_machines, got "
            f"num_gpus={num_gpus_per_machine}, num_machines={num_machines}, machine_rank={machine_rank}."
        )
    if num_machines > 1 and num_gpus_per_machine == 0:
        raise UserValueError(
            "Several machines without GPUs are started by torchrun, and not by --num-machines."
        )
    if num_machines * num_gpus_per_machine > 1 and num_gpus_per_machine > torch.cuda.device_count():
        raise UserValueError(
            f"num_gpus={num_gpus_per_machine} GPUs were asked for, and this machine offers "
            f"{torch.cuda.device_count()}. Lower --num-gpus; `--num-gpus 0 MODEL.DEVICE cpu` runs without "
            "any."
        )


def _resolve_dist_url(dist_url: str | None, num_machines: int) -> str:
    if dist_url not in (None, "auto"):
        assert dist_url is not None
        if num_machines > 1 and dist_url.startswith("file://"):
            logger.warning("file:// is not a reliable dist_url for several machines; prefer tcp://.")
        return dist_url
    if num_machines > 1:
        raise UserValueError(
            f"dist_url={dist_url!r} cannot be found by the other machines. Give all of them the same "
            "--dist-url tcp://HOST:PORT, with an address of machine 0."
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def _run_spawned(
    local_rank: int,
    main_func: Callable[..., Any],
    world_size: int,
    num_gpus_per_machine: int,
    machine_rank: int,
    dist_url: str,
    args: tuple[Any, ...],
    timeout: timedelta,
) -> None:
    torch.cuda.set_device(local_rank)
    dist.init_process_group(
        backend="nccl",
        init_method=dist_url,
        world_size=world_size,
        rank=machine_rank * num_gpus_per_machine + local_rank,
        timeout=timeout,
    )
    _run_joined(main_func, num_gpus_per_machine, args)


def _run_in_given_group(
    main_func: Callable[..., Any], use_gpus: bool, args: tuple[Any, ...], timeout: timedelta
) -> Any:
    """Join the group that the environment describes (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT)."""
    world_size = int(os.environ["WORLD_SIZE"])
    num_local = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    local_rank = int(os.environ.get("LOCAL_RANK", int(os.environ["RANK"]) % num_local))
    use_gpus = use_gpus and torch.cuda.is_available()
    if use_gpus:
        if num_local > torch.cuda.device_count():
            raise UserValueError(
                f"torchrun started {num_local} processes here, and this machine offers "
                f"{torch.cuda.device_count()} GPUs. Lower --nproc-per-node, or add --num-gpus 0 to use the "
                "CPU."
            )
        torch.cuda.set_device(local_rank)
    if dist.is_initialized():  # by the caller, who then also ends it
        comm.create_local_process_group(num_local)
        return main_func(*args)
    dist.init_process_group(backend="nccl" if use_gpus else "gloo", init_method="env://", timeout=timeout)
    return _run_joined(main_func, num_local, args)


def _run_joined(main_func: Callable[..., Any], num_local: int, args: tuple[Any, ...]) -> Any:
    comm.create_local_process_group(num_local)
    # Nobody starts the real work before all have arrived: a slow starter would look like a hang later.
    comm.synchronize()
    result = main_func(*args)
    # Only after success: after a failure the other processes may wait in a collective that never ends. And
    # together: gloo can abort a process whose peer closes the connection while it is still at work on it.
    comm.synchronize()
    dist.destroy_process_group()
    return result
