"""Names that published projects take from the package can be reached where they look for them.

`client_names.json` holds what 20 projects import, call, override or use on `self` of a base class, and how
many of them do: `module:name` or `module:Class.member`. `module_names.json` holds every name that can be
reached at each module of detectron2, what the module merely imports included.
"""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from detectron2.utils.offer import OFFERED

HERE = Path(__file__).parent
CLIENT_NAMES: dict[str, int] = json.loads((HERE / "client_names.json").read_text(encoding="utf-8"))
MODULE_NAMES: dict[str, list[str]] = json.loads((HERE / "module_names.json").read_text(encoding="utf-8"))
PACKAGE = HERE.parents[1] / "detectron2"

# PointRend, DeepLab and Panoptic-DeepLab, which are not part of this package.
ELSEWHERE = "detectron2.projects"


def reach(owner: Any, name: str) -> Any:
    """What `from owner import name` gives: an attribute, or a module below."""
    if not hasattr(owner, name) and isinstance(owner, ModuleType) and hasattr(owner, "__path__"):
        return importlib.import_module(f"{owner.__name__}.{name}")
    return getattr(owner, name)


def why_not(path: str) -> str | None:
    """What stands in the way of a name, or None."""
    module, _, names = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for name in filter(None, names.split(".")):
            found = reach(found, name)
    except (ImportError, AttributeError) as error:
        return f"{path}: {error}"
    return None


def test_the_lists_are_whole() -> None:
    assert len(CLIENT_NAMES) == 749
    assert sum(path.partition(":")[0].startswith(ELSEWHERE) for path in CLIENT_NAMES) == 23
    assert sum(map(len, MODULE_NAMES.values())) == 1503


def test_names_that_clients_use() -> None:
    here = [path for path in CLIENT_NAMES if not path.partition(":")[0].startswith(ELSEWHERE)]
    missing = [reason for path in here if (reason := why_not(path))]
    assert not missing, "\n".join(missing)


def test_names_at_each_module() -> None:
    missing = [
        reason
        for module, names in MODULE_NAMES.items()
        for name in names
        if (reason := why_not(f"{module}:{name}"))
    ]
    assert not missing, "\n".join(missing)


IN_A_FRESH_PROCESS = """
import importlib, json, os, sys
import cv2, hotcoco, numpy, omegaconf, PIL.Image, torch  # once, for all that follow

for module, names in json.loads(sys.argv[1]).items():
    child = os.fork()
    if not child:
        found = importlib.import_module(module)
        print(*(f"{module}.{name}" for name in names if not hasattr(found, name)), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, module
"""


def test_attributes_of_a_package_are_there_once_it_is_imported() -> None:
    """`import detectron2.data` and then `detectron2.data.build`, and nothing else imported before."""
    # `utils` is empty until one of its modules is imported, in detectron2 too.
    packages = {
        module: names
        for module, names in MODULE_NAMES.items()
        if module.count(".") == 1 and module != "detectron2.utils"
    }
    assert "build" in packages["detectron2.data"] and len(packages) > 10
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_A_FRESH_PROCESS, json.dumps(packages)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    "statement",
    ["from detectron2 import _C", "import detectron2._C as _C", "import torch; from detectron2 import _C"],
)
def test_the_compiled_module_can_be_imported_first(statement: str) -> None:
    code = f"{statement}\nprint(_C.get_compiler_version(), _C.get_cuda_version(), _C.has_cuda())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_a_name_that_is_offered_is_what_the_module_gives() -> None:
    """A module that has got such a name of its own no longer needs the offer."""
    for module in MODULE_NAMES:
        importlib.import_module(module)
    unused = [
        f"{module}.{name}: take it out of compat_names.py, the module has one of its own"
        for module, names in OFFERED.items()
        for name, item in names.items()
        if not isinstance(item, str) and getattr(importlib.import_module(module), name) is not item
    ]
    assert OFFERED and not unused, "\n".join(unused)


def imported_modules(path: Path) -> set[str]:
    nodes = [
        n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.ImportFrom)
    ]
    return {(node.module or "").split(".")[-1] for node in nodes} | {
        alias.name for node in nodes for alias in node.names
    }


def test_nothing_of_ours_uses_what_is_offered() -> None:
    """Only what hands names on imports them: facades, and light modules that no package loads."""
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "compat_names" in imported_modules(path) and path.name not in ("__init__.py", "compat_names.py")
    }
    assert users == {
        "config/lazy.py",
        "data/datasets/lvis_v0_5_categories.py",
        "data/datasets/lvis_v1_categories.py",
        "data/datasets/lvis_v1_category_image_count.py",
        "export/torchscript.py",
        "export/torchscript_patch.py",
        "utils/env.py",
        "utils/logger.py",
        "utils/registry.py",
        "utils/testing.py",
    }
