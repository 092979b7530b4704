"""Broken and hostile checkpoint files, each with a name that says what is wrong with it.

A `Case` gives the bytes of a file and its suffix. The code that hostile ones try to run would make a file,
the canary; its path stands in `CANARY` for the length of a test, and in an environment variable, so that the
bytes are the same in every run.
"""

from __future__ import annotations

import functools
import io
import json
import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

CANARY_VARIABLE = "DETECTRON2_TEST_CANARY"
_SHELL = f'touch "${CANARY_VARIABLE}"'
_PYTHON = f"import os; open(os.environ['{CANARY_VARIABLE}'], 'w').close()"


@dataclass(frozen=True)
class Case:
    """One file.

    Attributes:
        is_refused: loading it must be an error. Otherwise it may also load: a flipped bit may be in a byte
            that means nothing, or in a weight of a format without checksums.
    """

    name: str
    suffix: str
    content: bytes
    is_refused: bool = True


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(first=nn.Linear(2, 4), norm=nn.BatchNorm1d(4), last=nn.Linear(4, 3)))


def good_state() -> dict[str, Tensor]:
    """Weights that fit the model and differ from its own."""
    return {name: torch.full_like(value, 2) for name, value in make_model().state_dict().items()}


def to_torch(data: Any, is_legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(data, buffer, _use_new_zipfile_serialization=not is_legacy)
    return buffer.getvalue()


def to_pickle(state: dict[str, Tensor], protocol: int = 4) -> bytes:
    arrays = {name: value.numpy() for name, value in state.items()}
    return pickle.dumps({"model": arrays, "__author__": "somebody"}, protocol=protocol)


@functools.cache
def good_files() -> dict[str, tuple[str, bytes]]:
    """One undamaged file a format, by the name of the format: (suffix, bytes)."""
    state = good_state()
    return {
        "zip": (".pth", to_torch({"model": state})),
        "legacy": (".pth", to_torch({"model": state}, is_legacy=True)),
        "pickle2": (".pkl", to_pickle(state, 2)),
        "pickle4": (".pkl", to_pickle(state, 4)),
        "safetensors": (".safetensors", safetensors.torch.save(state)),
    }


# Names of things that would run code or do harm, with arguments that would make the canary.
_CALLS: dict[str, tuple[Any, ...]] = {
    "os system": (_SHELL,),
    "posix system": (_SHELL,),
    "os popen": (_SHELL,),
    "subprocess call": (["sh", "-c", _SHELL],),
    "subprocess Popen": (["sh", "-c", _SHELL],),
    "pty spawn": (["sh", "-c", _SHELL],),
    "builtins eval": (f"exec({_PYTHON!r})",),
    "builtins exec": (_PYTHON,),
    "__builtin__ eval": (f"exec({_PYTHON!r})",),
    "builtins __import__": ("antigravity",),
    "builtins getattr": ("x", "__class__"),
    "builtins open": ("/dev/null", "w"),
    "builtins compile": (_PYTHON, "x", "exec"),
    "importlib import_module": ("this",),
    "runpy run_path": ("x.py",),
    "timeit timeit": (_PYTHON,),
    "code interact": (),
    "pickle loads": (b"cos\nsystem\n.",),
    "_pickle loads": (b"cos\nsystem\n.",),
    "marshal loads": (b"N",),
    "types FunctionType": ("x",),
    "functools partial": ("x",),
    "operator attrgetter": ("__class__.__base__",),
    "ctypes CDLL": ("libc.so.6",),
    "shutil rmtree": ("/nonexistent",),
    "pathlib Path": ("x",),
    "numpy load": ("x.npy",),
    "numpy.core.multiarray fromfile": ("x.npy",),
    "numpy.testing._private.utils runstring": (_PYTHON, {}),
    "torch load": ("x.pth",),
    "torch.hub load": ("a/b", "c"),
    "torch.jit load": ("x.pt",),
    "torch.serialization load": ("x.pth",),
    "detectron2.config LazyConfig.load": ("x.py",),
    "collections OrderedDict.__reduce__": (),
    "sys exit": (0,),
    "os _exit": (0,),
}

_M = b"("  # opens a group of arguments


def _text(value: str) -> bytes:
    return b"V" + value.encode("raw_unicode_escape") + b"\n"


def _arguments(arguments: tuple[Any, ...]) -> bytes:
    """The pickle of a tuple without its header and its end."""
    return pickle.dumps(arguments, protocol=0)[:-1]


def _ways_to_call(path: str, arguments: tuple[Any, ...]) -> Iterator[tuple[str, bytes]]:
    """Every opcode that can make an unpickler call something."""
    module, name = path.split(" ")
    by_line = f"c{module}\n{name}\n".encode()
    by_stack = _text(module) + _text(name) + b"\x93"
    given = _arguments(arguments)
    inside = _text(arguments[0]) if arguments and isinstance(arguments[0], str) else b"N"
    yield "reduce", by_line + given + b"R"
    yield "stack_reduce", b"\x80\x04" + by_stack + given + b"R"
    yield "inst", _M + inside + f"i{module}\n{name}\n".encode()
    yield "obj", _M + by_line + inside + b"o"
    yield "newobj", b"\x80\x02" + by_line + given + b"\x81"
    yield "newobj_ex", b"\x80\x04" + by_line + given + b"}\x92"
    yield "build", by_line + _text("__setstate__") + b"N\x86b"


def _model_beside(program: bytes) -> bytes:
    """A checkpoint whose entry `note` is what the program leaves on the stack."""
    body = program[2:] if program[:1] == b"\x80" else program
    return b"\x80\x04}(" + _text("model") + b"}" + _text("note") + body + b"u."


def _zip_with(program: bytes, **more: bytes) -> bytes:
    """A torch file with weights that fit, and this program for a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good_files()["zip"][1])) as whole, zipfile.ZipFile(buffer, "w") as made:
        root = whole.namelist()[0].split("/")[0]
        for name in whole.namelist():
            made.writestr(name, program if name.endswith("/data.pkl") else whole.read(name))
        for name, content in more.items():
            made.writestr(f"{root}/{name.replace('__', '.')}", content)
    return buffer.getvalue()


def calling_cases() -> Iterator[Case]:
    for path, arguments in _CALLS.items():
        for way, program in _ways_to_call(path, arguments):
            whole = _model_beside(program)
            name = f"{way}-{path.replace(' ', '.')}"
            yield Case(f"pkl-{name}", ".pkl", whole)
            yield Case(f"zip-{name}", ".pth", _zip_with(whole))
    for way, program in _ways_to_call("os system", (_SHELL,)):
        yield Case(f"bare-{way}", ".pth", program + b".")
        yield Case(f"first_of_legacy-{way}", ".pth", program + b"." + good_files()["legacy"][1])


def opcode_cases() -> Iterator[Case]:
    """Opcodes that plain data has no need for, or on a stack that is not made for them."""
    programs = {
        "ext1": b"\x80\x02\x82\xf0)R",
        "ext2": b"\x80\x02\x83\xf0\x00)R",
        "ext4": b"\x80\x02\x84\xf0\x00\x00\x00)R",
        "persid": b"Psomewhere\n",
        "binpersid": _text("somewhere") + b"Q",
        "binpersid_storage": b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text("0") + b"tQ",
        "next_buffer": b"\x80\x05\x97",
        "readonly_buffer": b"\x80\x05N\x98",
        "unknown_opcode": b"\xff",
        "protocol_99": b"\x80\x63N",
        "nothing_to_reduce": b"R",
        "reduce_a_string": _text("x") + b")R",
        "reduce_without_tuple": b"ccollections\nOrderedDict\nNR",
        "append_to_none": b"NNa",
        "setitem_on_none": b"NNNs",
        "build_on_a_dict": b"}}b",
        "build_on_a_list": b"]}b",
        "no_mark": b"Nt",
        "memo_missing": b"h\x07",
        "dup_nothing": b"2",
        "pop_all": b"00000000",
        "list_as_key": b"}]Ns",
        "huge_string": b"\x8d" + struct.pack("<Q", 2**62) + b"x",
        "huge_bytes": b"\x8e" + struct.pack("<Q", 2**50) + b"x",
        "negative_string": b"T" + struct.pack("<i", -5) + b"x",
        "negative_long": b"\x8b" + struct.pack("<i", -5) + b"x",
        "huge_int_text": b"I" + b"9" * 6000 + b"\n",
        "bad_utf8": b"X\x02\x00\x00\x00\xff\xfe",
    }
    for name, program in programs.items():
        yield Case(f"pkl-{name}", ".pkl", _model_beside(program))
        yield Case(f"zip-{name}", ".pth", _zip_with(_model_beside(program)))
    nested = b"N" + b"\x85" * 100_000
    yield Case("pkl-deep_key", ".pkl", b"\x80\x04}" + nested + b"Ns.")
    yield Case("pkl-deep_value_for_model", ".pkl", b"\x80\x04}" + _text("model") + nested + b"s.")


class _Arrays:
    """NumPy arrays whose parts contradict each other, as opcodes."""

    @staticmethod
    def _array(state: bytes, dtype: str = "f4") -> bytes:
        make = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
        kind = b"cnumpy\ndtype\n(" + _text(dtype) + b"I00\nI01\ntR"
        return make + state.replace(b"DTYPE", kind) + b"b"

    @classmethod
    def cases(cls) -> Iterator[Case]:
        states = {
            "too_few_bytes": b"(K\x01K\x04\x85DTYPEI00\nC\x01xt",
            "negative_shape": b"(K\x01J\xff\xff\xff\xff\x85DTYPEI00\nC\x04xxxxt",
            "huge_shape": b"(K\x01" + b"J\xff\xff\xff\x7f" * 3 + b"\x87DTYPEI00\nC\x04xxxxt",
            "data_is_list": b"(K\x01K\x01\x85DTYPEI00\n]t",
            "shape_is_text": b"(K\x01" + _text("x") + b"DTYPEI00\nC\x04xxxxt",
            "no_dtype": b"(K\x01K\x01\x85NI00\nC\x04xxxxt",
            "state_is_none": b"N",
            "state_is_short": b"(K\x01t",
        }
        for name, state in states.items():
            yield Case(f"pkl-array-{name}", ".pkl", _model_beside(cls._array(state)))
        for dtype in ("O", "V8", "f4,f4", "M8", "(2,)f4", "nonsense", "f99"):
            array = cls._array(b"(K\x01K\x01\x85DTYPEI00\nC\x08xxxxxxxxt", dtype)
            yield Case(f"pkl-dtype-{dtype}", ".pkl", _model_beside(array))


def truncated_cases() -> Iterator[Case]:
    for name, (suffix, content) in good_files().items():
        sizes = {round(len(content) * part / 12) for part in range(12)} | {1, 8, len(content) - 1}
        for size in sorted(sizes):
            yield Case(f"{name}-cut_to_{size}", suffix, content[:size])


def flipped_cases() -> Iterator[Case]:
    rng = random.Random(0)
    for name, (suffix, content) in good_files().items():
        for place in sorted(rng.sample(range(8 * len(content)), 40)):
            position, bit = divmod(place, 8)
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            yield Case(f"{name}-flip_{position}_{bit}", suffix, bytes(flipped), is_refused=False)
    for name, (suffix, content) in good_files().items():
        for start in sorted(rng.sample(range(len(content) - 64), 6)):
            noise = content[:start] + rng.randbytes(64) + content[start + 64 :]
            yield Case(f"{name}-noise_at_{start}", suffix, noise, is_refused=False)


def nan_cases() -> Iterator[Case]:
    state = good_state()
    for name, value in state.items():
        if not value.is_floating_point():
            continue
        broken = dict(state)
        broken[name] = value.clone()
        broken[name].view(-1)[-1] = float("nan")
        yield Case(f"zip-nan-{name}", ".pth", to_torch({"model": broken}))
        yield Case(f"pkl-nan-{name}", ".pkl", to_pickle(broken))
        yield Case(f"safetensors-nan-{name}", ".safetensors", safetensors.torch.save(broken))
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn):
        broken = state | {"first.bias": torch.full((4,), float("nan")).to(dtype)}
        yield Case(f"zip-nan-{dtype}", ".pth", to_torch({"model": broken}))


def shape_cases() -> Iterator[Case]:
    """Tensors none of which fits, and some that fit but are no plain numbers."""
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "one_more_axis": lambda value: value[None],
        "flat": lambda value: value.reshape(-1, 1, 1),
        "empty": lambda value: value.new_zeros(0),
        "scalar": lambda value: value.new_zeros(()),
        "one_longer": lambda value: value.new_zeros([size + 1 for size in value.shape] or [2]),
        "huge_view_of_one_number": lambda value: value.new_zeros(1).expand(2**20, 2**20),
    }
    for name, change in changes.items():
        state = {key: change(value) for key, value in good_state().items()}
        yield Case(f"zip-shape-{name}", ".pth", to_torch({"model": state}))
        if "huge" not in name:
            yield Case(f"pkl-shape-{name}", ".pkl", to_pickle(state))
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "sparse": lambda value: value.to_sparse(),
        "complex": lambda value: value.to(torch.complex64),
        "without_data": lambda value: value.to("meta"),
    }
    for name, change in kinds.items():
        state = good_state()
        state["last.weight"] = change(state["last.weight"])
        yield Case(f"zip-kind-{name}", ".pth", to_torch({"model": state}))


def structure_cases() -> Iterator[Case]:
    """Readable files that are no checkpoints."""
    state = good_state()
    contents: dict[str, Any] = {
        "list": [1],
        "text": "weights",
        "none": None,
        "number": 3,
        "tensor": torch.zeros(3),
        "empty": {},
        "empty_model": {"model": {}},
        "model_is_text": {"model": "x"},
        "model_is_list": {"model": [torch.zeros(1)]},
        "model_is_tensor": {"model": torch.zeros(1)},
        "weight_is_text": {"model": state | {"first.bias": "x"}},
        "weight_is_list": {"model": state | {"first.bias": [1.0]}},
        "weight_is_dict": {"model": state | {"first.bias": {"a": torch.zeros(4)}}},
        "name_is_number": {"model": state | {3: torch.zeros(4)}},
        "name_is_tuple": {"model": {("a", "b"): torch.zeros(4)}},
        "other_model": {"model": {"encoder.weight": torch.zeros(4)}},
        "author_is_tensor": {
            "model": {"x": torch.zeros(4)},
            "__author__": torch.zeros(3),
            "matching_heuristics": True,
        },
        "heuristics_is_tensor": {"model": {"x": torch.zeros(4)}, "matching_heuristics": torch.zeros(3)},
        "optimizer_is_text": {"model": state, "optimizer": "x"},
        "optimizer_is_empty": {"model": state, "optimizer": {}},
        "optimizer_of_another": {"model": state, "optimizer": {"state": {}, "param_groups": []}},
        "optimizer_is_none": {"model": state, "optimizer": None},
    }
    for name, content in contents.items():
        yield Case(f"zip-{name}", ".pth", to_torch(content))
        yield Case(f"legacy-{name}", ".pth", to_torch(content, is_legacy=True))
    for name in ("list", "text", "none", "number", "empty"):
        yield Case(f"pkl-{name}", ".pkl", pickle.dumps(contents[name]))
    for name, content in {"text": b"hello", "html": b"<!DOCTYPE html><p>404", "zeros": bytes(500)}.items():
        for suffix in (".pth", ".pkl", ".safetensors"):
            yield Case(f"{suffix[1:]}-file_of_{name}", suffix, content)
    yield Case("zip-of_something_else", ".pth", _other_zip({"notes.txt": b"hello"}))
    yield Case("zip-without_parts", ".pth", _other_zip({}))
    yield Case("zip-climbs_out", ".pth", _other_zip({"../../data.pkl": b"}.", "../../version": b"3"}))
    yield Case("zip-torchscript", ".pth", _zip_with(b"\x80\x02}.", constants__pkl=b"\x80\x02)."))


def _other_zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, content in files.items():
            made.writestr(name, content)
    return buffer.getvalue()


def safetensors_cases() -> Iterator[Case]:
    def make(header: Any, data: bytes = bytes(32), size: int | None = None) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text) if size is None else size) + text + data

    def entry(shape: list[Any], offsets: list[Any], dtype: str = "F32") -> dict[str, Any]:
        return {"first.bias": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}

    files = {
        "header_beyond_the_end": make(entry([4], [0, 16]), size=10**6),
        "header_of_exabytes": make(entry([4], [0, 16]), size=2**63),
        "header_size_all_ones": make(entry([4], [0, 16]), size=2**64 - 1),
        "header_of_nothing": make(b"", size=0),
        "header_no_json": make(b"{nonsense"),
        "header_deep": make(b"[" * 100_000),
        "header_is_list": make([1]),
        "header_bad_utf8": make(b'{"\xff": 1}'),
        "offsets_beyond_the_end": make(entry([4], [0, 10**6])),
        "offsets_backwards": make(entry([4], [16, 0])),
        "offsets_negative": make(entry([4], [-16, 0])),
        "offsets_too_small": make(entry([4], [0, 8])),
        "offsets_are_text": make(entry([4], ["0", "16"])),
        "offsets_overflow": make(entry([4], [2**63, 2**64])),
        "offsets_missing": make({"first.bias": {"dtype": "F32", "shape": [4]}}),
        "offsets_with_a_hole": make(entry([4], [16, 32])),
        "shape_huge": make(entry([2**40, 2**40], [0, 32])),
        "shape_negative": make(entry([-4], [0, 32])),
        "shape_is_text": make(entry(["4"], [0, 32])),
        "dtype_unknown": make(entry([4], [0, 32], "F31")),
        "dtype_is_object": make(entry([4], [0, 32], "O")),
        "data_left_over": make(entry([4], [0, 16]), bytes(64)),
        "data_missing": make(entry([4], [0, 16]), b""),
        "two_share_bytes": make(
            entry([4], [0, 16]) | {"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
        ),
        "metadata_is_number": make({"__metadata__": 3} | entry([8], [0, 32])),
        "metadata_is_nested": make({"__metadata__": {"a": {"b": 1}}} | entry([8], [0, 32])),
    }
    for name, content in files.items():
        yield Case(f"safetensors-{name}", ".safetensors", content)


def all_cases() -> list[Case]:
    groups = (
        calling_cases, opcode_cases, _Arrays.cases, truncated_cases, flipped_cases, nan_cases, shape_cases,
        structure_cases, safetensors_cases,
    )  # fmt: skip
    return [case for group in groups for case in group()]


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two states are the same, bit by bit."""
    return first.keys() == second.keys() and all(
        np.array_equal(value.numpy(), second[name].numpy()) for name, value in first.items()
    )
