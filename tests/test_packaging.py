"""Files around the package agree: requirements, make targets, the public CI, what a release holds."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKE_TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def pinned(name: str) -> dict[str, set[str]]:
    """The versions that a file of constraints names for each package, which may depend on the Python."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (version,) = requirement.specifier
            found.setdefault(requirement.name.lower(), set()).add(version.version)
    return found


def required(*extras: str) -> list[Requirement]:
    optional = PROJECT["optional-dependencies"]
    entries = [*PROJECT["dependencies"], *(entry for name in extras for entry in optional[name])]
    return [Requirement(entry) for entry in entries]


@pytest.fixture(scope="module")
def make_dist() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_dist", ROOT / "tools" / "make_dist.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("requirement", required(), ids=lambda requirement: requirement.name)
def test_lowest_versions_are_those_of_pyproject(requirement: Requirement) -> None:
    (lowest,) = [entry.version for entry in requirement.specifier if entry.operator == ">="]
    (version,) = pinned("constraints-lowest.txt")[requirement.name.lower()]
    # The first release of a version may be called 4.8.0.74 or 0.1.5.post20221221.
    assert version == lowest or version.startswith((f"{lowest}.", f"{lowest}.0."))
    assert requirement.specifier.contains(version)


@pytest.mark.parametrize("requirement", required("dev", "onnx"), ids=lambda requirement: requirement.name)
def test_tested_versions_are_named_and_allowed(requirement: Requirement) -> None:
    versions = pinned("constraints.txt")[requirement.name.lower()]
    assert all(requirement.specifier.contains(version) for version in versions)


def test_ci_runs_lint_and_tests() -> None:
    assert re.findall(r"\bmake (\w+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8")) == ["lint", "test"]


def test_public_workflow_runs_make_targets_that_exist_on_every_python_and_system() -> None:
    path = ROOT / ".github" / "workflows" / "ci.yml"
    assert "NOT been run" in path.read_text(encoding="utf-8").partition("name:")[0]
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    matrix = jobs["test"]["strategy"]["matrix"]
    targets = {command.split()[1] for command in commands if "$" not in command.split()[1]}
    targets |= {*matrix["target"], *(row["target"] for row in matrix["include"])}
    assert targets == {"lint", "test", "test-lowest", "test-newest", "dist"} and targets <= MAKE_TARGETS
    systems = {*matrix["os"], *(row["os"] for row in matrix["include"])}
    assert {system.partition("-")[0] for system in systems} == {"ubuntu", "macos", "windows"}
    assert matrix["python"] == [f"3.{minor}" for minor in range(10, 15)]
    assert PROJECT["requires-python"] == f">={matrix['python'][0]}"


def test_commit_hooks_run_tools_of_the_environment() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repo in config["repos"] if repo["repo"] == "local" for hook in repo["hooks"]]
    assert len(config["repos"]) == 1, "a repository to be downloaded"
    tools = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in hooks}
    assert tools - {"make"} <= {requirement.name for requirement in required("dev")}
    assert {hook["entry"].split()[-1] for hook in hooks if hook["entry"].startswith("make")} <= MAKE_TARGETS


def test_contents_of_a_release_are_checked(make_dist: ModuleType) -> None:
    package = ["detectron2/__init__.py", "detectron2/layers/csrc/library.cpp"]
    wheel = {
        "detectron2/__init__.py",
        "detectron2/model_zoo/configs/Base-RCNN-FPN.yaml",
        "detectron2-1.0.0.dist-info/licenses/LICENSE",
    }
    assert make_dist.find_faults(wheel, "wheel", package) == []
    faults = make_dist.find_faults({*wheel, "tests/test_a.py"} - {package[0]}, "wheel", package)
    assert faults == ["detectron2/__init__.py is missing", "tests/test_a.py is in it"]
    assert make_dist.find_faults({*wheel, package[1]}, "wheel", package) == [f"{package[1]} is in it"]
    sdist = {"setup.py", "pyproject.toml", "LICENSE", "CHANGELOG.md", "configs/Base-RCNN-FPN.yaml", *package}
    assert make_dist.find_faults(sdist, "sdist", package) == []
    assert make_dist.find_faults(sdist - {package[1]}, "sdist", package) == [f"{package[1]} is missing"]
    assert make_dist.find_faults(sdist - {"setup.py"}, "sdist", package) == [r"nothing matches ^setup\.py$"]


def test_folders_of_a_release_are_summed_up(make_dist: ModuleType) -> None:
    sizes = {"setup.py": 1, "a/b.py": 2, "a/c.py": 3, "a/b/c.py": 4, "a/b/c/d.py": 5}
    assert make_dist.folders(sizes) == {".": (1, 1), "a": (2, 5), "a/b": (2, 9)}
