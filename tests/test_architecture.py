"""The imports of the package follow the layers that LAYOUT.md of the project describes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "detectron2"

# A module imports from lines above its own; the packages of one line do not import each other.
LAYERS = [
    ["utils"],
    ["config"],
    ["layers"],
    ["structures", "collect_env"],
    ["data", "solver", "checkpoint"],
    ["visualization"],
    ["modeling", "tracking", "evaluation"],
    ["engine", "model_zoo"],
    ["export"],
    ["projects", "testing", "analysis"],
]

# Old public paths in `utils` of code that lives higher: re-exports and nothing else.
RE_EXPORTS = {
    f"{PACKAGE}.utils.{name}"
    for name in ("analysis", "collect_env", "colormap", "testing", "video_visualizer", "visualizer")
}


@dataclass(frozen=True)
class Import:
    """One import statement inside the package."""

    module: str
    target: str
    line: int
    in_function: bool
    for_types: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {module_name(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}


@cache
def syntax_tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def is_package(module: str) -> bool:
    return modules()[module].name == "__init__.py"


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def import_nodes(
    node: ast.AST, in_function: bool = False, for_types: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, in_function, for_types
        else:
            inside = in_function or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from import_nodes(child, inside, for_types or is_type_checking(child))


def from_targets(node: ast.ImportFrom, module: str) -> Iterator[str]:
    if node.level:
        parts = module.split(".")
        base = parts if is_package(module) else parts[:-1]
        base = base[: len(base) - (node.level - 1)]
        source = ".".join(base + ([node.module] if node.module else []))
    else:
        source = node.module or ""
    for alias in node.names:
        # `from package import module` imports the module; `from module import name` the module around it.
        full = f"{source}.{alias.name}"
        yield full if full in modules() else source


@cache
def imports() -> list[Import]:
    found = []
    for module in modules():
        for node, in_function, for_types in import_nodes(syntax_tree(module)):
            targets = (
                from_targets(node, module)
                if isinstance(node, ast.ImportFrom)
                else (alias.name for alias in node.names)
            )
            found += [
                Import(module, target, node.lineno, in_function, for_types)
                for target in dict.fromkeys(targets)
                if target in modules()
            ]
    return found


def layer_of(module: str) -> tuple[int, str] | None:
    """(layer number, name of the package), or None for the root package."""
    best = None
    for number, names in enumerate(LAYERS):
        for name in names:
            full = f"{PACKAGE}.{name}"
            if (module == full or module.startswith(full + ".")) and (
                best is None or len(name) > len(best[1])
            ):
                best = (number, name)
    return best


def test_every_module_belongs_to_a_layer() -> None:
    homeless = [module for module in modules() if module != PACKAGE and layer_of(module) is None]
    assert not homeless


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {path.parent for path in modules().values()}
    assert not [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").is_file()]


def test_imports_point_to_lower_layers() -> None:
    wrong = []
    for item in imports():
        source, target = layer_of(item.module), layer_of(item.target)
        if source is None or target is None or item.module in RE_EXPORTS:
            continue
        if source[1] != target[1] and source[0] <= target[0]:
            wrong.append(str(item))
    assert not wrong


def test_there_is_no_import_cycle() -> None:
    graph: dict[str, set[str]] = {module: set() for module in modules()}
    for item in imports():
        if not item.for_types and item.target != item.module:
            graph[item.module].add(item.target)
    done: set[str] = set()

    def visit(module: str, chain: list[str]) -> list[str] | None:
        if module in chain:
            return [*chain[chain.index(module) :], module]
        if module in done:
            return None
        for target in sorted(graph[module]):
            cycle = visit(target, [*chain, module])
            if cycle:
                return cycle
        done.add(module)
        return None

    for module in graph:
        assert not visit(module, [])


def test_no_module_imports_a_package_above_itself() -> None:
    wrong = [
        str(item)
        for item in imports()
        if item.target != PACKAGE and item.module.startswith(item.target + ".") and is_package(item.target)
    ]
    assert not wrong


def is_facade(module: str) -> bool:
    """A file of imports and `__all__` alone, which keeps an old path alive."""
    body = [
        node
        for node in syntax_tree(module).body
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]
    imported = [node for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
    exports = [
        node
        for node in body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]
    ]
    return not is_package(module) and bool(imported) and len(imported) + len(exports) == len(body)


def test_no_facade_is_imported_inside_the_package() -> None:
    facades = {module for module in modules() if is_facade(module)}
    # A package may make its facades reachable as its attributes.
    assert not [
        str(item)
        for item in imports()
        if item.target in facades and item.module != item.target.rpartition(".")[0]
    ]


def test_only_its_package_knows_res2net() -> None:
    folder = f"{PACKAGE}.modeling.backbone.res2net"
    knowing = {module for module, path in modules().items() if "res2net" in path.read_text("utf-8").lower()}
    assert f"{PACKAGE}.modeling.backbone" in knowing
    others = {module for module in knowing if module != folder and not module.startswith(f"{folder}.")}
    assert others == {f"{PACKAGE}.modeling.backbone"}
    facade = syntax_tree(f"{PACKAGE}.modeling.backbone")
    used = {ast.unparse(node) for node in facade.body if "res2net" in ast.unparse(node).lower()}
    assert used and all(line.startswith("from .res2net import ") for line in used)


def test_there_is_no_star_import_and_no_globals_call() -> None:
    wrong = []
    for module in modules():
        for node in ast.walk(syntax_tree(module)):
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
                wrong.append(f"{module}:{node.lineno} star import")
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "globals":
                wrong.append(f"{module}:{node.lineno} globals()")
    assert not wrong


# (importing, imported) module: imports that wait until they are needed, each with its reason.
DEFERRED_IMPORTS = {
    ("config", "config.lazy"): "omegaconf, which YAML configs do not need",
    ("engine.defaults.setup", "config.lazy"): "omegaconf, which YAML configs do not need",
    (
        "modeling.meta_arch.training_pictures",
        "data.detection_utils.image_io",
    ): "pictures of training are rare",
    (
        "modeling.meta_arch.training_pictures",
        "visualization.visualizer",
    ): "pictures of training are rare",
}


def test_functions_do_not_hide_imports_of_the_package() -> None:
    allowed = {(f"{PACKAGE}.{source}", f"{PACKAGE}.{target}") for source, target in DEFERRED_IMPORTS}
    hidden = {(item.module, item.target): str(item) for item in imports() if item.in_function}
    assert not [text for key, text in hidden.items() if key not in allowed]


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
