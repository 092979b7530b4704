"""Type and meaning of every config key, read off the places where they are declared.

`python tests/config/key_inventory.py` writes tests/config_keys.json. A key means what the comment above it
says, and without one what the key above it means, of which the comment then speaks too.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from detectron2.config import CfgNode, get_cfg
from detectron2.config import defaults as defaults_module
from detectron2.config.plugin_keys import find_declarations

TABLE = Path(__file__).parents[1] / "config_keys.json"


@dataclass(frozen=True)
class Declared:
    """A key in a file, with the line that it stands in (from 0) and what is inside, if it is a section."""

    name: str
    line: int
    inside: list[Declared]


def in_python(source: str) -> list[Declared]:
    """The keys of `DEFAULTS = CN({...})`, where a value may be the name of another dictionary of the file."""
    tables: dict[str, ast.expr] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            tables[node.targets[0].id] = node.value

    def read(node: ast.expr) -> list[Declared]:
        node = tables[node.id] if isinstance(node, ast.Name) and node.id in tables else node
        if not isinstance(node, ast.Dict):
            return []
        pairs = zip(node.keys, node.values)
        return [Declared(ast.literal_eval(key), key.lineno - 1, read(value)) for key, value in pairs if key]

    call = tables["DEFAULTS"]
    assert isinstance(call, ast.Call)
    return read(call.args[0])


def in_yaml(source: str) -> list[Declared]:
    """The keys under `keys:` of a plug-in's declaration."""

    def read(node: yaml.Node) -> list[Declared]:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        return [Declared(key.value, key.start_mark.line, read(value)) for key, value in pairs]

    return next(section.inside for section in read(yaml.compose(source)) if section.name == "keys")


def comment_above(lines: list[str], line: int) -> str:
    """The comment that ends right above a line, in one line."""
    found: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].strip().removeprefix("#").strip())
    return " ".join(found)


def meanings(
    keys: list[Declared], lines: list[str], prefix: str, inherited: str
) -> Iterator[tuple[str, str]]:
    meaning = inherited
    previous_line = -1
    for key in keys:
        if key.line != previous_line:
            meaning = comment_above(lines, key.line) or meaning
        previous_line = key.line
        if key.inside:
            yield from meanings(key.inside, lines, f"{prefix}{key.name}.", meaning)
        else:
            yield f"{prefix}{key.name}", meaning


def declared_meanings() -> dict[str, str]:
    """Full name -> meaning of the keys of the package and its plug-ins."""
    defaults = Path(str(defaults_module.__file__))
    source = defaults.read_text(encoding="utf-8")
    found = dict(meanings(in_python(source), source.splitlines(), "", ""))
    for path in find_declarations(defaults.parents[1]):
        source = path.read_text(encoding="utf-8")
        found |= dict(meanings(in_yaml(source), source.splitlines(), "", ""))
    return found


def types_of(cfg: CfgNode, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from types_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "any" if value is None else type(value).__name__


def inventory() -> dict[str, dict[str, Any]]:
    """Full name -> type and meaning of every key that `get_cfg()` has."""
    known = declared_meanings()
    return {key: {"type": kind, "meaning": known.get(key, "")} for key, kind in sorted(types_of(get_cfg()))}


if __name__ == "__main__":
    TABLE.write_text(json.dumps(inventory(), indent=1) + "\n", encoding="utf-8")
