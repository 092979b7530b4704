"""What the source of a package says about itself: its modules, and who imports whom, in whatever way."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Import:
    """One module of the package that a line of another one needs."""

    module: str
    target: str
    line: int
    names: tuple[str, ...] = ()
    """What is taken from the target; nothing where the module itself is imported."""
    in_function: bool = False
    for_types: bool = False
    by_string: bool = False

    def __str__(self) -> str:
        how = "names" if self.by_string else "imports"
        return f"{self.module}:{self.line} {how} {'.'.join([self.target, *self.names[:1]])}"


class SourceTree:
    """The modules of the package in the folder `root / package`, read and never imported."""

    def __init__(self, root: Path, package: str) -> None:
        self.root, self.package = root, package

    @cached_property
    def modules(self) -> dict[str, Path]:
        """Path of each module by its full name."""
        return {self._name_of(path): path for path in sorted((self.root / self.package).rglob("*.py"))}

    def _name_of(self, path: Path) -> str:
        parts = path.relative_to(self.root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def is_package(self, module: str) -> bool:
        return self.modules[module].name == "__init__.py"

    @cache  # noqa: B019  (a handful of trees, which live as long as the tests)
    def syntax(self, module: str) -> ast.Module:
        return ast.parse(self.modules[module].read_text(encoding="utf-8"))

    @cached_property
    def imports(self) -> list[Import]:
        """Every edge: statements at any depth, and strings that spell the path of a module."""
        return [
            item for module in self.modules for item in (*self._statements(module), *self._strings(module))
        ]

    def _statements(self, module: str) -> Iterator[Import]:
        for node, in_function, for_types in _import_nodes(self.syntax(module)):
            for target, names in self._targets(node, module).items():
                if target in self.modules:
                    yield Import(module, target, node.lineno, tuple(names), in_function, for_types)

    def _targets(self, node: ast.Import | ast.ImportFrom, module: str) -> dict[str, list[str]]:
        """The modules that a statement imports, and the names that it takes from each."""
        if isinstance(node, ast.Import):
            return {alias.name: [] for alias in node.names}
        source = self._absolute(node, module)
        found: dict[str, list[str]] = {}
        for alias in node.names:
            # `from package import module` imports the module; `from module import name` the module around it.
            full = f"{source}.{alias.name}"
            if full in self.modules:
                found.setdefault(full, [])
            else:
                found.setdefault(source, []).append(alias.name)
        return found

    def _absolute(self, node: ast.ImportFrom, module: str) -> str:
        if not node.level:
            return node.module or ""
        return ".".join([*self._base(module, node.level), *([node.module] if node.module else [])])

    def _base(self, module: str, level: int) -> list[str]:
        parts = module.split(".")
        base = parts if self.is_package(module) else parts[:-1]
        return base[: len(base) - (level - 1)]

    def _strings(self, module: str) -> Iterator[Import]:
        """Paths in strings, as `import_module`, `locate`, `_target_` and tables of lazy names take them."""
        passed_over = {
            id(node) for node in (*_docstrings(self.syntax(module)), *_offered(self.syntax(module)))
        }
        for node, in_function, _ in _walk(self.syntax(module)):
            if (
                not isinstance(node, ast.Constant)
                or not isinstance(node.value, str)
                or id(node) in passed_over
            ):
                continue
            path = self._spelled_path(node.value, module)
            if path:
                target, names = self.split(path)
                if target not in (self.package, module):
                    yield Import(module, target, node.lineno, names, in_function, by_string=True)

    def _spelled_path(self, text: str, module: str) -> str | None:
        if re.fullmatch(rf"{self.package}(\.\w+)+", text):
            return text
        match = re.fullmatch(r"(\.+)(\w+(?:\.\w+)*)", text)
        if match:
            path = ".".join([*self._base(module, len(match[1])), match[2]])
            return path if path in self.modules else None
        return None

    def split(self, path: str) -> tuple[str, tuple[str, ...]]:
        """A dotted path as the module that it lies in, and the rest."""
        parts = path.split(".")
        for length in range(len(parts), 0, -1):
            if ".".join(parts[:length]) in self.modules:
                return ".".join(parts[:length]), tuple(parts[length:])
        return self.package, tuple(parts[1:])

    def module_aliases(self, module: str) -> dict[str, str]:
        """The names by which a module knows other modules of the package."""
        found = {}
        for node, _, _ in _import_nodes(self.syntax(module)):
            for alias in node.names:
                source = f"{self._absolute(node, module)}." if isinstance(node, ast.ImportFrom) else ""
                if source + alias.name in self.modules:
                    found[alias.asname or alias.name] = source + alias.name
        return found


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _walk(
    node: ast.AST, in_function: bool = False, for_types: bool = False
) -> Iterator[tuple[ast.AST, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        yield child, in_function, for_types
        inside = in_function or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield from _walk(child, inside, for_types or is_type_checking(child))


def _import_nodes(tree: ast.Module) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
    for node, in_function, for_types in _walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, in_function, for_types


def is_text(node: ast.AST) -> bool:
    """Whether a statement is a string alone."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _docstrings(tree: ast.Module) -> Iterator[ast.AST]:
    yield from (node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and is_text(node))


def _offered(tree: ast.Module) -> Iterator[ast.AST]:
    """Strings in calls of `offer`: modules that others' code finds names in, and where these come from.

    Nothing is imported by them that is not imported without them, or before somebody asks for such a name.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "offer":
            yield from ast.walk(node)
