"""The two tables of data sets: how to load one by name, and what is known about it without loading it.

`DatasetCatalog` maps a name to a function that returns a list of dicts; `MetadataCatalog` maps the same
name to a `Metadata` (class names, colours, folders, ignore label ...). Registering reads no file.
"""

from __future__ import annotations

import functools
import logging
import types
from collections import UserDict
from collections.abc import Callable
from typing import Any

from detectron2.utils.user_errors import UserAttributeError, UserKeyError, UserTypeError, UserValueError, near

logger = logging.getLogger(__name__)

__all__ = ["DatasetCatalog", "LazyValue", "Metadata", "MetadataCatalog"]


class LazyValue:
    """A metadata value that is worked out each time it is read, such as a path below
    `DETECTRON2_DATASETS`.

    Attributes:
        gives_way: whether a value that is set explicitly takes its place; otherwise the two must be equal.
    """

    gives_way: bool = False

    def resolve(self) -> Any:
        """Return the value that the reader of the metadata sees."""
        raise NotImplementedError


def _what_is_there(name: str, known: list[str]) -> str:
    """A sentence, with the space before it."""
    return near(name, known, max_names=5) or f" Registered are: {', '.join(sorted(known)) or 'none'}."


def _is_same_loader(first: Any, second: Any) -> bool:
    """True when two functions cannot be told apart by running them: a notebook cell that is run again,
    say."""
    if first is second:
        return True
    if isinstance(first, functools.partial) and isinstance(second, functools.partial):
        same_call = first.args == second.args and first.keywords == second.keywords
        return same_call and _is_same_loader(first.func, second.func)
    if isinstance(first, types.FunctionType) and isinstance(second, types.FunctionType):
        try:
            return bool(_fingerprint(first) == _fingerprint(second))
        except ValueError:  # arrays do not compare to one truth value, and unset closure cells have none
            return False
    return False


def _fingerprint(func: types.FunctionType) -> tuple[Any, ...]:
    cells = tuple(cell.cell_contents for cell in func.__closure__ or ())
    code = func.__code__
    return (
        func.__module__, func.__qualname__, code.co_code, code.co_consts, code.co_names,
        func.__defaults__, func.__kwdefaults__, cells,
    )  # fmt: skip


class _DatasetCatalog(UserDict[str, Any]):
    """Name -> function without arguments that returns the data set, in the format of `load_coco_json` or
    its own."""

    def register(self, name: str, func: Callable[[], Any]) -> None:
        """Add a data set.

        Registering the same function under the same name again changes nothing, so that a notebook cell may
        be run twice.

        Args:
            name: how configs call the data set.
            func: called by `get`; two calls should return the same data in the same order.

        Raises:
            ValueError: the name is taken by another function.
        """
        if not callable(func):
            raise UserTypeError(
                f"DatasetCatalog.register({name!r}, func): func must be a function that returns the data "
                f"set, got {type(func).__name__}. Wrap a list as `lambda: my_list`."
            )
        if name in self.data and not _is_same_loader(self.data[name], func):
            raise UserValueError(
                f"Data set {name!r} is already registered with another function. Use another name, or "
                f"call DatasetCatalog.remove({name!r}) first."
            )
        self.data[name] = func

    def get(self, name: str) -> Any:  # type: ignore[override]  # the contract has no default
        """Load a data set: call its function and return what it returns.

        Raises:
            KeyError: no data set has this name.
        """
        if name not in self.data:
            raise UserKeyError(
                f"Data set {name!r} is not registered.{_what_is_there(name, self.list())} Call "
                "DatasetCatalog.register (or a register_* helper) before it is used."
            )
        return self.data[name]()

    def list(self) -> list[str]:
        """Names of all data sets."""
        return [*self.data]

    def remove(self, name: str) -> None:
        """Forget a data set; same as `pop`.

        Raises:
            KeyError: no data set has this name.
        """
        if name not in self.data:
            raise UserKeyError(f"Data set {name!r} is not registered.{_what_is_there(name, self.list())}")
        del self.data[name]

    def __repr__(self) -> str:
        return f"DatasetCatalog(registered: {', '.join(self.data)})"

    __str__ = __repr__
    __hash__ = object.__hash__


class Metadata(types.SimpleNamespace):
    """What is known about one data set: attributes that can be set once, then only to an equal value.

    The usual ones: `thing_classes`, `thing_colors`, `thing_dataset_id_to_contiguous_id`, their
    `stuff_` counterparts, `keypoint_names`, `keypoint_flip_map`, `keypoint_connection_rules`,
    `evaluator_type`, `ignore_label`, `image_root`, `json_file`, `sem_seg_root`, `panoptic_root`,
    `panoptic_json`.
    """

    name: str = "N/A"

    def __getattribute__(self, key: str) -> Any:
        value = super().__getattribute__(key)
        return value.resolve() if isinstance(value, LazyValue) else value

    def __getattr__(self, key: str) -> Any:
        if key in self.__dict__:  # a lazy value that cannot be had now; its own error says why
            return self.__dict__[key].resolve()
        known = [k for k in self.__dict__ if k != "name"]
        raise AttributeError(
            f"Metadata of data set {self.name!r} has no {key!r}.{near(key, known)} It has: "
            f"{', '.join(sorted(known)) or 'nothing yet'}. Set it with "
            f"MetadataCatalog.get({self.name!r}).set({key}=...)."
        )

    def __setattr__(self, key: str, value: Any) -> None:
        if key in self.__dict__:
            current = self.__dict__[key]
            if current == value:  # two equal lazy values need no resolving
                return
            if isinstance(value, LazyValue) and value.gives_way:
                return
            if isinstance(current, LazyValue) and current.gives_way:
                super().__setattr__(key, value)
                return
            old, new = (v.resolve() if isinstance(v, LazyValue) else v for v in (current, value))
            if old != new:
                raise UserValueError(
                    f"Metadata {key!r} of data set {self.name!r} cannot be set to a different value: "
                    f"it is {_shorten(old)}, and {_shorten(new)} was given. Register the other data under "
                    f"another name, or call MetadataCatalog.remove({self.name!r}) first."
                )
            return
        super().__setattr__(key, value)

    def as_dict(self) -> dict[str, Any]:
        """Copy of everything that is set, lazy values resolved."""
        return {key: getattr(self, key) for key in self.__dict__}

    def set(self, **kwargs: Any) -> Metadata:
        """Set several attributes; returns self, to chain."""
        for key, value in kwargs.items():
            setattr(self, key, value)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """Value of an attribute, or `default` when it is not set, or when the file that it comes from is
        not there."""
        try:
            return getattr(self, key) if key in self.__dict__ else default
        except (FileNotFoundError, UserAttributeError) as e:
            logger.warning("Metadata %r of data set %r is not known: %s", key, self.name, e)
            return default


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


class _MetadataCatalog(UserDict[str, Any]):
    """Name -> `Metadata`, made empty on first use."""

    def get(self, name: str) -> Metadata:  # type: ignore[override]  # the contract has no default
        """Metadata of a data set; the same object each time. The data set need not be registered."""
        if not name:
            raise UserValueError("MetadataCatalog.get needs the name of a data set, got an empty one.")
        if name not in self.data:
            self.data[name] = Metadata(name=name)
        metadata: Metadata = self.data[name]
        return metadata

    def list(self) -> list[str]:
        """Names of all data sets that have metadata."""
        return [*self.data]

    def remove(self, name: str) -> None:
        """Forget the metadata of a data set.

        Raises:
            KeyError: there is none under this name.
        """
        if name not in self.data:
            raise UserKeyError(f"There is no metadata of {name!r}.{_what_is_there(name, self.list())}")
        del self.data[name]

    def __repr__(self) -> str:
        return f"MetadataCatalog(registered: {', '.join(self.data)})"

    __str__ = __repr__
    __hash__ = object.__hash__


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()
