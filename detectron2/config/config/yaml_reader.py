"""Read YAML config files without ever running what they contain.

Two tags that published configs carry are understood, everything else under `!!python/` is refused:

    SIZES: !!python/object/apply:eval ["[[x, x * 2**(1.0/3)] for x in [32, 64]]"]
    STEPS: !!python/tuple [60000, 80000]

`evaluate_literal` reads the expression: numbers, arithmetic, lists, tuples, comprehensions over literals.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Hashable
from typing import IO, Any

import yaml

from detectron2.utils.user_errors import UserValueError

try:
    from yaml import CSafeLoader as _BaseLoader
except ImportError:  # PyYAML without libyaml: slower, reads the same
    from yaml import SafeLoader as _BaseLoader  # type: ignore[assignment]  # a twin, not a subclass

_EVAL_TAG = "tag:yaml.org,2002:python/object/apply:eval"
_TUPLE_TAG = "tag:yaml.org,2002:python/tuple"
_PYTHON_TAGS = "tag:yaml.org,2002:python/"

_MAX_EXPRESSION_CHARS = 2000
_MAX_STEPS = 10_000
_MAX_EXPONENT = 64
_MAX_MAGNITUDE = 1e18


def load_yaml(stream: IO[str], filename: str) -> dict[str, Any]:
    """Read one YAML file that holds a tree of config keys.

    Args:
        stream: the open file.
        filename: for messages.

    Raises:
        ValueError: broken syntax, a duplicate key, a tag that is not allowed, a value of no config type. The
            message starts with file and line.
    """
    loader = _ConfigLoader(stream)
    try:
        tree = loader.get_single_data()
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise UserValueError(f"{filename}{line}: {e.problem or e.context}") from e
    except yaml.YAMLError as e:
        raise UserValueError(f"{filename}: {e}") from e
    finally:
        loader.dispose()
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserValueError(
            f"{filename}: expected keys with values at the top, found a {type(tree).__name__}"
        )
    _check_types(tree, filename, ())
    return tree


def _check_types(tree: dict[Any, Any], filename: str, path: tuple[str, ...]) -> None:
    for key, value in tree.items():
        where = f"{filename}: {'.'.join((*path, str(key)))}"
        if not isinstance(key, str):
            raise UserValueError(
                f"{where}: a key must be text, this one is read as {type(key).__name__}; quote it"
            )
        if isinstance(value, dict):
            _check_types(value, filename, (*path, key))
        elif not isinstance(value, (str, int, float, list, tuple, type(None))):
            raise UserValueError(
                f"{where}: {value!r} is read as {type(value).__name__}, which no config key holds; "
                "quote it to make it text"
            )


class _ConfigLoader(_BaseLoader):
    """YAML's safe types, no duplicate keys, and the two published Python tags."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in getattr(node, "value", ()):
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None,
                        None,
                        f"key {key_node.value} appears twice in the same section; keep one of them",
                        key_node.start_mark,
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


def _construct_tuple(loader: _ConfigLoader, node: yaml.Node) -> tuple[Any, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.constructor.ConstructorError(None, None, "!!python/tuple needs a list", node.start_mark)
    return tuple(loader.construct_sequence(node, deep=True))


def _construct_expression(loader: _ConfigLoader, node: yaml.Node) -> Any:
    arguments = loader.construct_sequence(node, deep=True) if isinstance(node, yaml.SequenceNode) else None
    try:
        if arguments is None or len(arguments) != 1 or not isinstance(arguments[0], str):
            raise UserValueError("!!python/object/apply:eval needs a list of exactly one string")
        return evaluate_literal(arguments[0])
    except ValueError as e:
        raise yaml.constructor.ConstructorError(None, None, str(e), node.start_mark) from e


def _refuse_tag(loader: _ConfigLoader, suffix: str, node: yaml.Node) -> Any:
    raise yaml.constructor.ConstructorError(
        None,
        None,
        f"the tag !!python/{suffix} is refused: reading a config never runs code; write plain YAML values",
        node.start_mark,
    )


_ConfigLoader.add_constructor(_TUPLE_TAG, _construct_tuple)
_ConfigLoader.add_constructor(_EVAL_TAG, _construct_expression)
_ConfigLoader.add_multi_constructor(_PYTHON_TAGS, _refuse_tag)


def evaluate_literal(expression: str) -> Any:
    """Compute a literal expression; nothing can be called, imported or looked up.

    Allowed are numbers, text, True, False, None, lists, tuples, + - * / // % ** on numbers, and
    comprehensions whose source is such a list. Work and size of numbers are bounded.

    Raises:
        ValueError: anything else.
    """
    if len(expression) > _MAX_EXPRESSION_CHARS:
        raise UserValueError(f"the expression is longer than {_MAX_EXPRESSION_CHARS} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        return _LiteralEvaluator(expression).evaluate(tree.body, {})
    except (SyntaxError, RecursionError, MemoryError) as e:
        raise UserValueError(f"cannot read the expression {expression!r}: {e}") from e


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


class _LiteralEvaluator:
    """Walk the syntax tree of one expression."""

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._steps = 0

    def evaluate(self, node: ast.expr, names: dict[str, Any]) -> Any:
        """Value of `node`, where `names` are the variables of the comprehensions around it."""
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise self._error(f"takes more than {_MAX_STEPS} steps")
        if isinstance(node, ast.Constant) and isinstance(node.value, (bool, str, type(None))):
            return node.value
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return self._number(node.value)
        if isinstance(node, ast.Name) and node.id in names:
            return names[node.id]
        if isinstance(node, ast.List):
            return [self.evaluate(item, names) for item in node.elts]
        if isinstance(node, ast.Tuple):
            return tuple(self.evaluate(item, names) for item in node.elts)
        if isinstance(node, ast.ListComp):
            return self._comprehension(node.elt, node.generators, names)
        if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
            return self._number(_UNARY[type(node.op)](self._number(self.evaluate(node.operand, names))))
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            return self._binary(node, names)
        raise self._error(f"contains `{ast.unparse(node)}`")

    def _binary(self, node: ast.BinOp, names: dict[str, Any]) -> int | float:
        left = self._number(self.evaluate(node.left, names))
        right = self._number(self.evaluate(node.right, names))
        if isinstance(node.op, ast.Pow) and abs(right) > _MAX_EXPONENT:
            raise self._error(f"has an exponent beyond {_MAX_EXPONENT}")
        try:
            return self._number(_BINARY[type(node.op)](left, right))
        except ArithmeticError as e:
            raise self._error(f"fails with {e}") from e

    def _number(self, value: Any) -> int | float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._error(f"does arithmetic on {value!r}, which is no real number")
        if not abs(value) <= _MAX_MAGNITUDE:
            raise self._error(f"has a number beyond {_MAX_MAGNITUDE:g}")
        return value

    def _comprehension(
        self, element: ast.expr, generators: list[ast.comprehension], names: dict[str, Any]
    ) -> list[Any]:
        if not generators:
            return [self.evaluate(element, names)]
        first, rest = generators[0], generators[1:]
        if first.ifs or first.is_async or not isinstance(first.target, ast.Name):
            raise self._error("has a comprehension that is not of the form [... for x in [...]]")
        source = self.evaluate(first.iter, names)
        if not isinstance(source, (list, tuple)):
            raise self._error(f"loops over {source!r}, which is no list")
        result: list[Any] = []
        for item in source:
            result += self._comprehension(element, rest, {**names, first.target.id: item})
        return result

    def _error(self, problem: str) -> ValueError:
        return UserValueError(
            f"the expression {self._expression!r} {problem}; allowed are numbers, + - * / // % **, lists, "
            "tuples and comprehensions over literal lists, and nothing is ever called"
        )
