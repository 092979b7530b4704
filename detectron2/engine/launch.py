"""Start one function in all processes of a run: spawned per GPU, given by torchrun, or just here."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

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
    and none is started: with NCCL where GPUs are asked for and there, with gloo otherwise. Arguments that ask
    for another number of processes are refused; num_gpus_per_machine=1 asks for none in particular. Without
    torchrun, one process per GPU is spawned when there is more than one in the run, and else the function
    is simply called.

    A process may call this several times, one after the other; under torchrun all of them must.

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
        ValueError: the arguments do not fit each other, this machine or the environment.
    """
    _check_ranges(num_gpus_per_machine, num_machines, machine_rank)
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        place = _read_place_in_group(num_gpus_per_machine, num_machines, machine_rank)
        return _run_in_given_group(main_func, place, num_gpus_per_machine > 0, args, timeout)
    _check_can_spawn(num_gpus_per_machine, num_machines)
    world_size = num_machines * num_gpus_per_machine
    if world_size <= 1:
        return main_func(*args)
    dist_url = _resolve_dist_url(dist_url, num_machines)
    try:
        start_processes(
            _distributed_worker,
            nprocs=num_gpus_per_machine,
            args=(main_func, world_size, num_gpus_per_machine, machine_rank, dist_url, args, timeout),
            daemon=False,
            start_method="spawn",
        )
    except ProcessExitedException as error:
        if error.exit_code > 0:  # by sys.exit, which has said why; a signal has not
            raise SystemExit(error.exit_code) from error
        raise
    return None


def _check_ranges(num_gpus_per_machine: int, num_machines: int, machine_rank: int) -> None:
    if num_gpus_per_machine < 0 or num_machines < 1 or not 0 <= machine_rank < num_machines:
        raise UserValueError(
            "launch needs num_gpus >= 0, num_machines >= 1 and 0 <= machine_rank < num_machines, got "
            f"num_gpus={num_gpus_per_machine}, num_machines={num_machines}, machine_rank={machine_rank}."
        )


def _check_can_spawn(num_gpus_per_machine: int, num_machines: int) -> None:
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
    return f"tcp://127.0.0.1:{_find_free_port()}"


def _find_free_port() -> int:
    """A port of this machine that nobody listens at; somebody else may still take it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _distributed_worker(
    local_rank: int,
    main_func: Callable[..., Any],
    world_size: int,
    num_gpus_per_machine: int,
    machine_rank: int,
    dist_url: str,
    args: tuple[Any, ...],
    timeout: timedelta = DEFAULT_TIMEOUT,
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


@dataclass(frozen=True)
class _Place:
    """Where the environment says that this process stands in its group."""

    rank: int
    world_size: int
    local_rank: int
    num_local: int


def _read_place_in_group(num_gpus_per_machine: int, num_machines: int, machine_rank: int) -> _Place:
    """Read what torchrun has set, and refuse arguments that want something else."""
    rank, world_size = _read_count("RANK"), _read_count("WORLD_SIZE")
    num_local = _read_count("LOCAL_WORLD_SIZE", default=max(world_size // num_machines, 1))
    given = (num_local, world_size // num_local, rank // num_local)
    asked = (
        num_gpus_per_machine if num_gpus_per_machine > 1 else num_local,
        num_machines if num_machines > 1 else given[1],
        machine_rank if num_machines > 1 else given[2],
    )
    if asked != given:
        raise UserValueError(
            f"RANK={rank} and WORLD_SIZE={world_size} in the environment describe processes that are started "
            f"already ({given[0]} on each of {given[1]} machines, this being machine {given[2]}), and "
            f"num_gpus={num_gpus_per_machine}, num_machines={num_machines}, machine_rank={machine_rank} ask "
            "for others. Leave out --num-gpus, --num-machines and --machine-rank under torchrun, which has "
            "--nproc-per-node, --nnodes and --node-rank; or unset RANK and WORLD_SIZE to have the processes "
            "started here."
        )
    return _Place(rank, world_size, _read_count("LOCAL_RANK", default=rank % num_local), num_local)


def _read_count(variable: str, default: int | None = None) -> int:
    text = os.environ.get(variable, "" if default is None else str(default))
    if not text.isdecimal():
        raise UserValueError(
            f"{variable} in the environment must be a number, got {text!r}. torchrun sets it; unset RANK and "
            "WORLD_SIZE to do without."
        )
    return int(text)


def _run_in_given_group(
    main_func: Callable[..., Any], place: _Place, use_gpus: bool, args: tuple[Any, ...], timeout: timedelta
) -> Any:
    """Join the group that the environment describes."""
    use_gpus = use_gpus and torch.cuda.is_available()
    if use_gpus:
        if place.num_local > torch.cuda.device_count():
            raise UserValueError(
                f"torchrun started {place.num_local} processes here, and this machine offers "
                f"{torch.cuda.device_count()} GPUs. Lower --nproc-per-node, or add --num-gpus 0 to use the "
                "CPU."
            )
        torch.cuda.set_device(place.local_rank)
    if dist.is_initialized():  # by the caller, who then also ends it
        comm.create_local_process_group(place.num_local)
        return main_func(*args)
    dist.init_process_group(
        backend="nccl" if use_gpus else "gloo",
        store=_make_store(timeout),
        rank=place.rank,
        world_size=place.world_size,
        timeout=timeout,
    )
    return _run_joined(main_func, place.num_local, args)


@functools.lru_cache(maxsize=1)
def _meet(*address: str | None) -> tuple[Store, Iterator[int]]:
    """Connect to the store that all processes share; it lives as long as the process, for later launches."""
    store, _, _ = next(rendezvous("env://"))
    return store, itertools.count()


def _make_store(timeout: timedelta) -> Store:
    """Return the part of the shared store that is this launch's: keys of earlier ones are still there."""
    variables = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE")
    shared, launches = _meet(*map(os.environ.get, variables))
    store = PrefixStore(f"detectron2_launch_{next(launches)}", shared)
    store.set_timeout(timeout)
    return store


def _run_joined(main_func: Callable[..., Any], num_local: int, args: tuple[Any, ...]) -> Any:
    comm.create_local_process_group(num_local)
    # Nobody starts the real work before all have arrived: a slow starter would look like a hang later.
    comm.synchronize()
    result = main_func(*args)
    # Only after success: after a failure the other processes may wait in a collective that never ends. And
    # together: gloo can abort a process whose peer closes the connection while it is still at work on it.
    comm.synchronize()
    comm.leave_groups()
    return result
