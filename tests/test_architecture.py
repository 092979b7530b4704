"""The package keeps the rules of its structure: layers, facades, private names, plug-ins, sizes.

`tests/architecture/rules.py` holds the rules and their few exceptions.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from .architecture import rules
from .architecture.source_tree import ROOT, SourceTree

PACKAGE = SourceTree(ROOT, "detectron2")

# Files of the package that are tables, and may be long.
TABLES = {"detectron2/config/defaults.py"}

SOURCE_FOLDERS = ("detectron2", "projects", "tests", "tools", "demo", "datasets", "docs", "configs")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def sources() -> list[Path]:
    return [path for folder in SOURCE_FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def expect_none(found: list[str]) -> None:
    assert not found, "\n" + "\n".join(found)


def test_every_module_belongs_to_a_layer() -> None:
    expect_none(rules.homeless_modules(PACKAGE))


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {path.parent for path in PACKAGE.modules.values()}
    assert [relative(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_imports_point_to_lower_layers() -> None:
    expect_none(rules.upward_imports(PACKAGE))


def test_utils_imports_nothing_of_the_package() -> None:
    listed = {f"{PACKAGE.package}.{name}" for name in rules.RE_EXPORTS}
    inside = [item for item in PACKAGE.imports if item.module.startswith("detectron2.utils")]
    assert inside
    outgoing = [item for item in inside if not item.target.startswith("detectron2.utils")]
    expect_none([str(item) for item in outgoing if item.module not in listed])


def test_there_is_no_import_cycle() -> None:
    expect_none(rules.import_cycle(PACKAGE))


def test_no_module_uses_private_names_of_another() -> None:
    expect_none(rules.private_imports(PACKAGE))


def test_imports_inside_functions_and_by_string_have_a_reason() -> None:
    expect_none(rules.hidden_imports(PACKAGE))


@pytest.mark.parametrize("plugin", rules.PLUGINS)
def test_a_plugin_is_known_in_its_own_files_alone(plugin: str) -> None:
    expect_none(rules.plugin_knowledge(PACKAGE, {plugin: rules.PLUGINS[plugin]}))


def test_facades_hold_nothing_but_imports() -> None:
    expect_none(rules.thick_facades(PACKAGE))


@pytest.mark.parametrize("name", sorted(rules.RE_EXPORTS))
def test_listed_re_exports_exist_and_are_nothing_else(name: str) -> None:
    assert rules.is_facade(PACKAGE, f"{PACKAGE.package}.{name}")


def test_code_imports_defining_files_and_no_facade() -> None:
    expect_none(rules.facade_imports(PACKAGE))


def test_there_is_no_star_import_and_no_globals_call() -> None:
    expect_none(rules.wild_imports(PACKAGE))


def test_one_file_knows_the_library_of_run_length_codes() -> None:
    users = [name for name, path in PACKAGE.modules.items() if "from hotcoco import mask" in path.read_text()]
    assert users == ["detectron2.structures.rle"]


def test_files_of_the_package_are_short() -> None:
    lines = {relative(path): rules.count_lines(path) for path in PACKAGE.modules.values()}
    lines = {name: count for name, count in lines.items() if name not in TABLES}
    assert {name: count for name, count in lines.items() if count > 450} == {}
    assert statistics.quantiles(lines.values(), n=10)[-1] <= 300


def test_tables_that_may_be_long_exist() -> None:
    assert [name for name in TABLES if not (ROOT / name).is_file()] == []


def test_files_of_tests_and_tools_are_short() -> None:
    lines = {relative(path): rules.count_lines(path) for path in sources()}
    lines = {name: count for name, count in lines.items() if not name.startswith("detectron2/")}
    assert {name: count for name, count in lines.items() if count > 450} == {}


def test_functions_are_short() -> None:
    expect_none([text for path in sources() for text in rules.long_functions(path, 80)])


def imported_by(statement: str) -> set[str]:
    """Top-level modules that are loaded after a fresh interpreter runs `statement`."""
    code = f"{statement}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "statement", ["import detectron2", "from detectron2.config import get_cfg, CfgNode; get_cfg()"]
)
def test_light_imports_stay_light(statement: str) -> None:
    heavy = {
        "torch",
        "cv2",
        "matplotlib",
        "pycocotools",
        "hotcoco",
        "omegaconf",
        "PIL",
        "scipy",
        "torchvision",
    }
    loaded = imported_by(statement)
    assert "detectron2" in loaded
    assert not loaded & heavy


def test_engine_leaves_slow_libraries_to_those_who_need_them() -> None:
    heavy = {"cv2", "matplotlib", "scipy", "torchvision", "omegaconf", "tensorboard"}
    assert not imported_by("import detectron2.engine") & heavy
