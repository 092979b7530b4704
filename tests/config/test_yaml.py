"""YAML files are read without running anything."""

from __future__ import annotations

import io
import math
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest

from detectron2.config import get_cfg
from detectron2.config.config.expressions import evaluate_expression, evaluate_literal
from detectron2.config.config.yaml_reader import load_yaml


def load(text: str) -> dict[str, Any]:
    return load_yaml(io.StringIO(text), "file.yaml")


def test_published_expression_gives_the_published_anchors(tmp_path: Path) -> None:
    path = tmp_path / "retinanet.yaml"
    path.write_text(
        "MODEL:\n  ANCHOR_GENERATOR:\n    SIZES: !!python/object/apply:eval "
        '["[[x, x * 2**(1.0/3), x * 2**(2.0/3) ] for x in [32, 64, 128, 256, 512 ]]"]\n'
    )
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    expected = [[x, x * 2 ** (1.0 / 3), x * 2 ** (2.0 / 3)] for x in [32, 64, 128, 256, 512]]
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES == expected


def test_tuple_tag() -> None:
    assert load("A: !!python/tuple [1, [2, 3]]\nB: !!python/tuple []") == {"A": (1, [2, 3]), "B": ()}


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch PWNED']",
        "!!python/object/new:os.system ['touch PWNED']",
        "!!python/object/apply:builtins.eval ['1']",
        "!!python/object/apply:exec ['x = 1']",
        "!!python/object:argparse.Namespace {a: 1}",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/complex 1+2j",
        "!!python/bytes abc",
        "!!python/unicode abc",
        "!custom abc",
        '!!python/object/apply:eval [\'__import__("os").system("touch PWNED")\']',
        "!!python/object/apply:eval [\"open('PWNED', 'w')\"]",
        "!!python/object/apply:eval ['(lambda: 1)()']",
        "!!python/object/apply:eval ['[].__class__']",
        "!!python/object/apply:eval ['1', {}]",
        "!!python/object/apply:eval []",
        "!!python/object/apply:eval [1]",
        "!!python/object/apply:eval {args: ['1']}",
        "!!python/object/apply:eval '1'",
        "!!python/tuple abc",
    ],
)
@pytest.mark.parametrize("place", ["A: {}", "A: [{}]", "A:\n  B: {}"])
def test_every_other_tag_is_refused_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"file\.yaml:\d+: "):
        load(place.format(value))
    assert not (tmp_path / "PWNED").exists()


def test_allow_unsafe_allows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("OUTPUT_DIR: !!python/object/apply:os.getcwd []")
    for cfg_allows in (True, False):
        with pytest.raises(ValueError, match="refused: reading a config never runs code"):
            get_cfg().merge_from_file(str(path), allow_unsafe=cfg_allows)


@pytest.mark.parametrize(
    ("text", "line", "value"),
    [
        ("A: 1\nB: 2\nA: 3\n", 3, {"A": 3, "B": 2}),
        ("M:\n  A: 1\n  A: 2\n", 3, {"M": {"A": 2}}),
        ("A: {b: 1, b: 2}", 1, {"A": {"b": 2}}),
        ("M: [{x: 1, x: 2}]", 1, {"M": [{"x": 2}]}),
        ("M: {A: 1}\nM: {B: 2}", 2, {"M": {"B": 2}}),
    ],
)
def test_of_equal_keys_the_last_counts_with_a_warning(
    text: str, line: int, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert load(text) == value
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert re.match(rf"file\.yaml:{line}: key \w+ stands twice", record.getMessage())


def test_short_files_stay_small() -> None:
    levels = "".join(f"a{i}: &a{i} {{x: *a{i - 1}, y: *a{i - 1}}}\n" for i in range(1, 60))
    for text in (f"a0: &a0 {{x: 1}}\n{levels}", "a: &a {x: *a}"):
        with pytest.raises(ValueError, match=r"file\.yaml: its aliases stand for more than"):
            load(text)


@pytest.mark.parametrize(
    "text",
    [
        "S: !!python/object:detectron2.layers.shape_spec.ShapeSpec"
        " {channels: 8, height: null, stride: 4, width: null}",
        "S: !!python/object/new:detectron2.layers.shape_spec.ShapeSpec [8, null, null, 4]",
    ],
)
def test_shape_of_another_writer_is_read_as_data(text: str) -> None:
    expected = {
        "_target_": "detectron2.layers.shape_spec.ShapeSpec",
        "channels": 8,
        "height": None,
        "width": None,
        "stride": 4,
    }
    assert load(text) == {"S": expected}
    with pytest.raises(ValueError, match="refused"):
        load(text.replace("detectron2.layers", "elsewhere.layers"))


def test_equal_keys_of_different_sections_are_fine() -> None:
    assert load("A: {x: 1}\nB: {x: 1}") == {"A": {"x": 1}, "B": {"x": 1}}


def test_yaml_anchors_and_merge_keys_work() -> None:
    assert load("A: &a {x: 1, y: 2}\nB:\n  <<: *a\n  x: 3")["B"] == {"x": 3, "y": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A: [1, 2", r"file\.yaml:\d: "),
        ("A: b: c", r"file\.yaml:\d: "),
        ("- 1\n- 2", "expected keys with values at the top, found a list"),
        ("just text", "found a str"),
        ("1: a", "1: a key must be text, this one is read as int"),
        ("A: {on: 1}", "A.True: a key must be text"),
        ("A: 2020-01-01", "A: .* is read as date"),
        ("A: !!binary aGk=", "is read as bytes"),
        ("A: {x, y}\nB: !!set {x, y}", "is read as set"),
        ("A: 1\n---\nB: 2", r"file\.yaml:2: "),
        ("A: *nowhere", r"file\.yaml:1: "),
    ],
)
def test_what_is_no_config_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(text)


@pytest.mark.parametrize(
    "expression",
    [
        "1",
        "-1.5",
        "+3",
        "2 ** 10",
        "2 ** -1",
        "7 // 2",
        "-7 % 3",
        "(1, 2.5, 'text', None, True)",
        "[]",
        "()",
        "[[1, 2], (3, [4])]",
        "[x * y for x in [1, 2] for y in (10, 20)]",
        "[[x + y for x in [1, 2]] for y in [3, 4]]",
        "[x for x in [x for x in [1, 2]]]",
        "  [1 , 2 ]  ",
    ],
)
def test_literal_has_pythons_value(expression: str) -> None:
    expected = eval(expression.strip())  # the reference: Python itself, on our own constants
    value = evaluate_literal(expression)
    assert value == expected
    assert type(value) is type(expected)


def test_random_arithmetic_has_pythons_value() -> None:
    rng = random.Random(0)

    def build(depth: int) -> str:
        if depth == 0:
            return rng.choice(["1", "2", "3.5", "7", "0.25"])
        return f"({build(depth - 1)} {rng.choice(['+', '-', '*', '/', '//', '%'])} {build(depth - 1)})"

    for _ in range(200):
        expression = build(3)
        try:
            expected = eval(expression)
        except ZeroDivisionError:
            with pytest.raises(ValueError, match="fails with"):
                evaluate_literal(expression)
            continue
        assert math.isclose(evaluate_literal(expression), expected)


@pytest.mark.parametrize(
    "expression",
    [
        "x",
        "f(1)",
        "int(1)",
        "range(3)",
        "[1][0]",
        "[1].append",
        "{1: 2}",
        "{1}",
        "lambda: 1",
        "1 if 1 else 2",
        "1 < 2",
        "1 and 2",
        "not 1",
        "~1",
        "1 << 2",
        "[x for x in [1] if x]",
        "(x for x in [1])",
        "{x for x in [1]}",
        "[x for x in 'abc']",
        "[x for x, y in [(1, 2)]]",
        "[*[1]]",
        "f'{1}'",
        "'a' * 3",
        "[1] * 3",
        "True + 1",
        "1j",
        "b'x'",
        "...",
        "(y := 1)",
        "1 / 0",
        "1 % 0",
        "9 ** 9 ** 9",
        "10 ** 64",
        "1e18 * 10",
        "(-1) ** 0.5",
        "1e999",
        "",
        "1 +",
        "1; 2",
        "(" * 500 + ")" * 500,
        "1" * 3000,
    ],
)
def test_everything_else_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="expression"):
        evaluate_literal(expression)


def test_work_is_bounded() -> None:
    ten = "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"
    with pytest.raises(ValueError, match="steps"):
        evaluate_literal(f"[a for a in {ten} for b in {ten} for c in {ten} for d in {ten} for e in {ten}]")


@pytest.mark.parametrize(
    "expression",
    [
        "[int(x * 0.1 * 1024) for x in range(5, 21)]",
        "[round(x * 1.5, 1) for x in range(3)]",
        "[float(x) for x in ('1e-3', 2, True)]",
        "max([min(3, 1.5), len((1, 2, 3))])",
        "sum(x * x for x in range(10))",
        "sum([1, 2], 0.5)",
        "[[min(a, b) for a in range(2)] for b in range(0, 9, 4)]",
        "[len(x) for x in ['ab', [], [1, [2]]]]",
        "round(2.5)",
        "int('12') + int(-3.9)",
        "[max for max in [1]]",
    ],
)
def test_functions_of_numbers_have_pythons_value(expression: str) -> None:
    expected = eval(expression)  # the reference: Python itself, on our own constants
    value = evaluate_expression(expression)
    assert value == expected
    assert type(value) is type(expected)
    assert load(f'A: !!python/object/apply:eval ["{expression}"]') == {"A": expected}


def test_range_is_a_list() -> None:
    assert evaluate_expression("range(2, 5)") == [2, 3, 4]


@pytest.mark.parametrize(
    "expression",
    [
        "int",
        "abs(1)",
        "eval('1')",
        "open('PWNED', 'w')",
        "int.from_bytes(1)",
        "(int)(1)(2)",
        "int()",
        "int('10', 2)",
        "round(1, ndigits=2)",
        "min(1, key=len)",
        "max([])",
        "max(['a', 'b'])",
        "sum([[1], [2]], [])",
        "sum(*[1])",
        "int('x')",
        "float('inf')",
        "float('nan')",
        "int(float('1e300'))",
        "round(5, -10 ** 17)",
        "round(1.5, 2.0)",
        "len(3)",
        "range(1.0)",
        "range(10 ** 12)",
        "range(-10 ** 18, 10 ** 18)",
        "range(0, 1, 0)",
        "[range(5000) for x in range(3)]",
        "[sum(a) for a in [range(3000)] for b in range(3000)]",
        "[max(a) for a in [range(3000)] for b in range(3000)]",
        "[[a for b in range(3000)] for a in [range(3000)]]",
        "9 ** 9 ** 9",
        "int(9) ** int(65)",
        "(int(x) for x in [1])",
        "[x for x in range(3) if x]",
    ],
)
def test_functions_neither_call_nor_cost_more(
    expression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    start = time.perf_counter()
    with pytest.raises(ValueError, match="expression"):
        evaluate_expression(expression)
    assert time.perf_counter() - start < 2
    assert not (tmp_path / "PWNED").exists()


def test_lists_inside_themselves_do_not_explode() -> None:
    expression = "1"
    for level in range(40):
        expression = f"[[x{level}, x{level}] for x{level} in [{expression}]]"
    for text in (expression, f"sum({expression})", f"[1 + x for x in {expression}]"):
        with pytest.raises(ValueError, match="expression"):
            evaluate_expression(text)
