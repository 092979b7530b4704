"""Configs written as Python."""

from __future__ import annotations

import ast
import functools
from typing import Any

import torch
from omegaconf import DictConfig

from detectron2.config import LazyCall, LazyConfig


def test_to_py_reads_like_python() -> None:
    inner = LazyCall("fractions.Fraction")(numerator={"y": "a", "x": 2.5, "t": [1, 2, 3, "z", "it's", '"']})
    cfg = DictConfig(
        {
            "m": LazyCall("fractions.Fraction")(
                numerator={"a": 1, "b": "a longer text", "c": inner}, denominator=1
            ),
            "l": LazyCall("fractions.Fraction")(numerator=["a long text to break the line behind"] * 3),
            "a": {"c": [1, "x"], "b": 1, "e": {}},
        },
        flags={"allow_objects": True},
    )
    expected = """\
cfg.a.b = 1
cfg.a.c = [1, "x"]
cfg.a.e = {}
cfg.l = fractions.Fraction(
    numerator=[
        "a long text to break the line behind",
        "a long text to break the line behind",
        "a long text to break the line behind",
    ]
)
cfg.m = fractions.Fraction(
    denominator=1,
    numerator={
        "a": 1,
        "b": "a longer text",
        "c": fractions.Fraction(
            numerator={"t": [1, 2, 3, "z", "it's", '"'], "x": 2.5, "y": "a"}
        ),
    },
)
"""
    assert LazyConfig.to_py(cfg) == expected
    assert LazyConfig.to_py(cfg, prefix="").startswith("a.b = 1\n")
    ast.parse(expected)


def test_to_py_breaks_long_texts() -> None:
    fits, long = "a" * 80, "https://host/" + "b" * 200
    cfg = DictConfig(
        {"a_name": fits, "b": long, "c": LazyCall("os.path.join")(path=[long, "x"]), "d": 1},
        flags={"allow_objects": True},
    )
    text = LazyConfig.to_py(cfg)
    assert text.startswith(f'cfg.a_name = (\n    "{fits}"\n)\ncfg.b = (\n    "https')
    assert max(map(len, text.splitlines())) <= 88
    values = [ast.unparse(assignment.value) for assignment in ast.parse(text).body]
    assert values == [repr(fits), repr(long), f"os.path.join(path=[{long!r}, 'x'])", "1"]


def test_to_py_draws_partial_calls() -> None:
    cfg = DictConfig({"norm": functools.partial(torch.nn.LayerNorm, eps=1e-6)}, flags={"allow_objects": True})
    assert LazyConfig.to_py(cfg) == "cfg.norm = functools.partial(torch.nn.LayerNorm, eps=1e-06)\n"


def test_to_py_keeps_lines_short_whatever_is_nested() -> None:
    value: Any = "text"
    for depth in range(6):
        value = {
            "_target_": "some.module.function",
            "first": [value, (1,)],
            "second": {"key": (value, depth)},
        }
    text = LazyConfig.to_py(DictConfig({"x": value}, flags={"allow_objects": True}))
    assert max(map(len, text.splitlines())) <= 110
    (assignment,) = ast.parse(text).body
    assert ast.unparse(assignment.value).count("some.module.function") == 2**6 - 1
