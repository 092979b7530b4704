"""Names, arguments and defaults that users rely on are there, as `public_api.json` lists them.

The table holds, by module: a function's arguments, a class's members with theirs, and null for other values.
It is a contract: an entry changes only when the interface is meant to change.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

API: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("public_api.json").read_text())

COMPATIBILITY = Path(__file__).parents[1] / "docs" / "compatibility.md"


def omissions() -> dict[str, str]:
    """Names that are left out on purpose, and why: the table of the docs."""
    section = COMPATIBILITY.read_text(encoding="utf-8").split("## Left out on purpose")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {name.strip("`"): why for name, why, _ in rows}


OMITTED = omissions()

Parameter = tuple[str, str, str | None]
"""(name, kind, default as source text or None)."""


def expected_parameters(signature: str) -> list[Parameter]:
    function = ast.parse(f"def f{signature}: pass").body[0]
    assert isinstance(function, ast.FunctionDef)
    arguments = function.args
    positional = [argument.arg for argument in arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + [
        ast.unparse(d) for d in arguments.defaults
    ]
    found: list[Parameter] = [(name, "positional", d) for name, d in zip(positional, defaults)]
    if arguments.vararg:
        found.append((arguments.vararg.arg, "*", None))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults):
        found.append((argument.arg, "keyword", ast.unparse(default) if default else None))
    if arguments.kwarg:
        found.append((arguments.kwarg.arg, "**", None))
    return found


KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: "positional-only",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "positional",
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.KEYWORD_ONLY: "keyword",
    inspect.Parameter.VAR_KEYWORD: "**",
}


def literal(source: str) -> tuple[bool, Any]:
    try:
        return True, ast.literal_eval(source)
    except ValueError:
        return False, None


def check_signature(expected: list[Parameter], function: Any, skip_first: bool) -> str | None:
    """What is wrong with the arguments of `function`, or None."""
    actual = list(inspect.signature(function).parameters.values())
    if skip_first:
        expected = expected[1:]
        actual = actual[1:] if actual and actual[0].name in ("self", "cls") else actual
    named = {parameter.name: parameter for parameter in actual}
    order = [p.name for p in actual if KINDS[p.kind] == "positional"]
    if [name for name, kind, _ in expected if kind == "positional"] != order[
        : sum(kind == "positional" for _, kind, _ in expected)
    ]:
        return f"positional arguments are {order}"
    takes = {KINDS[parameter.kind] for parameter in actual}
    for name, kind, default in expected:
        if kind in ("*", "**"):
            if kind not in takes:
                return f"{kind}{name} is not taken"
            continue
        if name not in named:
            return f"{name} is missing"
        parameter = named[name]
        if default is not None and parameter.default is inspect.Parameter.empty:
            return f"{name} is required and had the default {default}"
        is_literal, value = literal(default) if default is not None else (False, None)
        if is_literal and parameter.default != value and list_of(parameter.default) != list_of(value):
            return f"{name} has default {parameter.default!r} instead of {default}"
    known = {name for name, _, _ in expected}
    for parameter in actual:
        required = parameter.default is inspect.Parameter.empty
        if required and parameter.name not in known and KINDS[parameter.kind] not in ("*", "**"):
            return f"{parameter.name} is required and was not before"
    return None


def list_of(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def check_class(kind: Any, members: dict[str, str | None]) -> list[str]:
    if not isinstance(kind, type):
        return ["is no class"]
    problems = []
    fields = {name for base in kind.__mro__ for name in vars(base).get("__annotations__", {})}
    for name, signature in members.items():
        if not hasattr(kind, name):
            if name not in fields:
                problems.append(f"{name} is missing")
            continue
        member = inspect.getattr_static(kind, name)
        if signature is None:
            continue
        if signature == "property":
            if not isinstance(member, property) and callable(member):
                problems.append(f"{name} is no property")
            continue
        decorator = signature[: signature.index("(")].strip()
        arguments = signature[signature.index("(") :]
        if decorator and not isinstance(
            member, {"staticmethod": staticmethod, "classmethod": classmethod}[decorator]
        ):
            problems.append(f"{name} is no {decorator}")
            continue
        problem = check_signature(
            expected_parameters(arguments), getattr(kind, name), decorator != "staticmethod"
        )
        if problem:
            problems.append(f"{name}: {problem}")
    return problems


def test_what_is_left_out_is_in_the_table_with_a_reason() -> None:
    names = {f"{module}.{name}" for module, entries in API.items() for name in entries}
    assert names >= OMITTED.keys()
    assert OMITTED and all(len(reason) > 10 for reason in OMITTED.values())


@pytest.mark.parametrize("path", OMITTED)
def test_what_is_left_out_says_why_when_it_is_called(path: str) -> None:
    module, _, name = path.rpartition(".")
    left_out = getattr(importlib.import_module(module), name)
    reason = re.escape(OMITTED[path].replace("`", "")[:20])
    with pytest.raises(NotImplementedError, match=f"{name} is left out: {reason}"):
        left_out(1, anything="goes")


def test_table_holds_every_public_name_of_the_interface(shared_dir: Path) -> None:
    lines = (shared_dir / "spec" / "api.txt").read_text(encoding="utf-8").splitlines()
    module, kind, missing = "", "", []
    for line in lines:
        if line.startswith("# "):
            module = line[2:].removesuffix(".py").replace("/", ".").removesuffix(".__init__")
            continue
        name = re.fullmatch(r"(?:@\S+ )*(class |def )?(\w+)(\(.*)?", line.strip())
        if name is None:
            continue  # nothing, or a decorator alone
        entries: Any = API.get(module, {})
        if line.startswith(" "):
            entries = entries.get(kind) or {}
        else:
            kind = name[2] if name[1] == "class " else ""
        if not name[2].startswith("_") and not kind.startswith("_") and name[2] not in entries:
            missing.append(f"{module}: {line.strip()}")
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("module_name", sorted(API))
def test_module_offers_its_public_names(module_name: str) -> None:
    module = importlib.import_module(module_name)
    problems = []
    for name, entry in API[module_name].items():
        if not hasattr(module, name):
            problems.append(f"{name} is missing")
        elif f"{module_name}.{name}" in OMITTED:
            continue  # it is there to be imported, and takes anything
        elif isinstance(entry, dict):
            problems += [f"{name}.{problem}" for problem in check_class(getattr(module, name), entry)]
        elif entry is not None:
            problem = check_signature(expected_parameters(entry), getattr(module, name), False)
            problems += [f"{name}: {problem}"] if problem else []
    assert not problems, "\n".join([module_name, *problems])
