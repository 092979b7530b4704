"""Read YAML config files without ever running what they contain.

Three tags that published configs carry are understood, everything else under `!!python/` is refused:

    SIZES: !!python/object/apply:eval ["[[x, x * 2**(1.0/3)] for x in [32, 64]]"]
    STEPS: !!python/tuple [60000, 80000]
    input_shape: !!python/object:detectron2.layers.shape_spec.ShapeSpec {channels: 256}

`evaluate_expression` reads the expression: numbers, arithmetic, lists, tuples, comprehensions, and eight
functions of numbers. A `ShapeSpec` is read as the lazy config that builds it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable
from typing import IO, Any

import yaml

from detectron2.config.config.expressions import count_items, evaluate_expression
from detectron2.utils.user_errors import UserValueError

try:
    from yaml import CSafeLoader as _BaseLoader
except ImportError:  # PyYAML without libyaml: slower, reads the same
    from yaml import SafeLoader as _BaseLoader  # type: ignore[assignment]  # a twin, not a subclass

_EVAL_TAG = "tag:yaml.org,2002:python/object/apply:eval"
_TUPLE_TAG = "tag:yaml.org,2002:python/tuple"
_PYTHON_TAGS = "tag:yaml.org,2002:python/"
_MERGE_TAG = "tag:yaml.org,2002:merge"

# A dataclass is dumped as an object, a named tuple as a new one.
_SHAPE_TAG = re.compile(r"object(/new)?:detectron2\.layers(\.shape_spec)?\.ShapeSpec")
_SHAPE_FIELDS = ("channels", "height", "width", "stride")

_MAX_ITEMS = 1_000_000

logger = logging.getLogger(__name__)


def load_yaml(stream: IO[str], filename: str) -> dict[str, Any]:
    """Read one YAML file that holds a tree of config keys.

    Args:
        stream: the open file.
        filename: for messages.

    Raises:
        ValueError: broken syntax, a tag that is not allowed, a value of no config type. The message
            starts with file and line.
    """
    loader = _ConfigLoader(stream)
    loader.filename = filename
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
    # Aliases can make a short file endless to whoever walks through it.
    if count_items(tree, _MAX_ITEMS) > _MAX_ITEMS:
        raise UserValueError(f"{filename}: its aliases stand for more than {_MAX_ITEMS} values")
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
    """YAML's safe types, and the tags that published files carry. Of equal keys the last one counts."""

    filename = ""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key_node, _ in getattr(node, "value", ()):
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _MERGE_TAG:
                continue
            key, line = key_node.value, key_node.start_mark.line + 1
            if key in lines:
                logger.warning(
                    "%s:%d: key %s stands twice in its section, first in line %d; the last one counts",
                    self.filename,
                    line,
                    key,
                    lines[key],
                )
            lines[key] = line
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
        return evaluate_expression(arguments[0])
    except ValueError as e:
        raise yaml.constructor.ConstructorError(None, None, str(e), node.start_mark) from e


def _construct_shape(
    loader: _ConfigLoader, path: str, node: yaml.MappingNode | yaml.SequenceNode
) -> dict[Hashable, Any]:
    fields: dict[Hashable, Any]
    if isinstance(node, yaml.MappingNode):
        fields = loader.construct_mapping(node, deep=True)
    else:
        fields = dict(zip(_SHAPE_FIELDS, loader.construct_sequence(node, deep=True)))
    return {"_target_": path, **fields}


def _read_or_refuse(loader: _ConfigLoader, suffix: str, node: yaml.Node) -> Any:
    if _SHAPE_TAG.fullmatch(suffix) and isinstance(node, (yaml.MappingNode, yaml.SequenceNode)):
        return _construct_shape(loader, suffix.partition(":")[2], node)
    raise yaml.constructor.ConstructorError(
        None,
        None,
        f"the tag !!python/{suffix} is refused: reading a config never runs code; write plain YAML values",
        node.start_mark,
    )


_ConfigLoader.add_constructor(_TUPLE_TAG, _construct_tuple)
_ConfigLoader.add_constructor(_EVAL_TAG, _construct_expression)
_ConfigLoader.add_multi_constructor(_PYTHON_TAGS, _read_or_refuse)
