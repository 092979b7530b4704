#!/usr/bin/env python
"""Build a release in dist/ and try it: sdist and wheels, each in an environment of its own.

    make dist

makes three files from the checkout: the sdist; out of it, a wheel of plain Python, which runs everywhere;
and, out of it again, a wheel with compiled operators for this platform (`--no-compiled` leaves it out). The
contents of each are checked and listed, and each wheel is installed into an empty environment in which no
compiler can be found, where a tiny model is built and run on a picture (tools/smoke_test.py). Nothing is
uploaded.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from build import ProjectBuilder
from build.env import DefaultIsolatedEnv

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"

# Beside the files of the package itself, as patterns that each match at least one file of the archive.
NEEDED = {
    "sdist": [
        r"^setup\.py$",
        r"^pyproject\.toml$",
        r"^LICENSE$",
        r"^CHANGELOG\.md$",
        r"^configs/Base-RCNN-FPN\.yaml$",
    ],
    "wheel": [r"/LICENSE$", r"^detectron2/model_zoo/configs/Base-RCNN-FPN\.yaml$"],
}
# What builds and runs leave behind and, in wheels, what is of no use once it is installed.
SOURCES = r"^detectron2/layers/csrc/"
UNWANTED = {
    "sdist": [r"__pycache__", r"\.py[cod]$", r"\.so$", r"^(output|datasets|\.venv)/"],
    "wheel": [r"__pycache__", r"\.py[cod]$", SOURCES, r"^(?!detectron2/|detectron2-[^/]+\.dist-info/)"],
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch", default="torch", help="requirement for the torch to compile and try with")
    parser.add_argument("--no-compiled", action="store_true", help="leave out the wheel with operators")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if DIST.exists():
        shutil.rmtree(DIST)
    # Files in archives carry the time of the commit: the same commit gives the same sdist.
    os.environ.setdefault("SOURCE_DATE_EPOCH", run("git", "-C", ROOT, "log", "-1", "--format=%ct").strip())
    sdist = build("sdist", ROOT)
    report(sdist, "sdist")
    with tempfile.TemporaryDirectory() as folder:
        sources = unpack(sdist, Path(folder))
        wheels = [build("wheel", sources, D2_BUILD_OPS="0")]
        if not args.no_compiled:
            wheels.append(build("wheel", sources, args.torch, D2_BUILD_OPS="1"))
        for wheel in wheels:
            report(wheel, "wheel")
            try_wheel(wheel, args.torch, Path(folder))
    print("\nReady in dist/:", *(path.name for path in (sdist, *wheels)), sep="\n  ")


def build(kind: Literal["sdist", "wheel"], sources: Path, *requirements: str, **settings: str) -> Path:
    """Build an archive in a new environment that holds what pyproject.toml asks for, and `requirements`.

    Args:
        kind: "sdist" or "wheel".
        settings: variables of the environment while it is built.

    Returns:
        The archive, in dist/.
    """
    print(f"\n=== {kind}, built with {', '.join(requirements) or 'nothing but setuptools'} ===", flush=True)
    os.environ.update(settings)
    with DefaultIsolatedEnv() as environment:
        builder = ProjectBuilder.from_isolated_env(environment, sources)
        environment.install({*builder.build_system_requires, *requirements})
        environment.install(builder.get_requires_for_build(kind))
        return Path(builder.build(kind, DIST))


def unpack(sdist: Path, folder: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return folder / sdist.name.removesuffix(".tar.gz")


def sizes_in(archive: Path) -> dict[str, int]:
    """Return the size in bytes of every file; names in an sdist begin below its only folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {entry.filename: entry.file_size for entry in wheel.infolist() if not entry.is_dir()}
    with tarfile.open(archive) as sdist:
        return {entry.name.partition("/")[2]: entry.size for entry in sdist if entry.isfile()}


def find_faults(names: set[str], kind: str, of_package: list[str]) -> list[str]:
    """Return a sentence for everything that is missing from an archive, or should not be in it.

    Args:
        names: the files in the archive.
        kind: "sdist" or "wheel".
        of_package: the files of the package as they lie in the checkout.
    """
    wanted = [name for name in of_package if kind == "sdist" or not re.search(SOURCES, name)]
    patterns = [pattern for pattern in NEEDED[kind] if not any(re.search(pattern, name) for name in names)]
    unwanted = [name for name in names if any(re.search(pattern, name) for pattern in UNWANTED[kind])]
    return [
        *(f"{name} is missing" for name in wanted if name not in names),
        *(f"nothing matches {pattern}" for pattern in patterns),
        *(f"{name} is in it" for name in sorted(unwanted)),
    ]


def report(archive: Path, kind: str) -> None:
    """List what is in an archive, a line per folder, and end the program if that is not as it should be."""
    sizes = sizes_in(archive)
    print(f"\n{archive.name}, {archive.stat().st_size / 1e6:.2f} MB:")
    for folder, (count, size) in sorted(folders(sizes).items()):
        print(f"  {count:5d} files {size / 1e3:9.1f} kB  {folder}")
    of_package = run("git", "-C", ROOT, "ls-files", "detectron2").splitlines()
    faults = find_faults(set(sizes), kind, of_package)
    if faults:
        sys.exit(f"{archive.name}: " + "; ".join(faults))


def folders(sizes: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Sum up files by their two uppermost folders: the number of files and their size in bytes."""
    found: dict[str, list[int]] = defaultdict(list)
    for name, size in sizes.items():
        found["/".join(name.split("/")[:-1][:2]) or "."].append(size)
    return {folder: (len(entries), sum(entries)) for folder, entries in found.items()}


def try_wheel(wheel: Path, torch: str, folder: Path) -> None:
    """Install a wheel where there is no compiler, with everything that it requires, and use it."""
    print(f"\n=== {wheel.name}, tried without a compiler ===", flush=True)
    home = folder / f"try-{wheel.stem}"
    venv.create(home, with_pip=True)
    programs = home / ("Scripts" if os.name == "nt" else "bin")
    python = programs / "python"
    environment = {**os.environ, "PATH": str(programs), "CC": "no-compiler", "CXX": "no-compiler"}
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run(*pip, "-c", constraints(folder), torch, wheel, env=environment)
    is_compiled = "yes" if "-abi3-" in wheel.name else "no"
    script = ROOT / "tools" / "smoke_test.py"
    said = run(python, "-I", script, "--compiled", is_compiled, env=environment, cwd=folder)
    print(said, end="", flush=True)


def constraints(folder: Path) -> Path:
    """Write the tested versions without torch's, which the caller chooses."""
    target = folder / "constraints.txt"
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    target.write_text("\n".join(line for line in lines if not line.startswith("torch==")), encoding="utf-8")
    return target


def run(*command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a program and return what it prints; end this one with all that it said if it fails."""
    parts = [str(part) for part in command]
    done = subprocess.run(parts, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(parts)}\nended with status {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
