"""A config drawn as Python: assignments, with calls where `_target_` says so, in lines that fit a page."""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detectron2.config.instantiate import dotted_path

__all__ = ["as_python"]

_MAX_LINE = 88
_MAX_LINE_OF_TEXT = 110
"""A text, which formatters do not break, is broken where its line would be longer."""
_INDENT = "    "


def as_python(config: Any, prefix: str) -> str:
    """Draw nested dictionaries and lists, keys sorted, one assignment for everything that is no section.

    Args:
        config: plain containers, in which `_target_` stands for a call.
        prefix: stands before every key.
    """
    lines: list[str] = []
    _write_assignments(config, prefix, lines)
    return "\n".join(lines) + "\n"


def _write_assignments(node: Any, prefix: str, lines: list[str]) -> None:
    if not _is_section(node):
        lines += _layout(f"{prefix.rstrip('.')} = ", _draw(node), "", "")
        return
    for key in sorted(node, key=str):
        if _is_section(node[key]):
            _write_assignments(node[key], f"{prefix}{key}.", lines)
        else:
            lines += _layout(f"{prefix}{key} = ", _draw(node[key]), "", "")


def _is_section(node: Any) -> bool:
    return isinstance(node, Mapping) and bool(node) and "_target_" not in node


@dataclass(frozen=True)
class _Bracketed:
    """An expression that may be broken over lines: each entry is what stands before it, and the entry."""

    opening: str
    entries: tuple[tuple[str, str | _Bracketed], ...]
    closing: str


def _draw(value: Any) -> str | _Bracketed:
    if isinstance(value, Mapping) and "_target_" in value:
        names = sorted((key for key in value if key != "_target_"), key=str)
        target = _draw_target(value["_target_"])
        return _Bracketed(f"{target}(", tuple((f"{name}=", _draw(value[name])) for name in names), ")")
    if isinstance(value, Mapping):
        keys = sorted(value, key=str)
        return _Bracketed("{", tuple((f"{_quote(key)}: ", _draw(value[key])) for key in keys), "}")
    if isinstance(value, list):
        return _Bracketed("[", tuple(("", _draw(item)) for item in value), "]")
    if isinstance(value, tuple):
        return _Bracketed("(", tuple(("", _draw(item)) for item in value), ",)" if len(value) == 1 else ")")
    if isinstance(value, functools.partial):
        entries = [("", _draw(item)) for item in (value.func, *value.args)]
        entries += [(f"{name}=", _draw(item)) for name, item in value.keywords.items()]
        return _Bracketed("functools.partial(", tuple(entries), ")")
    if callable(value) and hasattr(value, "__qualname__") and hasattr(value, "__module__"):
        return dotted_path(value)
    return _quote(value)


def _draw_target(target: Any) -> str:
    if isinstance(target, Mapping):
        return _join(_draw(target))
    drawn = target if isinstance(target, str) else _draw(target)
    return _join(drawn)


def _quote(value: Any) -> str:
    text = repr(value)
    is_plain = isinstance(value, str) and text.startswith("'") and '"' not in text
    return f'"{text[1:-1]}"' if is_plain else text


def _join(drawn: str | _Bracketed) -> str:
    if isinstance(drawn, str):
        return drawn
    return drawn.opening + ", ".join(lead + _join(entry) for lead, entry in drawn.entries) + drawn.closing


def _layout(lead: str, drawn: str | _Bracketed, tail: str, indent: str) -> list[str]:
    """Lines of one expression: a single one if it fits, else entries in lines of their own, deeper."""
    line = indent + lead + _join(drawn) + tail
    if isinstance(drawn, str):
        return [line] if len(line) <= _MAX_LINE else _layout_text(lead, drawn, tail, indent)
    if not drawn.entries or len(line) <= _MAX_LINE:
        return [line]
    inner = indent + _INDENT
    body = ", ".join(lead + _join(entry) for lead, entry in drawn.entries)
    is_one_item_tuple = drawn.closing == ",)"
    lines = [indent + lead + drawn.opening]
    if len(inner + body) <= _MAX_LINE and not is_one_item_tuple:
        lines.append(inner + body)
    elif len(drawn.entries) == 1 and not is_one_item_tuple:
        # A trailing comma would say that more may come.
        lines += _layout(*drawn.entries[0], "", inner)
    else:
        for entry_lead, entry in drawn.entries:
            lines += _layout(entry_lead, entry, ",", inner)
    return [*lines, indent + drawn.closing.lstrip(",") + tail]


def _layout_text(lead: str, drawn: str, tail: str, indent: str) -> list[str]:
    """Lines of a value without brackets; a text that is too long becomes several, which Python joins."""
    line, inner = indent + lead + drawn + tail, indent + _INDENT
    if drawn[0] not in "\"'":
        return [line]
    if lead.endswith(" = ") and len(inner + drawn) <= _MAX_LINE:
        return [f"{indent}{lead}(", inner + drawn, f"{indent}){tail}"]
    if len(line) <= _MAX_LINE_OF_TEXT:
        return [line]
    text: str = ast.literal_eval(drawn)
    width = max(_MAX_LINE - len(inner) - 2, 20)
    pieces = [_quote(text[start : start + width]) for start in range(0, len(text), width)]
    return [f"{indent}{lead}(", *(inner + piece for piece in pieces), f"{indent}){tail}"]
