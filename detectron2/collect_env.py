"""What a bug report needs to know about a machine: `python -m detectron2.collect_env`."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from typing import Any

import numpy as np
import torch
import torch.multiprocessing.spawn as mp

import detectron2

__all__ = ["collect_env_info"]

_PACKAGES = (
    "fvcore",
    "iopath",
    "omegaconf",
    "pycocotools",
    "hotcoco",
    "Pillow",
    "opencv-python-headless",
    "opencv-python",
    "safetensors",
    "torchvision",
    "tensorboard",
)


def collect_torch_env() -> str:
    """Return torch's own report on compiler, CUDA and libraries, or its build settings where that fails."""
    try:
        return str(importlib.import_module("torch.utils.collect_env").get_pretty_env_info())
    except (ImportError, AttributeError, OSError):
        return torch.__config__.show()


def get_env_module() -> tuple[str, str]:
    """Return name and value of the variable that names the user's set-up module."""
    name = "DETECTRON2_ENV_MODULE"
    return name, os.environ.get(name, "<not set>")


def detect_compute_compatibility(CUDA_HOME: str, so_file: str) -> str:
    """List the GPU architectures that a compiled library was built for.

    Args:
        CUDA_HOME: folder of the CUDA toolkit, whose `cuobjdump` is asked.
        so_file: the library.
    """
    cuobjdump = os.path.join(CUDA_HOME, "bin", "cuobjdump")
    if not os.path.isfile(cuobjdump):
        return f"unknown: {cuobjdump} is not there"
    result = subprocess.run(
        [cuobjdump, "--list-elf", so_file], capture_output=True, text=True, timeout=60, check=False
    )
    found = {f"{major}.{minor}" for major, minor in re.findall(r"\.sm_(\d+)(\d)", result.stdout)}
    return ", ".join(sorted(found)) or "none: no GPU code inside"


def collect_env_info() -> str:
    """Return a table of versions, devices and compiled operators, followed by torch's build settings."""
    rows: list[tuple[str, str]] = [
        ("platform", f"{platform.platform()}, {platform.machine()}, {os.cpu_count()} CPUs"),
        ("Python", sys.version.replace("\n", "")),
        ("detectron2", f"{detectron2.__version__} @ {os.path.dirname(str(detectron2.__file__))}"),
        *_operator_rows(),
        get_env_module(),
        ("torch", f"{torch.__version__} @ {os.path.dirname(str(torch.__file__))}"),
        ("torch debug build", str(torch.version.debug)),
        ("numpy", np.__version__),
        *((package, version) for package in _PACKAGES if (version := _version_of(package))),
        *_gpu_rows(),
    ]
    width = max(len(name) for name, _ in rows)
    table = "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
    return f"{table}\n\n{torch.__config__.show()}"


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _operator_rows() -> list[tuple[str, str]]:
    """One line on the compiled library, and one on where each of its operators runs."""
    # By name, because this module lies below `layers`, and its report must come out where that is broken.
    try:
        extension: Any = importlib.import_module("detectron2.layers.extension")
    except ImportError as e:
        return [("compiled operators", f"unknown: {e}")]
    reason = extension.missing_reason()
    if reason:
        return [("compiled operators", f"none, plain PyTorch is used: {reason}")]
    library = str(extension.library_file())
    rows = [("compiled operators", library)]
    for name in extension.OPERATORS:
        devices = [kind for kind in ("cpu", "cuda") if extension.find_operator(name, torch.device(kind))]
        rows.append((f"  {name}", ", ".join(devices) or "plain PyTorch"))
    if not any(extension.find_operator(name, torch.device("cuda")) for name in extension.OPERATORS):
        rows.append(("  for GPUs", f"none are built; {extension.BUILD_HINT}"))
    cuda_home = _cuda_home()
    if cuda_home and os.path.isfile(os.path.join(cuda_home, "bin", "cuobjdump")):
        rows.append(("  GPU architectures", detect_compute_compatibility(cuda_home, library)))
    return rows


def _cuda_home() -> str | None:
    """Folder of the CUDA toolkit, if there is one."""
    configured = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if configured:
        return configured
    nvcc = shutil.which("nvcc")
    return os.path.dirname(os.path.dirname(os.path.realpath(nvcc))) if nvcc else None


def _gpu_rows() -> list[tuple[str, str]]:
    rows = [("CUDA toolkit", _cuda_home() or "not found"), ("CUDA of torch", torch.version.cuda or "none")]
    if not torch.cuda.is_available():
        return [*rows, ("GPU", "none available")]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        rows.append(
            (
                f"GPU {index}",
                f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, "
                f"architecture {properties.major}.{properties.minor}",
            )
        )
    return rows


def test_nccl_ops() -> None:
    """Let all GPUs of this machine take part in one NCCL operation; a broken set-up hangs or raises here."""
    num_gpus = torch.cuda.device_count()
    if num_gpus < 2 or not torch.distributed.is_nccl_available():
        return
    mp.start_processes(nccl_worker, args=(num_gpus, f"tcp://127.0.0.1:{_free_port()}"), nprocs=num_gpus)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def nccl_worker(rank: int, num_gpu: int, dist_url: str) -> None:
    """Be one of the processes of `test_nccl_ops`.

    Args:
        rank: of the process, and its GPU.
        num_gpu: how many there are.
        dist_url: where they meet.
    """
    torch.cuda.set_device(rank)
    torch.distributed.init_process_group("nccl", init_method=dist_url, rank=rank, world_size=num_gpu)
    torch.distributed.barrier(device_ids=[rank])
    torch.distributed.destroy_process_group()


# Its name is public; pytest shall not take it for a test where it is imported.
test_nccl_ops.__test__ = False  # type: ignore[attr-defined]


def main() -> None:
    """Print the report, and try the GPUs out."""
    sys.stdout.write(collect_env_info() + "\n")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            torch.ones(1, device=f"cuda:{index}").sum().item()
        test_nccl_ops()


if __name__ == "__main__":
    main()
