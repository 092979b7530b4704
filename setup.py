"""Build the package: its configs and, where a compiler and torch are at hand, its compiled operators.

Everything that can be said in a table stands in pyproject.toml. A plain `pip install .` builds in an
environment of its own that has no torch; headers and libraries of the torch that is installed beside
it are found by their place. Environment variables:

    FORCE_CUDA=1   build the CUDA kernels; an error where that is impossible
    FORCE_CUDA=0   leave the CUDA kernels out
    D2_BUILD_OPS=0 leave all compiled operators out; the package then runs on plain PyTorch
    D2_BUILD_OPS=1 an error, instead of a package without them, where the operators cannot be built
    D2_CUDA_ARCH   architectures to compile for, such as "80;90" (the default); the last one also as PTX
    MAX_JOBS       files compiled at the same time; default: the number of processors
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "detectron2" / "layers" / "csrc"
# The stable ABI of this torch version, and of every later one.
TORCH_TARGET = (2, 11)
PYTHON_TARGET = 0x030A0000
DEFAULT_ARCHITECTURES = "80;90"


class BuildWithConfigs(build_py):
    """Ship `configs/` as `detectron2/model_zoo/configs`; an editable install reads them where they are."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for source, target in self._config_files():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = super().get_outputs(include_bytecode)
        return outputs + [str(target) for _, target in self._config_files()]

    def _config_files(self) -> list[tuple[Path, Path]]:
        folder = ROOT / "configs"
        target = Path(self.build_lib) / "detectron2" / "model_zoo" / "configs"
        files = (path for path in sorted(folder.rglob("*")) if path.suffix in (".yaml", ".py"))
        return [(path, target / path.relative_to(folder)) for path in files]


class BuildOperators(build_ext):
    """Compile the operators, files in parallel; without success the package is pure Python and says so."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:  # whatever a compiler, a linker or their absence brings
            if is_required():
                raise
            say(f"compiled operators left out: {error}")
            self.extensions: list[Extension] = []

    def build_extension(self, ext: Extension) -> None:
        jobs = int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))
        folder = Path(self.build_temp)
        folder.mkdir(parents=True, exist_ok=True)
        self.compiler.src_extensions.append(".cu")
        with ThreadPoolExecutor(jobs) as pool:
            objects = list(pool.map(lambda source: self._compile(ext, Path(source), folder), ext.sources))
        self.compiler.link_shared_object(
            objects,
            self.get_ext_fullpath(ext.name),
            libraries=ext.libraries,
            library_dirs=ext.library_dirs,
            target_lang="c++",
        )

    def _compile(self, ext: Extension, source: Path, folder: Path) -> str:
        target = folder / ("_".join(source.relative_to(SOURCES).parts) + ".o")
        headers = [option for path in ext.include_dirs for option in ("-isystem", path)]
        if source.suffix == ".cu":
            command = [*nvcc_command(), *headers]
        else:
            compiler = self.compiler.compiler_so_cxx if hasattr(self.compiler, "compiler_so_cxx") else None
            macros = [f"-D{name}={value}" for name, value in ext.define_macros]
            command = [*host_command(compiler), *macros, *headers]
        command += ["-c", str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{source.name} does not compile:\n{done.stderr[-4000:]}")
        if done.stderr:
            say(f"{source.name}: {done.stderr}")
        return str(target)


def say(message: str) -> None:
    print(f"detectron2: {message}", flush=True)


def is_required() -> bool:
    return os.environ.get("D2_BUILD_OPS") == "1" or os.environ.get("FORCE_CUDA") == "1"


def host_command(compiler: list[str] | None) -> list[str]:
    """The C++ compiler, from the environment or from what setuptools would use, with our options."""
    name = os.environ.get("CXX") or (compiler[0] if compiler else "g++")
    # Without contraction a product and a sum are rounded alike on every processor, fused instruction or not.
    options = ["-std=c++20", "-O3", "-Wall", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"]
    return [*name.split(), *options]


def nvcc_command() -> list[str]:
    """nvcc for every wanted architecture, and for the newest also as PTX, which later GPUs can run."""
    architectures = re.findall(r"\d+a?", os.environ.get("D2_CUDA_ARCH", DEFAULT_ARCHITECTURES))
    targets = [f"arch=compute_{number},code=sm_{number}" for number in architectures]
    targets.append(f"arch=compute_{architectures[-1]},code=compute_{architectures[-1]}")
    options = [option for target in targets for option in ("-gencode", target)]
    return [find_nvcc() or "nvcc", "-std=c++17", "-O3", "-Xcompiler", "-fPIC", *options]


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    return shutil.which("nvcc", path=os.path.join(home, "bin")) if home else shutil.which("nvcc")


def cuda_root() -> Path | None:
    """The toolkit's folder as nvcc itself reports it (the one on the path may be a wrapper)."""
    nvcc = find_nvcc()
    if nvcc is None:
        return None
    command = [nvcc, "--dryrun", "-x", "cu", "-c", os.devnull]
    report = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"TOP=(.+)", report.stderr)
    root = Path(found.group(1).strip()).resolve() if found else Path(nvcc).resolve().parent.parent
    return root if (root / "include" / "cuda_runtime.h").exists() else None


def wants_cuda() -> bool:
    """Whether to build CUDA kernels: if asked for; else wherever there is a toolkit."""
    choice = os.environ.get("FORCE_CUDA")
    if choice == "0":
        return False
    root = cuda_root()
    if choice == "1" and root is None:
        raise SystemExit("FORCE_CUDA=1, but there is no CUDA toolkit: put nvcc on the path or set CUDA_HOME")
    return root is not None


def find_torch() -> Path | None:
    """The folder of the torch to build with: one that can be imported, else one that is installed beside."""
    spec = importlib.util.find_spec("torch")  # does not import it
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    found = (folder / "torch" for folder in package_folders())
    return next(
        (path for path in found if (path / "version.py").is_file() and (path / "include").is_dir()), None
    )


def package_folders() -> Iterator[Path]:
    """Where packages for this version of Python are, beside those of the environment for the build.

    pip builds with the interpreter that it runs with; other tools make a new environment for the build, and
    name theirs in a variable.
    """
    prefixes = [sys.prefix, os.environ.get("VIRTUAL_ENV"), os.environ.get("CONDA_PREFIX"), sys.base_prefix]
    for prefix in filter(None, prefixes):
        for key in ("platlib", "purelib"):
            yield Path(sysconfig.get_path(key, vars={"base": prefix, "platbase": prefix}))
    yield Path(site.getusersitepackages())


def read_torch_version(folder: Path) -> str:
    """What `torch.__version__` is, without importing torch, whose requirements may not be there."""
    text = (folder / "version.py").read_text(encoding="utf-8")
    found = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)", text, re.MULTILINE)
    return found.group(1) if found else "0.0"


def make_extension() -> Extension | None:
    """Describe the operators' library, or say why there will be none."""
    if os.environ.get("D2_BUILD_OPS") == "0" or not SOURCES.is_dir():
        return None
    torch_folder = find_torch()
    if torch_folder is None:
        give_up("there is no torch to build with; install it first, and then: pip install .")
        return None
    version = read_torch_version(torch_folder)
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < TORCH_TARGET:
        give_up(f"they need torch {TORCH_TARGET[0]}.{TORCH_TARGET[1]} or later, {torch_folder} is {version}")
        return None
    if shutil.which((os.environ.get("CXX") or "g++").split()[0]) is None and shutil.which("c++") is None:
        give_up("there is no C++ compiler")
        return None
    with_cuda = wants_cuda()
    patterns = ["library.cpp", "*/*_cpu.cpp", *(["*/*_cuda.cpp", "*/*_cuda.cu"] if with_cuda else [])]
    libraries, library_dirs = ["torch_cpu", "torch", "c10"], [str(torch_folder / "lib")]
    headers = torch_folder / "include"
    include_dirs = [str(headers), str(headers / "torch" / "csrc" / "api" / "include")]
    if with_cuda:
        root = cuda_root()
        assert root is not None
        libraries += ["cudart_static", "dl", "rt", "pthread"]
        library_dirs += [str(root / "lib64"), str(root / "lib")]
        include_dirs += [str(root / "include")]
    what = "the CPU and CUDA" if with_cuda else "the CPU"
    say(f"compiling operators for {what} with torch {version} of {torch_folder}; this takes a minute")
    target = f"0x{TORCH_TARGET[0]:02x}{TORCH_TARGET[1]:02x}000000000000"
    return Extension(
        "detectron2._C",
        [str(path) for pattern in patterns for path in sorted(SOURCES.glob(pattern))],
        include_dirs=[*include_dirs, sysconfig.get_paths()["include"]],
        define_macros=[("TORCH_TARGET_VERSION", target), ("Py_LIMITED_API", f"0x{PYTHON_TARGET:08X}")],
        libraries=libraries,
        library_dirs=library_dirs,
        py_limited_api=True,
    )


def give_up(reason: str) -> None:
    if is_required():
        raise SystemExit(f"detectron2: compiled operators are impossible: {reason}")
    say(f"compiled operators left out: {reason}")


extension = make_extension()
setup(
    cmdclass={"build_py": BuildWithConfigs, "build_ext": BuildOperators},
    ext_modules=[extension] if extension else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if extension else {},
)
