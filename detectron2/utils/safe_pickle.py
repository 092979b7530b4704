"""Read pickles of plain data without running anything that they ask for.

The standard unpickler imports and calls whatever a file names. The reader here interprets the opcodes
itself, and what
a file names is a key into a short table: NumPy arrays and scalars, `OrderedDict`, sets and Latin-1 bytes.
Everything else is refused with its name. Arrays are made from checked parts, so that a forged state never
reaches NumPy.
"""

from __future__ import annotations

import math
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from .user_errors import UserValueError

__all__ = ["UnsafePickleError", "load", "numpy_scalar_globals"]


_NUMPY_CORES = ("numpy.core", "numpy._core")  # the second since NumPy 2


class UnsafePickleError(UserValueError):
    """The pickle is damaged, or holds more than plain data."""


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
    return [(_DType, "numpy.dtype"), *((_scalar, f"{core}.multiarray.scalar") for core in _NUMPY_CORES)]


class _DType:
    """A dtype while its state is still to come; only plain numbers, booleans and strings are known."""

    def __init__(self, code: object, *_: object) -> None:
        text = code.decode("ascii") if isinstance(code, bytes) else code
        if not isinstance(text, str):
            raise UnsafePickleError(f"a NumPy dtype must be named by a string, got {code!r}")
        self.dtype = _numeric_dtype(text)

    def __setstate__(self, state: Any) -> None:
        byte_order = state[1]
        if isinstance(byte_order, bytes):
            byte_order = byte_order.decode("ascii")
        if byte_order not in ("<", ">", "|", "="):
            raise UnsafePickleError(f"{byte_order!r} is not a byte order")
        if any(part is not None for part in state[2:5]):
            raise UnsafePickleError("NumPy arrays of records are not read")
        self.dtype = self.dtype.newbyteorder(byte_order)


class _Array:
    """An array while its state is still to come."""

    def __init__(self, *_: object) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        self.array = _make_array(data, dtype, shape, "F" if is_fortran else "C")


def _numeric_dtype(code: str) -> np.dtype:
    dtype = np.dtype(code)
    if dtype.kind not in "biufcSU" or dtype.names is not None or dtype.subdtype is not None:
        raise UnsafePickleError(
            f"NumPy arrays of dtype {code!r} are not read, only numbers, booleans and strings"
        )
    return dtype


def _as_bytes(data: object) -> bytes:
    """Take bytes, or the string that Python 2 wrote for them."""
    if isinstance(data, str):
        return data.encode("latin1")
    if isinstance(data, (bytes, bytearray)):
        return bytes(data)
    raise UnsafePickleError(f"array data must be bytes, got {type(data).__name__}")


def _make_array(data: object, dtype: object, shape: Any, order: str) -> np.ndarray:
    if not isinstance(dtype, _DType):
        raise UnsafePickleError("an array needs a NumPy dtype")
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise UnsafePickleError(f"{shape} is not the shape of an array")
    raw = _as_bytes(data)
    expected = math.prod(shape) * dtype.dtype.itemsize
    if len(raw) != expected:
        raise UnsafePickleError(f"an array of shape {shape} needs {expected} bytes, got {len(raw)}")
    # A copy in native byte order: writable, and what torch takes.
    flat = np.frombuffer(raw, dtype.dtype).astype(dtype.dtype.newbyteorder("="))
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _array_from_buffer(data: object, dtype: object, shape: object, order: str) -> np.ndarray:
    return _make_array(data, dtype, shape, order)


def _scalar(dtype: object, data: object) -> Any:
    return _make_array(data, dtype, (), "C")[()]


def _latin1_bytes(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes in the protocols of Python 2."""
    if encoding not in ("latin1", "latin-1"):
        raise UnsafePickleError(f"bytes encoded as {encoding!r} are not read")
    return text.encode("latin1")


def _bytearray(data: object = b"", _encoding: object = None) -> bytearray:
    return bytearray(_as_bytes(data))


def _checked_key(key: Any) -> Any:
    """Pass on what may be a key; to hash a tuple that is nested a million deep ends the process."""
    for part in key if isinstance(key, tuple) else (key,):
        if not isinstance(part, (str, bytes, int, float, type(None))):
            raise UnsafePickleError(f"a {type(part).__name__} is not read as a key")
    return key


def _checked_keys(keys: Any) -> list[Any]:
    return [_checked_key(key) for key in keys]


def _ordered_dict(items: Any = ()) -> OrderedDict[Any, Any]:
    return OrderedDict((_checked_key(key), value) for key, value in items)


def _make_set(items: Any = ()) -> set[Any]:
    return set(_checked_keys(items))


def _make_frozenset(items: Any = ()) -> frozenset[Any]:
    return frozenset(_checked_keys(items))


def _no_bytes_but_empty(*args: object) -> bytes:
    if args:
        raise UnsafePickleError("bytes are not made by a call")
    return b""


def _no_more(what: str) -> Callable[..., Any]:
    def refuse(*_: object) -> Any:
        raise UnsafePickleError(f"{what} cannot be called here")

    return refuse


# Names in a file -> what a call of them makes. `ndarray` itself is only ever an argument.
_CALLABLES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _no_more("numpy.ndarray"),
    ("numpy", "dtype"): _DType,
    ("collections", "OrderedDict"): _ordered_dict,
    ("_codecs", "encode"): _latin1_bytes,
}
for _builtins in ("builtins", "__builtin__"):
    _CALLABLES[_builtins, "set"] = _make_set
    _CALLABLES[_builtins, "frozenset"] = _make_frozenset
    _CALLABLES[_builtins, "bytes"] = _no_bytes_but_empty
    _CALLABLES[_builtins, "bytearray"] = _bytearray
for _core in _NUMPY_CORES:
    _CALLABLES[f"{_core}.multiarray", "_reconstruct"] = _Array
    _CALLABLES[f"{_core}.multiarray", "scalar"] = _scalar
    _CALLABLES[f"{_core}.numeric", "_frombuffer"] = _array_from_buffer


class _Name:
    """An object that the file names: a key of the table above, never something to import."""

    def __init__(self, module: object, name: object) -> None:
        if (module, name) not in _CALLABLES:
            raise UnsafePickleError(
                f"the pickle asks for {module}.{name}; only plain containers and NumPy arrays are read,"
                " because other objects can run code while they are loaded"
            )
        self.make = _CALLABLES[module, name]  # type: ignore[index]


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(_checked_keys(items[::2]), items[1::2]))


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
        return value.array if isinstance(value, _Array) and value.array is not None else value

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
        self.stack.append(_make_frozenset(self._pop_to_mark()))

    def _op_append(self, _: None) -> None:
        item = self.stack.pop()
        self._top(list).append(item)

    def _op_appends(self, _: None) -> None:
        items = self._pop_to_mark()
        self._top(list).extend(items)

    def _op_setitem(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._top(dict)[_checked_key(key)] = value

    def _op_setitems(self, _: None) -> None:
        items = self._pop_to_mark()
        self._top(dict).update(_pairs(items))

    def _op_additems(self, _: None) -> None:
        items = self._pop_to_mark()
        self._top(set).update(_checked_keys(items))

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
        if not isinstance(target, (_Array, _DType)):
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
