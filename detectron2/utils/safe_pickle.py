"""Read pickles of plain data without running anything that they ask for.

The standard unpickler imports and calls whatever a file names. The reader here interprets the opcodes
itself, and what a file names is a key into the short table of `pickled_values`: NumPy arrays and scalars,
`OrderedDict`, sets and Latin-1 bytes. Everything else is refused with its name.
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any

from .pickled_values import (
    CALLABLES,
    NUMPY_CORES,
    ArrayInMaking,
    DTypeInMaking,
    UnsafePickleError,
    checked_key,
    checked_keys,
    make_frozenset,
    make_scalar,
)

__all__ = ["UnsafePickleError", "load", "numpy_scalar_globals"]


def load(file: IO[bytes]) -> Any:
    """Read one pickle of numbers, strings, containers and NumPy arrays.

    Strings of Python 2 are read as Latin-1; arrays come in native byte order.

    Raises:
        UnsafePickleError: the file is cut off or damaged, or names an object that is not plain data.
    """
    try:
        return _Machine().run(file)
    except UnsafePickleError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError) as error:
        raise UnsafePickleError(f"not a readable pickle ({type(error).__name__}: {error})") from error


def numpy_scalar_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return (stand-in, name) pairs for `torch.serialization.safe_globals` to read NumPy's numbers."""
    return [
        (DTypeInMaking, "numpy.dtype"),
        *((make_scalar, f"{core}.multiarray.scalar") for core in NUMPY_CORES),
    ]


class _Name:
    """An object that the file names: a key of the table above, never something to import."""

    def __init__(self, module: object, name: object) -> None:
        if (module, name) not in CALLABLES:
            raise UnsafePickleError(
                f"the pickle asks for {module}.{name}; only plain containers and NumPy arrays are read,"
                " because other objects can run code while they are loaded"
            )
        self.make = CALLABLES[module, name]  # type: ignore[index]


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(checked_keys(items[::2]), items[1::2]))


_MARK = object()


class _Machine:
    """The stack machine that a pickle is a program for."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: IO[bytes]) -> Any:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                return self._finished(self.stack.pop())
            self._step(opcode.name, argument)
        raise UnsafePickleError("the pickle has no end")

    def _step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _TUPLE_SIZES:
            size = _TUPLE_SIZES[name]
            self.stack[len(self.stack) - size :] = [tuple(self._pop_many(size))]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self._finished(self.memo[argument]))
        elif name not in ("PROTO", "FRAME"):
            action = getattr(self, f"_op_{name.lower()}", None)
            if action is None:
                raise UnsafePickleError(f"the pickle uses {name}, which plain data has no need for")
            action(argument)

    @staticmethod
    def _finished(value: Any) -> Any:
        return value.array if isinstance(value, ArrayInMaking) and value.array is not None else value

    def _pop_many(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise UnsafePickleError("the pickle takes more from its stack than is there")
        return self.stack[len(self.stack) - count :]

    def _pop_to_mark(self) -> list[Any]:
        """Take off everything above the topmost mark, and the mark."""
        for start in range(len(self.stack) - 1, -1, -1):
            if self.stack[start] is _MARK:
                items = self.stack[start + 1 :]
                del self.stack[start:]
                return items
        raise UnsafePickleError("the pickle misses a mark on its stack")

    def _top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise UnsafePickleError(f"the pickle fills a {kind.__name__} that is not there")
        return self.stack[-1]

    # One method an opcode; `_` is the opcode's argument where it has none.

    def _op_mark(self, _: None) -> None:
        self.stack.append(_MARK)

    def _op_pop(self, _: None) -> None:
        self.stack.pop()

    def _op_pop_mark(self, _: None) -> None:
        self._pop_to_mark()

    def _op_dup(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def _op_memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _op_tuple(self, _: None) -> None:
        self.stack.append(tuple(self._pop_to_mark()))

    def _op_list(self, _: None) -> None:
        self.stack.append(self._pop_to_mark())

    def _op_dict(self, _: None) -> None:
        items = self._pop_to_mark()
        self.stack.append(_pairs(items))

    def _op_frozenset(self, _: None) -> None:
        self.stack.append(make_frozenset(self._pop_to_mark()))

    def _op_append(self, _: None) -> None:
        item = self.stack.pop()
        self._top(list).append(item)

    def _op_appends(self, _: None) -> None:
        items = self._pop_to_mark()
        self._top(list).extend(items)

    def _op_setitem(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._top(dict)[checked_key(key)] = value

    def _op_setitems(self, _: None) -> None:
        items = self._pop_to_mark()
        self._top(dict).update(_pairs(items))

    def _op_additems(self, _: None) -> None:
        items = self._pop_to_mark()
        self._top(set).update(checked_keys(items))

    def _op_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(_Name(module, name))

    def _op_stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(_Name(module, name))

    def _op_reduce(self, _: None) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise UnsafePickleError("the pickle calls something that it did not name")
        self.stack.append(function.make(*arguments))

    def _op_build(self, _: None) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, OrderedDict):
            return  # what a state dict notes about its modules; nobody here reads it
        if not isinstance(target, (ArrayInMaking, DTypeInMaking)):
            raise UnsafePickleError(f"the pickle sets the inner state of a {type(target).__name__}")
        target.__setstate__(state)
        self.stack[-1] = self._finished(target)


_LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES"
    " SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8".split()
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_TUPLE_SIZES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
