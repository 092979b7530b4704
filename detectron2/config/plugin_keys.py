"""Config keys that a plug-in declares itself.

A part of this package that has keys of its own declares them as data, in a file `config_keys.yaml` in its own
folder. Such files are found by their name when the first config is made, without importing anything, so that
`get_cfg()` holds the same keys whatever was imported before:

    keys:                               # as they stand in a config; every leaf is a default
      MODEL:
        WIDENET:
          # What the key means.
          FACTOR: 4
    foreign_keys:                       # optional: entries are the arguments of ForeignKey
      - key: MODEL.RESNETS.WIDE
        read_as: MODEL.WIDENET.FACTOR
        origin: the fork of the authors

Code outside the package calls `register_config_keys` and `register_foreign_key`, or adds keys to a config
of its own as projects always did.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

from detectron2.utils.user_errors import UserValueError

from .config.node import CfgNode
from .config.yaml_reader import load_yaml
from .foreign_keys import ForeignKey, register_foreign_key

__all__ = ["DECLARATION_FILE", "add_declared_keys", "add_keys", "find_declarations"]

DECLARATION_FILE = "config_keys.yaml"
"""The name of a file in a package's folder that declares the keys of the plug-in that lives there."""

_SECTIONS = {"keys", "foreign_keys"}


def add_declared_keys(tree: CfgNode, root: Path) -> None:
    """Write the keys that the plug-ins of a package declare into the tree of defaults.

    Args:
        tree: the defaults; changed in place.
        root: the folder of the package; the packages below it are searched too.

    Raises:
        ValueError: a declaration is broken, or declares a key that is there already.
    """
    for path in find_declarations(root):
        keys, foreign_keys = _read_declaration(path)
        add_keys(tree, keys, owner=str(path))
        for foreign in foreign_keys:
            register_foreign_key(foreign)


def find_declarations(root: Path) -> list[Path]:
    """Return the declaration files in a package and the packages below it, in a fixed order."""
    found: list[Path] = []
    folders = [str(root)]
    while folders:
        with os.scandir(folders.pop()) as scan:
            entries = {entry.name: entry for entry in scan}
        if "__init__.py" not in entries:
            continue
        if DECLARATION_FILE in entries:
            found.append(Path(entries[DECLARATION_FILE].path))
        folders += [entry.path for entry in entries.values() if "." not in entry.name and entry.is_dir()]
    return sorted(found)


def _read_declaration(path: Path) -> tuple[dict[str, Any], list[ForeignKey]]:
    with path.open(encoding="utf-8") as file:
        declared = load_yaml(file, str(path))
    keys, entries = declared.get("keys"), declared.get("foreign_keys", [])
    if not declared.keys() <= _SECTIONS or not isinstance(keys, dict) or not isinstance(entries, list):
        raise UserValueError(
            f"{path}: must hold `keys`, a tree of defaults, and may hold `foreign_keys`, a list; it holds"
            f" {', '.join(declared)}"
        )
    try:
        foreign_keys = [ForeignKey(**entry) for entry in entries]
    except TypeError as error:
        names = ", ".join(field.name for field in fields(ForeignKey))
        raise UserValueError(f"{path}: each of `foreign_keys` has {names}; {error}") from error
    return keys, foreign_keys


def add_keys(tree: CfgNode, keys: Mapping[str, Any], *, owner: str) -> None:
    """Write further keys with their defaults into the tree of defaults.

    Args:
        tree: the defaults; changed in place, or not at all where an error is raised.
        keys: nested dictionaries as they stand in a config.
        owner: who declares them, for the message.

    Raises:
        ValueError: a key is there already.
    """
    for full_key in _leaves(keys):
        _require_free(tree, full_key, owner)
    _write(tree, keys)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _require_free(tree: CfgNode, full_key: str, owner: str) -> None:
    node: Any = tree
    for part in full_key.split("."):
        if not isinstance(node, CfgNode):
            break
        if part not in node:
            return
        node = node[part]
    raise UserValueError(f"{owner} declares the config key {full_key}, which is there already")


def _write(section: CfgNode, keys: Mapping[str, Any]) -> None:
    for name, value in keys.items():
        if not isinstance(value, Mapping):
            section[name] = deepcopy(value)
        elif name in section:
            _write(section[name], value)
        else:
            section[name] = CfgNode(deepcopy(dict(value)))
