"""What a pickle of plain data may name, and what a call of each name makes.

Numbers, strings, containers and NumPy arrays. Arrays are made from checked parts, so that a forged
state never reaches NumPy, and keys are checked before anything hashes them.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from .user_errors import UserValueError

NUMPY_CORES = ("numpy.core", "numpy._core")  # the second since NumPy 2


class UnsafePickleError(UserValueError):
    """The pickle is damaged, or holds more than plain data."""


class DTypeInMaking:
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


class ArrayInMaking:
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
    if not isinstance(dtype, DTypeInMaking):
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


def make_scalar(dtype: object, data: object) -> Any:
    return _make_array(data, dtype, (), "C")[()]


def _latin1_bytes(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes in the protocols of Python 2."""
    if encoding not in ("latin1", "latin-1"):
        raise UnsafePickleError(f"bytes encoded as {encoding!r} are not read")
    return text.encode("latin1")


def _bytearray(data: object = b"", _encoding: object = None) -> bytearray:
    return bytearray(_as_bytes(data))


def checked_key(key: Any) -> Any:
    """Pass on what may be a key; to hash a tuple that is nested a million deep ends the process."""
    for part in key if isinstance(key, tuple) else (key,):
        if not isinstance(part, (str, bytes, int, float, type(None))):
            raise UnsafePickleError(f"a {type(part).__name__} is not read as a key")
    return key


def checked_keys(keys: Any) -> list[Any]:
    return [checked_key(key) for key in keys]


def _ordered_dict(items: Any = ()) -> OrderedDict[Any, Any]:
    return OrderedDict((checked_key(key), value) for key, value in items)


def _make_set(items: Any = ()) -> set[Any]:
    return set(checked_keys(items))


def make_frozenset(items: Any = ()) -> frozenset[Any]:
    return frozenset(checked_keys(items))


def _no_bytes_but_empty(*args: object) -> bytes:
    if args:
        raise UnsafePickleError("bytes are not made by a call")
    return b""


def _no_more(what: str) -> Callable[..., Any]:
    def refuse(*_: object) -> Any:
        raise UnsafePickleError(f"{what} cannot be called here")

    return refuse


# Names in a file -> what a call of them makes. `ndarray` itself is only ever an argument.
CALLABLES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _no_more("numpy.ndarray"),
    ("numpy", "dtype"): DTypeInMaking,
    ("collections", "OrderedDict"): _ordered_dict,
    ("_codecs", "encode"): _latin1_bytes,
}
for _builtins in ("builtins", "__builtin__"):
    CALLABLES[_builtins, "set"] = _make_set
    CALLABLES[_builtins, "frozenset"] = make_frozenset
    CALLABLES[_builtins, "bytes"] = _no_bytes_but_empty
    CALLABLES[_builtins, "bytearray"] = _bytearray
for _core in NUMPY_CORES:
    CALLABLES[f"{_core}.multiarray", "_reconstruct"] = ArrayInMaking
    CALLABLES[f"{_core}.multiarray", "scalar"] = make_scalar
    CALLABLES[f"{_core}.numeric", "_frombuffer"] = _array_from_buffer
