"""Compute the expressions that config files hold, without running them.

A small part of Python is walked node by node. What it costs is bounded: the characters of the expression, the
steps that it takes, the size of its numbers and of its result.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from typing import Any

from detectron2.utils.user_errors import UserValueError

__all__ = ["count_items", "evaluate_expression", "evaluate_literal"]

_MAX_EXPRESSION_CHARS = 2000
_MAX_STEPS = 10_000
_MAX_EXPONENT = 64
_MAX_MAGNITUDE = 1e18


def evaluate_literal(expression: str) -> Any:
    """Compute a literal expression; nothing can be called, imported or looked up.

    Allowed are numbers, text, True, False, None, lists, tuples, + - * / // % ** on numbers, and
    comprehensions whose source is such a list. Work and size of numbers and result are bounded.

    Raises:
        ValueError: anything else.
    """
    return _evaluate(expression, {})


def evaluate_expression(expression: str) -> Any:
    """Compute what `evaluate_literal` does, and call int, float, round, min, max, len, sum and range.

    They take positional arguments: numbers, or a list of them where Python's do. `range` gives a list.

    Raises:
        ValueError: anything else.
    """
    return _evaluate(expression, _FUNCTIONS)


def _evaluate(expression: str, functions: dict[str, Callable[..., Any]]) -> Any:
    if len(expression) > _MAX_EXPRESSION_CHARS:
        raise UserValueError(f"the expression is longer than {_MAX_EXPRESSION_CHARS} characters")
    evaluator = _Evaluator(expression, functions)
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        value = evaluator.evaluate(tree.body, {})
    except (SyntaxError, RecursionError, MemoryError) as e:
        raise UserValueError(f"cannot read the expression {expression!r}: {e}") from e
    # Lists that hold one list twice, level by level, are small in memory and endless when they are written.
    if count_items(value, _MAX_STEPS) > _MAX_STEPS:
        raise evaluator.error(f"has more than {_MAX_STEPS} items")
    return value


def count_items(value: Any, limit: int) -> int:
    """Count the values in nested containers, one that stands in two places twice; stop behind `limit`."""
    count, waiting = 0, [value]
    while waiting and count <= limit:
        item = waiting.pop()
        count += 1
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple)):
            waiting.extend(item)
    return count


def _round(number: float, digits: int | None = None) -> float:
    if digits is not None and (type(digits) is not int or abs(digits) > _MAX_EXPONENT):
        raise ValueError(f"round to {digits!r} digits")
    return round(number, digits)


def _int(number: Any) -> int:
    return int(number)  # one argument: no other base


def _float(number: Any) -> float:
    return float(number)


def _sum(numbers: Sequence[float], start: float = 0) -> float:
    return sum(numbers, start)


def _range(*bounds: int) -> list[int]:
    numbers = range(*bounds)
    if len(numbers) > _MAX_STEPS:
        raise ValueError(f"a range of more than {_MAX_STEPS} numbers")
    return list(numbers)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "int": _int,
    "float": _float,
    "round": _round,
    "min": min,
    "max": max,
    "len": len,
    "sum": _sum,
    "range": _range,
}
_TAKE_TEXT = ("int", "float", "len")
_TAKE_LISTS = ("min", "max", "len", "sum")

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


class _Evaluator:
    """Walk the syntax tree of one expression."""

    def __init__(self, expression: str, functions: dict[str, Callable[..., Any]]) -> None:
        self._expression = expression
        self._functions = functions
        self._steps = 0

    def evaluate(self, node: ast.expr, names: dict[str, Any]) -> Any:
        """Value of `node`, where `names` are the variables of the comprehensions around it."""
        self._spend(1)
        if isinstance(node, ast.Constant) and isinstance(node.value, (bool, str, type(None))):
            return node.value
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return self._number(node.value)
        if isinstance(node, ast.Name) and node.id in names:
            return names[node.id]
        if isinstance(node, (ast.List, ast.Tuple)):
            items = [self.evaluate(item, names) for item in node.elts]
            return items if isinstance(node, ast.List) else tuple(items)
        if isinstance(node, ast.ListComp):
            return self._comprehension(node.elt, node.generators, names)
        if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
            return self._number(_UNARY[type(node.op)](self._number(self.evaluate(node.operand, names))))
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            return self._binary(node, names)
        if isinstance(node, ast.Call):
            return self._call(node, names)
        raise self.error(f"contains `{ast.unparse(node)}`")

    def _spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > _MAX_STEPS:
            raise self.error(f"takes more than {_MAX_STEPS} steps")

    def _call(self, node: ast.Call, names: dict[str, Any]) -> Any:
        name = node.func.id if isinstance(node.func, ast.Name) and node.func.id not in names else ""
        function = self._functions.get(name)
        if function is None or node.keywords or not node.args:
            raise self.error(f"contains `{ast.unparse(node)}`")
        arguments = [self._argument(item, names) for item in node.args]
        for argument in arguments:
            self._check_argument(name, argument)
        try:
            value = function(*arguments)
        except (ValueError, TypeError, ArithmeticError) as e:
            raise self.error(f"fails in `{ast.unparse(node)}` with {e}") from e
        if isinstance(value, list):
            self._spend(len(value))
            return [self._number(item) for item in value]
        return self._number(value)

    def _argument(self, node: ast.expr, names: dict[str, Any]) -> Any:
        if isinstance(node, ast.GeneratorExp):
            return self._comprehension(node.elt, node.generators, names)
        return self.evaluate(node, names)

    def _check_argument(self, name: str, value: Any) -> None:
        if name == "len" and isinstance(value, (list, tuple)):
            return
        if isinstance(value, (list, tuple)) and name in _TAKE_LISTS:
            self._spend(len(value))
            for item in value:
                self._number(item)
        elif not (isinstance(value, (str, bool)) and name in _TAKE_TEXT):
            self._number(value)

    def _binary(self, node: ast.BinOp, names: dict[str, Any]) -> int | float:
        left = self._number(self.evaluate(node.left, names))
        right = self._number(self.evaluate(node.right, names))
        if isinstance(node.op, ast.Pow) and abs(right) > _MAX_EXPONENT:
            raise self.error(f"has an exponent beyond {_MAX_EXPONENT}")
        try:
            return self._number(_BINARY[type(node.op)](left, right))
        except ArithmeticError as e:
            raise self.error(f"fails with {e}") from e

    def _number(self, value: Any) -> int | float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            what = f"a {type(value).__name__}" if isinstance(value, (list, tuple)) else repr(value)
            raise self.error(f"does arithmetic on {what}, which is no real number")
        if not abs(value) <= _MAX_MAGNITUDE:
            raise self.error(f"has a number beyond {_MAX_MAGNITUDE:g}")
        return value

    def _comprehension(
        self, element: ast.expr, generators: list[ast.comprehension], names: dict[str, Any]
    ) -> list[Any]:
        if not generators:
            return [self.evaluate(element, names)]
        first, rest = generators[0], generators[1:]
        if first.ifs or first.is_async or not isinstance(first.target, ast.Name):
            raise self.error("has a comprehension that is not of the form [... for x in [...]]")
        source = self.evaluate(first.iter, names)
        if not isinstance(source, (list, tuple)):
            raise self.error(f"loops over {source!r}, which is no list")
        result: list[Any] = []
        for item in source:
            result += self._comprehension(element, rest, {**names, first.target.id: item})
        return result

    def error(self, problem: str) -> ValueError:
        """An error that says what of the expression is not understood, and what would be."""
        called = (
            f"only {', '.join(self._functions)} are called" if self._functions else "nothing is ever called"
        )
        return UserValueError(
            f"the expression {self._expression!r} {problem}; allowed are numbers, + - * / // % **, lists, "
            f"tuples and comprehensions over literal lists, and {called}"
        )
