#!/usr/bin/env python
"""Write the tables of docs/architecture.md anew, from the layers that the tests enforce and from docstrings.

    tools/make_architecture_page.py

Only what stands between `<!-- made by tools/make_architecture_page.py: NAME -->` and `<!-- end -->` changes.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the rules are part of the tests, which are not installed

from detectron2.utils.file_io import atomic_write  # noqa: E402
from tests.architecture.rules import LAYERS  # noqa: E402
from tests.architecture.source_tree import SourceTree  # noqa: E402

PAGE = ROOT / "docs" / "architecture.md"
TREE = SourceTree(ROOT, "detectron2")


def summary(module: str) -> str:
    """The first paragraph of a module's docstring, on one line."""
    text = ast.get_docstring(TREE.syntax(module))
    if not text:
        raise ValueError(f"{module} has no docstring: write what it holds in its first lines")
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


def layers() -> str:
    """A row for each layer, the ground first."""
    rows = ["| layer | packages | what they hold |", "| --- | --- | --- |"]
    for number, names in enumerate(LAYERS, start=1):
        known = [name for name in names if f"{TREE.package}.{name}" in TREE.modules]
        held = " ".join(summary(f"{TREE.package}.{name}") for name in known)
        rows.append(f"| {number} | {', '.join(f'`{name}`' for name in known)} | {held} |")
    return "\n".join(rows)


def packages() -> str:
    """A line for each folder of the package."""
    lines = []
    for module in TREE.modules:
        if TREE.is_package(module):
            folder = TREE.modules[module].parent.relative_to(TREE.root).as_posix()
            depth = module.count(".")
            lines.append(f"{'  ' * depth}- `{folder}/`: {summary(module)}")
    return "\n".join(lines)


SECTIONS: dict[str, Callable[[], str]] = {"layers": layers, "packages": packages}


def make_page(page: str) -> str:
    """Put the sections into the text of the page.

    Raises:
        ValueError: the page lacks the marks of a section, or has marks of another.
    """
    written = []

    def replace(found: re.Match[str]) -> str:
        name = found[2]
        if name not in SECTIONS:
            raise ValueError(f"the page has a section {name!r}; there are {', '.join(SECTIONS)}")
        written.append(name)
        return f"{found[1]}\n{SECTIONS[name]()}\n<!-- end -->"

    marks = r"(<!-- made by tools/make_architecture_page\.py: (\S+) -->)\n.*?<!-- end -->"
    new = re.sub(marks, replace, page, flags=re.DOTALL)
    if missing := sorted(SECTIONS.keys() - set(written)):
        raise ValueError(f"the page has no marks for {', '.join(missing)}")
    return new


def main() -> int:
    page = make_page(PAGE.read_text(encoding="utf-8"))
    with atomic_write(PAGE, "w") as file:
        file.write(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
