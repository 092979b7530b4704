"""What `path.to.key=value` on a command line sets a key of a Python config to."""

from __future__ import annotations

import math
from typing import Any

from detectron2.config.config.expressions import evaluate_literal
from detectron2.utils.user_errors import UserValueError

__all__ = ["read_value"]

_WORDS = {"null": None, "true": True, "false": False, "nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def read_value(text: str) -> Any:
    """Read what an override sets a key to. YAML would take 1:30 for a number, and {x:1} for a set."""
    text = text.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        # Python lists, tuples and numbers such as 1e-3 mean here what they mean on the YAML configs' command
        # line.
        return evaluate_literal(text)
    except ValueError:
        pass
    entries = _split_at_commas(text[1:-1]) if text[:1] + text[-1:] in ("[]", "{}") else None
    if entries is None:
        return text
    if text[0] == "[":
        return [read_value(entry) for entry in entries]
    pairs = [entry.partition(":") for entry in entries]
    if not all(colon for _, colon, _ in pairs):
        raise UserValueError(f"a dict is written as {{key: value, ...}}, got {text!r}")
    return {read_value(key): read_value(value) for key, _, value in pairs}


def _split_at_commas(text: str) -> list[str] | None:
    """Split at the commas that stand in no bracket or quote inside `text`; None where one is not closed."""
    entries, expected = [""], ""
    for character in text:
        in_quotes = expected[-1:] in ("'", '"')
        if character == expected[-1:]:
            expected = expected[:-1]
        elif not in_quotes and character in _CLOSING:
            expected += _CLOSING[character]
        if character == "," and not expected:
            entries.append("")
        else:
            entries[-1] += character
    if expected:
        return None
    return entries if text.strip() else []


_CLOSING = {"[": "]", "{": "}", "(": ")", "'": "'", '"': '"'}
