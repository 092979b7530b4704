"""Communication between processes. Without a process group every function acts as in a world of one."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .user_errors import UserValueError

_LOCAL_PROCESS_GROUP: dist.ProcessGroup | None = None
"""The processes of this machine; `create_local_process_group` sets it, `engine.launch` calls that."""

_MISSING_LOCAL_PG_ERROR = (
    "The processes of this machine form no group yet: start the program through detectron2.engine.launch(), "
    "or call detectron2.utils.comm.create_local_process_group() on every process first."
)


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Number of processes over all machines."""
    return dist.get_world_size() if _is_distributed() else 1


def get_rank() -> int:
    """Index of this process among all, 0 to `get_world_size()` - 1."""
    return dist.get_rank() if _is_distributed() else 0


def create_local_process_group(num_workers_per_machine: int) -> None:
    """Make the group of the processes of each machine. Every process of the world must call this.

    A second call in the same world changes nothing.

    Args:
        num_workers_per_machine: processes on each machine, usually its number of GPUs. Ranks must be numbered
            machine by machine.

    Raises:
        ValueError: the world does not split into machines of this size.
    """
    global _LOCAL_PROCESS_GROUP
    _LOCAL_PROCESS_GROUP = _make_local_group(num_workers_per_machine, dist.group.WORLD)


# One process may join a world, leave it, and join another: groups are those of a world.
@functools.lru_cache(maxsize=1)
def _make_local_group(num_workers_per_machine: int, world: dist.ProcessGroup | None) -> dist.ProcessGroup:
    world_size = get_world_size()
    if num_workers_per_machine < 1 or world_size % num_workers_per_machine:
        raise UserValueError(
            f"{world_size} processes do not split into machines of {num_workers_per_machine} each"
        )
    firsts = range(0, world_size, num_workers_per_machine)
    groups: list[dist.ProcessGroup] = [
        dist.new_group([*range(first, first + num_workers_per_machine)]) for first in firsts
    ]
    return groups[get_rank() // num_workers_per_machine]


def leave_groups() -> None:
    """End all process groups, and forget those that are kept here."""
    _forget_groups()
    dist.destroy_process_group()


# A group that is still referred to when the interpreter ends can abort the process: its threads may be gone
# by then. Programs that end their groups themselves do not call `leave_groups`.
@atexit.register
def _forget_groups() -> None:
    global _LOCAL_PROCESS_GROUP
    _LOCAL_PROCESS_GROUP = None
    _make_local_group.cache_clear()
    _make_gloo_group.cache_clear()


def _require_local_group() -> dist.ProcessGroup:
    if _LOCAL_PROCESS_GROUP is None:
        raise RuntimeError(_MISSING_LOCAL_PG_ERROR)
    return _LOCAL_PROCESS_GROUP


def get_local_process_group() -> dist.ProcessGroup | None:
    """The group of this machine's processes, None in a single process."""
    return _require_local_group() if _is_distributed() else None


def get_local_rank() -> int:
    """Index of this process on its machine; also the index of its GPU."""
    return dist.get_rank(group=_require_local_group()) if _is_distributed() else 0


def get_local_size() -> int:
    """Number of processes on this machine."""
    return dist.get_world_size(group=_require_local_group()) if _is_distributed() else 1


def is_main_process() -> bool:
    """Whether this is the one process that writes files and prints results."""
    return get_rank() == 0


def synchronize() -> None:
    """Wait until every process has come here."""
    if get_world_size() == 1:
        return
    if dist.get_backend() == dist.Backend.NCCL:
        # Without the device NCCL has to guess it, and says so.
        dist.barrier(device_ids=[torch.cuda.current_device()])
    else:
        dist.barrier()


def _get_global_gloo_group() -> dist.ProcessGroup:
    """A group over all processes that moves CPU data: pickled objects need no GPU memory."""
    world = dist.group.WORLD
    assert world is not None
    return _make_gloo_group(world) if dist.get_backend() == dist.Backend.NCCL else world


@functools.lru_cache(maxsize=1)
def _make_gloo_group(world: dist.ProcessGroup) -> dist.ProcessGroup:
    group: dist.ProcessGroup = dist.new_group(backend="gloo")
    return group


def all_gather(data: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Collect one picklable object from every process, on every process.

    Args:
        data: this process's object.
        group: the processes that take part; all, when None.

    Returns:
        The objects, ordered by rank.
    """
    if get_world_size() == 1:
        return [data]
    group = group or _get_global_gloo_group()
    collected: list[Any] = [None] * dist.get_world_size(group)
    if len(collected) == 1:
        return [data]
    dist.all_gather_object(collected, data, group=group)
    return collected


def gather(data: Any, dst: int = 0, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Collect one picklable object from every process, on process `dst` alone.

    Args:
        data: this process's object.
        dst: global rank of the process that receives.
        group: the processes that take part; all, when None.

    Returns:
        On `dst` the objects, ordered by rank; elsewhere an empty list.
    """
    if get_world_size() == 1:
        return [data]
    group = group or _get_global_gloo_group()
    if dist.get_world_size(group) == 1:
        return [data]
    receives = get_rank() == dst
    collected: list[Any] | None = [None] * dist.get_world_size(group) if receives else None
    dist.gather_object(data, collected, dst=dst, group=group)
    return collected or []


def shared_random_seed() -> int:
    """Draw a random number that all processes agree on. Every process must call this."""
    return int(all_gather(int(torch.randint(2**31, (1,)).item()))[0])


def reduce_dict(input_dict: Mapping[str, Tensor], average: bool = True) -> dict[str, Tensor]:
    """Sum or average scalar tensors over processes.

    Args:
        input_dict: name -> scalar tensor; all processes must hold the same names.
        average: divide the sums by the number of processes.

    Returns:
        name -> result, complete on rank 0 only; on other ranks the values mean nothing.
    """
    world_size = get_world_size()
    if world_size == 1 or not input_dict:
        return dict(input_dict)
    with torch.no_grad():
        names = sorted(input_dict)  # insertion order may differ between processes
        values = torch.stack([input_dict[name] for name in names])
        dist.reduce(values, dst=0)
        if average and get_rank() == 0:
            values /= world_size
        return dict(zip(names, values.unbind()))
