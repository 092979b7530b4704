"""Plain data survives; nothing that a file asks for is run."""

from __future__ import annotations

import io
import os
import pickle
import struct
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detectron2.utils.safe_pickle import UnsafePickleError, load


def read(data: bytes) -> Any:
    return load(io.BytesIO(data))


PLAIN = [
    None,
    True,
    -(2**70),
    2.5,
    "schön",
    b"\x00\xff",
    b"",
    bytearray(b"ab"),
    [],
    (1,),
    (1, 2, 3, 4),
    {"a": [1, {2: (3,)}]},
    {1, 2},
    frozenset({"x"}),
    OrderedDict(b=1, a=2),
    {("a", 1): 2},
    np.float32(1.5),
    np.int64(-3),
    np.bool_(True),
]
ARRAYS = [
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.zeros((0, 5), np.float16),
    np.array(7),
    np.array([True, False]),
    np.arange(3, dtype=">i2"),
    np.array(["a", "bcd"]),
    np.array([1 + 2j]),
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_is_read_as_it_was(protocol: int) -> None:
    for value in PLAIN:
        found = read(pickle.dumps(value, protocol))
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_keep_values_and_shape(protocol: int) -> None:
    for array in ARRAYS:
        found = read(pickle.dumps({"x": [array]}, protocol))["x"][0]
        assert found.shape == array.shape
        assert found.dtype == array.dtype.newbyteorder("=")
        assert np.array_equal(found, array)
        assert found.flags.writeable


def test_one_object_stays_one_object() -> None:
    array = np.ones(3)
    found = read(pickle.dumps([array, array]))
    assert found[0] is found[1]


def test_pickle_of_python_2_is_read() -> None:
    # {'w': array([1., 2.], dtype=float32)} as Python 2 and NumPy 1 wrote it.
    data = (
        b"\x80\x02}q\x00U\x01wq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85"
        b"q\x04U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x02\x85q\x08cnumpy\ndtype\nq\tU\x02f4q\nK\x00K\x01\x87q\x0bRq\x0c"
        b"(K\x03U\x01<q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89U\x08"
        + struct.pack("<2f", 1, 2)
        + b"q\x0ftq\x10bs."
    )
    assert read(data)["w"].tolist() == [1.0, 2.0]


class _Calls:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


class _Holder:
    pass


def hostile_pickles(marker: Path) -> dict[str, bytes]:
    touch = f"open({str(marker)!r}, 'w')"
    array_state = b"(K\x01K\x02\x85"  # version 1, shape (2,)
    empty_array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    return {
        "os.system": pickle.dumps(_Calls(os.system, f"touch {marker}")),
        "eval": pickle.dumps(_Calls(eval, touch)),
        "exec in a list of weights": pickle.dumps({"model": {"w": np.ones(2), "x": _Calls(exec, touch)}}),
        "getattr": pickle.dumps(_Calls(getattr, "x", "upper")),
        "a class of the file's own": pickle.dumps(_Holder()),
        "import by an old opcode": b"(S'" + touch.encode() + b"'\nios\nsystem\n.",
        "object opcode": b"(cos\nsystem\nS'touch x'\no.",
        "new object": b"\x80\x02cos\nsystem\n)\x81.",
        "persistent id": b"Pfile\n.",
        "extension registry": b"\x80\x02\x82\x01.",
        "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
        "a name that is no string": b"\x80\x04K\x01K\x02\x93.",
        "a call of ndarray": b"cnumpy\nndarray\nK\x05\x85R.",
        "a call of a string": b"S'os'\n(tR.",
        "state for a list": b"](K\x01tb.",
        "object array": pickle.dumps(np.array([{}], dtype=object)),
        "record array": pickle.dumps(np.zeros(2, dtype=[("a", "f4")])),
        "array shorter than its shape": empty_array
        + array_state
        + b"cnumpy\ndtype\nS'f4'\n\x85R\x89C\x04abcdtb.",
        "array of negative size": empty_array
        + b"(K\x01J\xff\xff\xff\xff\x85cnumpy\ndtype\nS'f4'\n\x85R\x89C\x00tb.",
        "object dtype behind a number": b"cnumpy\ndtype\nS'O'\n\x85R.",
        "bytes by another codec": b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00utf-7\x86R.",
        "text of a huge length": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"a.",
        "key nested without end": b"}" + b"(" * 1 + b")" + b"\x85" * 100_000 + b"K\x01u.",
        "stack underflow": b"\x86.",
        "mark that is not there": b"u.",
        "memo that is not there": b"h\x05.",
        "no end": b"]",
        "nothing": b"",
        "unknown opcode": b"\xff.",
    }


@pytest.mark.parametrize("name", list(hostile_pickles(Path("x"))))
def test_hostile_pickle_is_refused_and_not_run(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "was_run"
    with pytest.raises(UnsafePickleError):
        read(hostile_pickles(marker)[name])
    assert not marker.exists()


def test_refusal_names_what_was_asked_for() -> None:
    with pytest.raises(UnsafePickleError, match=r"asks for (posix|nt)\.system"):
        read(pickle.dumps(_Calls(os.system, "true")))


def test_every_cut_of_a_pickle_is_refused() -> None:
    data = pickle.dumps({"model": OrderedDict(w=np.arange(4.0), n=[1, "a", (2.5, None)])})
    for length in range(len(data)):
        with pytest.raises(UnsafePickleError):
            read(data[:length])


def test_flipped_bytes_never_do_more_than_change_data() -> None:
    data = bytearray(pickle.dumps({"model": OrderedDict(w=np.arange(4.0), n=[1, "a"])}))
    rng = np.random.RandomState(0)
    for _ in range(500):
        broken = bytearray(data)
        for position in rng.randint(0, len(data), 3):
            broken[position] = rng.randint(256)
        with suppress(UnsafePickleError):
            read(bytes(broken))
