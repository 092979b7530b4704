"""Keys by their full name, such as `MODEL.RPN.NMS_THRESH`, in any nested dictionary."""

from __future__ import annotations

from collections.abc import MutableMapping
from copy import deepcopy
from typing import Any

from fvcore.common.config import CfgNode

__all__ = ["ABSENT", "copy_flags", "copy_flags_of_tree", "get_key", "move_key", "pop_key", "set_key"]

ABSENT: Any = object()
"""What is returned for a key that is not there; None is a value."""


def get_key(tree: MutableMapping[str, Any], full_key: str) -> Any:
    """Return the value or section of this name, `ABSENT` where there is none."""
    node: Any = tree
    for part in full_key.split("."):
        if not isinstance(node, MutableMapping) or part not in node:
            return ABSENT
        node = node[part]
    return node


def set_key(tree: MutableMapping[str, Any], full_key: str, value: Any) -> None:
    """Write a value; sections that are missing on the way to it are made like the ones around them."""
    *parents, name = full_key.split(".")
    node: Any = tree
    for part in parents:
        if part not in node:
            node[part] = _section_like(node)
        node = node[part]
    node[name] = value


def _section_like(node: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    section = type(node)()
    if isinstance(node, CfgNode):
        vars(section).update({flag: vars(node)[flag] for flag in (CfgNode.IMMUTABLE, CfgNode.NEW_ALLOWED)})
    return section


def pop_key(tree: MutableMapping[str, Any], full_key: str) -> Any:
    """Take a key out, together with sections that it leaves empty; return what it held, or `ABSENT`."""
    section, _, name = full_key.rpartition(".")
    node = get_key(tree, section) if section else tree
    if node is ABSENT or name not in node:
        return ABSENT
    value = node.pop(name)
    if section and not node:
        pop_key(tree, section)
    return value


def move_key(tree: MutableMapping[str, Any], source: str, target: str) -> None:
    """Give a value another name; nothing happens where there is none."""
    value = pop_key(tree, source)
    if value is not ABSENT:
        set_key(tree, target, value)


def copy_flags(source: MutableMapping[str, Any], target: MutableMapping[str, Any]) -> None:
    """Give one node what another knows beside its keys: whether it is frozen or takes new keys, and the keys
    that are deprecated or renamed. Plain dictionaries have nothing of the kind."""
    if isinstance(source, CfgNode) and isinstance(target, CfgNode):
        vars(target).update(deepcopy(vars(source)))


def copy_flags_of_tree(source: MutableMapping[str, Any], target: MutableMapping[str, Any]) -> None:
    """Call `copy_flags` on every pair of nodes of the same name."""
    copy_flags(source, target)
    for key, value in source.items():
        other = target.get(key)
        if isinstance(value, MutableMapping) and isinstance(other, MutableMapping):
            copy_flags_of_tree(value, other)
