"""What setup.py makes of the operators' sources: a wheel for every later torch, or a package without them."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import setuptools
import torch

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
NOT_SOURCES = shutil.ignore_patterns("*.so", "__pycache__", "*.pyc", "build")
HAS_COMPILER = shutil.which(os.environ.get("CXX", "g++")) is not None
needs_torch_that_compiles = pytest.mark.skipif(
    tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 11),
    reason="the stable ABI that operators are compiled for came with torch 2.11",
)


def run(*command: str | Path, check: bool = True, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a program with some variables of the environment set; an empty one is removed."""
    env = {k: v for k, v in {**os.environ, **settings}.items() if v or k == "PATH"}
    done = subprocess.run(
        [str(part) for part in command], env=env, capture_output=True, text=True, timeout=560, check=False
    )
    assert not check or done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def copy_sources(target: Path) -> Path:
    """A checkout of its own, so that a build leaves nothing in this one."""
    for name in ("detectron2", "configs"):
        shutil.copytree(ROOT / name, target / name, ignore=NOT_SOURCES, symlinks=True)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, target)
    return target


def build_wheel(
    folder: Path, check: bool = True, **settings: str
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Build a wheel in `folder`; returns it, or the folder if there is none, and pip's output."""
    sources = copy_sources(folder / "sources")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-v"]
    options = ["--no-build-isolation", "--no-deps", "--no-index", "-w", folder]
    done = run(*pip, *options, sources, check=check, **settings)
    return next(iter(folder.glob("*.whl")), folder), done


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout with compiled operators, built once for all test processes."""
    if not HAS_COMPILER:
        pytest.skip("needs a C++ compiler")
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if os.environ.get("PYTEST_XDIST_WORKER") else shared
    folder = shared / "wheel"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not list(folder.glob("*.whl")):
            shutil.rmtree(folder / "sources", ignore_errors=True)
            build_wheel(folder, D2_BUILD_OPS="1")
    return next(folder.glob("*.whl"))


def make_environment(folder: Path, wheel: Path) -> Path:
    """A new virtual environment with the wheel, which finds torch and the rest where this process does."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    site_packages = next(folder.glob("lib/python*/site-packages"))
    (site_packages / "torch.pth").write_text(str(Path(torch.__file__).parents[1]))
    # What a checkout installed as editable puts on the path would come first, were it not for this.
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    run(*pip, "install", "--no-index", "--no-deps", "--ignore-installed", wheel)
    return python


def library_in(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".so"))
        assert name == "detectron2/_C.abi3.so"
        return archive.read(name)


def elf_sections(data: bytes) -> dict[str, bytes]:
    """Contents of the sections of a 64-bit little-endian ELF file."""
    assert data[:6] == b"\x7fELF\x02\x01"
    (table,) = struct.unpack_from("<Q", data, 0x28)
    entry_size, count, names_index = struct.unpack_from("<HHH", data, 0x3A)
    # name, type, flags, address, offset, size
    headers = [struct.unpack_from("<IIQQQQ", data, table + i * entry_size) for i in range(count)]
    names_at = headers[names_index][4]
    contents = {}
    for name, kind, _, _, offset, size in headers:
        label = data[names_at + name : data.index(b"\0", names_at + name)].decode()
        contents[label] = b"" if kind == 8 else data[offset : offset + size]  # 8: takes no room in the file
    return contents


def undefined_symbols(data: bytes) -> list[str]:
    sections = elf_sections(data)
    names, table = sections[".dynstr"], sections[".dynsym"]
    found = []
    for name, _, _, section, _, _ in struct.iter_unpack("<IBBHQQ", table):
        if section == 0 and name:
            found.append(names[name : names.index(b"\0", name)].decode())
    return found


def gpu_images(fatbin: bytes) -> set[tuple[str, int]]:
    """Kind and architecture of every image in the section that nvcc writes."""
    images = set()
    for match in re.finditer(re.escape(struct.pack("<I", 0xBA55ED50)), fatbin):
        _, header_size, size = struct.unpack_from("<HHQ", fatbin, match.start() + 4)
        position, end = match.start() + header_size, match.start() + header_size + size
        while position < end:
            kind, _, entry_header, entry_size = struct.unpack_from("<HHIQ", fatbin, position)
            (architecture,) = struct.unpack_from("<I", fatbin, position + 28)
            images.add(({1: "PTX", 2: "binary"}.get(kind, str(kind)), architecture))
            position += entry_header + entry_size
    return images


@needs_torch_that_compiles
def test_wheel_is_for_every_later_python_and_torch(wheel: Path) -> None:
    assert "-cp310-abi3-" in wheel.name
    symbols = undefined_symbols(library_in(wheel))
    of_torch = [name for name in symbols if name.startswith(("aoti_torch_", "torch_"))]
    assert len(of_torch) > 20
    mangled = [name for name in symbols if re.match(r"_Z.*(2at|3c10|5torch|6caffe2)", name)]
    assert not mangled


@needs_torch_that_compiles
def test_gpu_kernels_are_there_for_two_generations_and_for_later_ones(wheel: Path) -> None:
    if shutil.which("nvcc") is None and not os.environ.get("CUDA_HOME"):
        pytest.skip("needs nvcc")
    images = gpu_images(elf_sections(library_in(wheel))[".nv_fatbin"])
    assert {("binary", 80), ("binary", 90), ("PTX", 90)} <= images


USE_EVERY_OPERATOR = """
import torch
from detectron2 import layers
from detectron2.layers import extension

assert "{folder}" in layers.__file__, layers.__file__
assert bool(extension.missing_reason()) is not {compiled}, extension.missing_reason()
boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4.5], [9, 9, 12, 12]])
assert layers.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2]
rois = torch.cat([torch.zeros(3, 1), boxes], dim=1)
torch.testing.assert_close(layers.roi_align(torch.ones(1, 1, 20, 20), rois, 2), torch.ones(3, 1, 2, 2))
conv = layers.DeformConv(2, 2, 3, padding=1)
conv(torch.ones(1, 2, 5, 5), torch.zeros(1, 18, 5, 5)).sum().backward()
assert layers.paste_masks_in_image(torch.ones(3, 7, 7), boxes, (12, 12)).any()
"""


@needs_torch_that_compiles
def test_wheel_works_where_there_is_no_compiler(wheel: Path, tmp_path: Path) -> None:
    python = make_environment(tmp_path / "env", wheel)
    script = USE_EVERY_OPERATOR.format(folder=tmp_path, compiled=True)
    run(python, "-I", "-W", "error", "-c", script, PATH="", D2_DISABLE_OPS="")


@needs_torch_that_compiles
def test_source_without_compiler_gives_a_package_that_passes_these_tests(tmp_path: Path) -> None:
    wheel, done = build_wheel(tmp_path, PATH="", CXX="", FORCE_CUDA="")
    assert "compiled operators left out: there is no C++ compiler" in done.stdout + done.stderr
    assert wheel.name.endswith("-py3-none-any.whl")
    python = make_environment(tmp_path / "env", wheel)
    script = USE_EVERY_OPERATOR.format(folder=tmp_path, compiled=False)
    run(python, "-I", "-W", "error", "-c", script, PATH="", D2_DISABLE_OPS="")
    names = ("operators", "nms", "roi_align", "roi_align_rotated", "rotated_boxes", "deform_conv", "mask_ops")
    tests = [ROOT / "tests" / "layers" / f"test_{name}.py" for name in names]
    # Isolated, so that the package in the current folder is not found.
    pytest_options = ["-q", "-p", "no:cacheprovider", "-m", "not slow and not gpu"]
    done = run(python, "-I", "-m", "pytest", *pytest_options, *tests, D2_DISABLE_OPS="", PYTEST_ADDOPTS="")
    assert re.search(r"\d{3} passed", done.stdout), done.stdout[-2000:]
    assert "detectron2._C is not built" in done.stdout  # the reason why some were skipped


@needs_torch_that_compiles
def test_a_failing_compiler_is_no_failing_install(tmp_path: Path) -> None:
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho this compiler is broken >&2\nexit 1\n")
    broken.chmod(0o755)
    wheel, done = build_wheel(tmp_path / "tolerant", CXX=str(broken), FORCE_CUDA="0")
    output = done.stdout + done.stderr
    assert "compiled operators left out" in output and "this compiler is broken" in output
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".so")]
    _, done = build_wheel(tmp_path / "strict", check=False, CXX=str(broken), FORCE_CUDA="0", D2_BUILD_OPS="1")
    assert done.returncode and "this compiler is broken" in done.stdout + done.stderr


HIDE_PACKAGES = """
import sys
sys.path = [path for path in sys.path if not path.endswith("site-packages")]
"""


@pytest.fixture
def isolated(tmp_path: Path) -> dict[str, str]:
    """Variables that make an interpreter see setuptools alone, as in the environment that pip builds in."""
    folder = tmp_path / "isolated"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HIDE_PACKAGES)
    packages = Path(setuptools.__file__).parents[1]
    for path in (*packages.glob("setuptools*"), packages / "_distutils_hack"):
        (folder / path.name).symlink_to(path)
    return {"PYTHONPATH": str(folder), "HOME": str(tmp_path), "VIRTUAL_ENV": "", "CONDA_PREFIX": ""}


def test_isolated_build_finds_the_torch_of_the_environment(tmp_path: Path, isolated: dict[str, str]) -> None:
    done = run(sys.executable, "-c", "import torch", check=False, **isolated)
    assert "No module named 'torch'" in done.stderr
    sources = copy_sources(tmp_path / "sources")
    command = ("env", "-C", sources, sys.executable, sources / "setup.py", "--version")
    done = run(*command, FORCE_CUDA="0", **isolated)
    assert f"compiling operators for the CPU with torch {torch.__version__}" in done.stdout


def test_isolated_build_without_torch_says_how_to_get_operators(
    tmp_path: Path, isolated: dict[str, str]
) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "empty")
    python = tmp_path / "empty" / "bin" / "python"
    if (
        run(python, "-c", "import sys, os; os.chdir(sys.base_prefix); import torch", check=False).returncode
        == 0
    ):
        pytest.skip("the interpreter itself has torch")
    sources = copy_sources(tmp_path / "sources")
    command = ("env", "-C", sources, python, sources / "setup.py", "--version")
    done = run(*command, **isolated)
    assert "left out: there is no torch to build with; install it first" in done.stdout
    done = run(*command, check=False, FORCE_CUDA="1", **isolated)
    assert done.returncode and "impossible" in done.stderr
    done = run(*command, D2_BUILD_OPS="0", **isolated)
    assert "operators" not in done.stdout
    # The environment that a tool names is looked through, too.
    done = run(*command, FORCE_CUDA="0", **{**isolated, "VIRTUAL_ENV": sys.prefix})
    assert f"with torch {torch.__version__}" in done.stdout


def test_isolated_build_refuses_a_torch_that_is_too_old(tmp_path: Path, isolated: dict[str, str]) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "old")
    (packages,) = (tmp_path / "old" / "lib").glob("python*/site-packages")
    (packages / "torch" / "include").mkdir(parents=True)
    (packages / "torch" / "version.py").write_text("__version__ = '2.6.0+cpu'\n")
    sources = copy_sources(tmp_path / "sources")
    done = run(
        "env", "-C", sources, tmp_path / "old/bin/python", sources / "setup.py", "--version", **isolated
    )
    assert "they need torch 2.11 or later" in done.stdout and "is 2.6.0+cpu" in done.stdout
