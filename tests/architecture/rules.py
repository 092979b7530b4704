"""The rules of the package's structure: its layers, and checks that name every line that breaks one.

A check takes a `SourceTree` and gives a list of sentences, empty where all is well.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from .source_tree import SourceTree, is_text, is_type_checking

Layers = Sequence[Sequence[str]]

# A module imports from lines above its own; the packages of one line do not import each other.
LAYERS: Layers = (
    ("utils",),
    ("config",),
    ("layers",),
    ("structures", "collect_env", "_C"),
    ("data", "solver", "checkpoint"),
    ("visualization",),
    ("modeling", "tracking", "evaluation"),
    ("engine", "model_zoo"),
    ("export",),
    ("projects", "testing", "analysis"),
)

# Old public paths of code that lives higher: re-exports and nothing else, and all that may break layers.
RE_EXPORTS = frozenset(
    f"utils.{name}"
    for name in ("analysis", "collect_env", "colormap", "testing", "video_visualizer", "visualizer")
) | frozenset(
    f"data.datasets.{name}"
    for name in (
        "lvis_v0_5_categories",
        "lvis_v1_categories",
        "lvis_v1_category_image_count",
        "register_coco",
    )
)

# Facades with a `__getattr__` that imports on first use, each with its reason.
LAZY_FACADES = {"config": "omegaconf, which YAML configs do not need"}

# (importing, imported) module: imports that wait until they are needed or go by name, each with its reason.
DEFERRED_IMPORTS = {
    ("config", "config.lazy"): LAZY_FACADES["config"],
    ("engine.defaults.setup", "config.lazy"): LAZY_FACADES["config"],
    ("collect_env", "layers.extension"): "the report must come out where the operators are broken",
    (
        "data.datasets.builtin",
        "data.datasets.shapes.dataset",
    ): "OpenCV, which drawing needs and registering does not",
    (
        "modeling.meta_arch.training_pictures",
        "data.detection_utils.image_io",
    ): "pictures of training are rare",
    ("modeling.meta_arch.training_pictures", "visualization.visualizer"): "pictures of training are rare",
}

# Packages whose public name begins with an underscore: their own files may import each other.
UNDERSCORED_PACKAGES = ("_C",)

# Name of a plug-in: the folder or file that holds all that is known of it.
PLUGINS = {"res2net": "modeling/backbone/res2net"}


def layer_of(tree: SourceTree, module: str, layers: Layers = LAYERS) -> tuple[int, str] | None:
    """(layer number, name of the package), or None for the root package and for what has no layer."""
    for number, names in enumerate(layers):
        for name in names:
            full = f"{tree.package}.{name}"
            if module == full or module.startswith(full + "."):
                return number, name
    return None


def homeless_modules(tree: SourceTree, layers: Layers = LAYERS) -> list[str]:
    return [m for m in tree.modules if m != tree.package and layer_of(tree, m, layers) is None]


def upward_imports(
    tree: SourceTree, layers: Layers = LAYERS, re_exports: Collection[str] = RE_EXPORTS
) -> list[str]:
    """Imports from the same layer or one above, and of a package by what lies inside it."""
    wrong = []
    for item in tree.imports:
        source, target = layer_of(tree, item.module, layers), layer_of(tree, item.target, layers)
        if _short(tree, item.module) in re_exports or target is None:
            continue
        if source is None or (source[1] != target[1] and source[0] <= target[0]):
            wrong.append(str(item))
        elif item.module.startswith(item.target + "."):
            wrong.append(f"{item}, a package above itself")
    return wrong


def _short(tree: SourceTree, module: str) -> str:
    return module.removeprefix(tree.package + ".")


def import_cycle(tree: SourceTree) -> list[str]:
    """The modules of one cycle, in order, or none. Deferred imports and those by string count."""
    graph: dict[str, set[str]] = {module: set() for module in tree.modules}
    for item in tree.imports:
        if not item.for_types and item.target != item.module:
            graph[item.module].add(item.target)
    done: set[str] = set()

    def visit(module: str, chain: list[str]) -> list[str]:
        if module in chain:
            return [*chain[chain.index(module) :], module]
        if module not in done:
            for target in sorted(graph[module]):
                cycle = visit(target, [*chain, module])
                if cycle:
                    return cycle
            done.add(module)
        return []

    return next(filter(None, (visit(module, []) for module in graph)), [])


def private_imports(tree: SourceTree) -> list[str]:
    """Imports of `_name` or of a module below a `_module`, and `module._name` of an imported module."""
    wrong = []
    for item in tree.imports:
        home = _short(tree, item.module).split(".")[0]
        parts = [*item.target.split("."), *item.names]
        if home in UNDERSCORED_PACKAGES:
            parts = [part for part in parts if part != home]
        # A package may hold private files for itself alone; here no file does.
        if any(map(_is_private, parts)):
            wrong.append(f"{item.module}:{item.line} imports {', '.join(filter(_is_private, parts))}")
    for module in tree.modules:
        aliases = tree.module_aliases(module)
        for line, owner, attribute in _attributes(tree.syntax(module)):
            if owner in aliases and _is_private(attribute):
                wrong.append(f"{module}:{line} reads {attribute} of {aliases[owner]}")
    return wrong


def _is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def _attributes(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """(line, owner, attribute) of each `owner.attribute` and `getattr(owner, "attribute")`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.lineno, ast.unparse(node.value), node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr"):
            if len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
                yield node.lineno, ast.unparse(node.args[0]), str(node.args[1].value)


def hidden_imports(tree: SourceTree, allowed: Mapping[tuple[str, str], str] = DEFERRED_IMPORTS) -> list[str]:
    """Imports inside functions and by string that are not allowed, and entries of the table without use."""
    found: dict[tuple[str, str], str] = {}
    for item in tree.imports:
        if item.in_function or item.by_string:
            found[_short(tree, item.module), _short(tree, item.target)] = str(item)
    unused = [f"{source} does not defer {target}" for source, target in allowed.keys() - found.keys()]
    computed = dict.fromkeys(text for module in tree.modules for text in _computed_imports(tree, module))
    return [text for key, text in found.items() if key not in allowed] + [*sorted(unused), *computed]


def _computed_imports(tree: SourceTree, module: str) -> Iterator[str]:
    """Paths of the package put together while the program runs, which no check can follow."""
    for node in ast.walk(tree.syntax(module)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__", "locate")
        ):
            for argument in node.args[:1]:
                text = _first_text(argument)
                if text.startswith((f"{tree.package}.", ".")) or ast.unparse(argument).startswith(_OWN_NAMES):
                    yield f"{module}:{node.lineno} computes the path of a module"
        elif isinstance(node, (ast.JoinedStr, ast.BinOp)) and _first_text(node).startswith(
            f"{tree.package}."
        ):
            if all(part.isidentifier() or not part for part in _first_text(node).split(".")):
                yield f"{module}:{node.lineno} computes the path of a module"


_OWN_NAMES = ("__name__", "__package__")


def _first_text(node: ast.AST) -> str:
    """The text with which a computed string begins, where it begins with one."""
    if isinstance(node, ast.JoinedStr) and node.values and isinstance(node.values[0], ast.Constant):
        return str(node.values[0].value)
    if isinstance(node, ast.BinOp) and isinstance(node.left, ast.Constant):
        return str(node.left.value)
    return ""


def plugin_knowledge(tree: SourceTree, plugins: Mapping[str, str] = PLUGINS) -> list[str]:
    """Lines that spell a plug-in's name outside its home. Its package's `__init__` may import from it."""
    wrong = []
    for name, home in plugins.items():
        base = tree.root / tree.package / home
        facade = base.parent / "__init__.py"
        for path in sorted((tree.root / tree.package).rglob("*")):
            if path.suffix in _SOURCES and base not in path.parents and path.with_suffix("") != base:
                imported = _lines_of_imports(path, base.name) if path == facade else set()
                wrong += [
                    f"{path.relative_to(tree.root)}:{number} knows {name}"
                    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
                    if name in line.lower() and number not in imported
                ]
    return wrong


_SOURCES = {".py", ".pyi", ".yaml", ".json", ".toml", ".cpp", ".cu", ".cuh", ".h"}


def _lines_of_imports(path: Path, source: str) -> set[int]:
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    return {
        line
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        and node.level == 1
        and (node.module or "").split(".")[0] == source
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def is_facade(tree: SourceTree, module: str) -> bool:
    """A file of imports, a docstring and `__all__` alone, with at least one import of the package."""
    return not odd_statements(tree, module) and any(item.module == module for item in tree.imports)


def odd_statements(tree: SourceTree, module: str) -> list[str]:
    """What a facade holds besides a docstring, imports, `__all__`, and a call for `python -m`."""
    return [
        f"{module}:{node.lineno} {ast.unparse(node).splitlines()[0]}"
        for node in tree.syntax(module).body
        if not (
            is_text(node)
            or isinstance(node, (ast.Import, ast.ImportFrom))
            or _assigns(node, "__all__")
            or _is_main_call(node)
        )
    ]


def _is_main_call(node: ast.stmt) -> bool:
    if not isinstance(node, ast.If) or ast.unparse(node.test) != "__name__ == '__main__'" or node.orelse:
        return False
    return [type(getattr(child, "value", None)) for child in node.body] == [ast.Call]


def _assigns(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]


def thick_facades(
    tree: SourceTree,
    re_exports: Collection[str] = RE_EXPORTS,
    lazy: Collection[str] = tuple(LAZY_FACADES),
) -> list[str]:
    """Statements of packages and re-export files that do more than import, and re-exports on no list."""
    wrong = []
    for module in tree.modules:
        if tree.is_package(module) or _short(tree, module) in re_exports:
            for node in tree.syntax(module).body:
                is_lazy = _short(tree, module) in lazy and _is_lazy_part(node)
                is_version = module == tree.package and _assigns(node, "__version__")
                if not (is_lazy or is_version):
                    wrong += [text for text in odd_statements(tree, module) if f":{node.lineno} " in text]
        elif is_facade(tree, module):
            wrong.append(f"{module} holds nothing but imports and is not on the list of re-exports")
    return wrong


def _is_lazy_part(node: ast.stmt) -> bool:
    """`if TYPE_CHECKING` around imports, or a `__getattr__` of one `if`, an import, and an AttributeError."""
    if is_type_checking(node):
        return all(isinstance(child, ast.ImportFrom) for child in node.body)  # type: ignore[attr-defined]
    if not isinstance(node, ast.FunctionDef) or node.name != "__getattr__":
        return False
    kinds = [type(child) for child in node.body]
    return kinds == [ast.If, ast.Raise] and [type(c) for c in node.body[0].body] == [
        ast.ImportFrom,
        ast.Return,
    ]  # type: ignore[attr-defined]


def facade_imports(tree: SourceTree, re_exports: Collection[str] = RE_EXPORTS) -> list[str]:
    """Names that a module takes from a facade and not from the file that defines them."""
    return [
        str(item)
        for item in tree.imports
        if item.target != tree.package
        and not is_facade(tree, item.module)  # facades may be stacked
        and (_short(tree, item.target) in re_exports or (item.names and _is_front(tree, item.target)))
    ]


def _is_front(tree: SourceTree, module: str) -> bool:
    return tree.is_package(module) and any(item.module == module for item in tree.imports)


def wild_imports(tree: SourceTree) -> list[str]:
    """Star imports and `globals()`."""
    wrong = []
    for module in tree.modules:
        for node in ast.walk(tree.syntax(module)):
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
                wrong.append(f"{module}:{node.lineno} star import")
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "globals":
                wrong.append(f"{module}:{node.lineno} globals()")
    return wrong


def long_functions(path: Path, limit: int) -> list[str]:
    return [
        f"{path}:{node.lineno} {node.name} has {length} lines"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > limit
    ]


def count_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())
