"""The instances of one image: named fields that all have one entry per instance."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from detectron2.layers.tracing import is_tracing
from detectron2.utils.user_errors import UserNotImplementedError, UserTypeError, UserValueError, near

_RESERVED = ("_image_size", "_fields")


class Instances:
    """Fields of equal length about the instances of one image, such as boxes, classes, scores and masks.

    A field is set and read as an attribute, and indexing, moving or concatenating does the same to every
    one of them::

        instances = Instances((480, 640), gt_boxes=boxes)
        instances.gt_classes = classes
        large = instances[instances.gt_boxes.area() > 1024]

    Attributes beginning with an underscore are the object's own and no fields.
    """

    def __init__(self, image_size: tuple[int, int], **kwargs: Any) -> None:
        """
        Args:
            image_size: (height, width); a tensor of both while torch.jit.trace records.
            kwargs: fields.
        """
        self._image_size = image_size
        self._fields: dict[str, Any] = {}
        for name, value in kwargs.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the image, the frame of all coordinates."""
        return self._image_size

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        # Reached only for what is no real attribute; `_fields` itself is missing while unpickling.
        if name in _RESERVED or name.startswith("__"):
            raise AttributeError(name)
        if name in self._fields:
            return self._fields[name]
        raise AttributeError(
            f"these Instances have no field {name!r}, only {sorted(self._fields)}.{near(name, self._fields)}"
        )

    def set(self, name: str, value: Any) -> None:
        """Add or replace a field.

        Raises:
            ValueError: if it does not have as many entries as the fields that are there.
        """
        if self._fields and not is_tracing() and len(value) != len(self):
            raise UserValueError(
                f"field {name!r} has {len(value)} entries, but these are {len(self)} instances "
                f"with fields {sorted(self._fields)}"
            )
        self._fields[name] = value

    def has(self, name: str) -> bool:
        """Tell whether there is a field of that name."""
        return name in self._fields

    def remove(self, name: str) -> None:
        """Drop a field; KeyError if there is none."""
        del self._fields[name]

    def get(self, name: str) -> Any:
        """Return a field; KeyError if there is none."""
        return self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """Return the dict of fields itself; a change of it bypasses the check of lengths."""
        return self._fields

    def to(self, *args: Any, **kwargs: Any) -> Instances:
        """Return instances whose fields are moved by their `to` method, where they have one."""
        return self._with_fields(
            {
                name: value.to(*args, **kwargs) if hasattr(value, "to") else value
                for name, value in self._fields.items()
            }
        )

    def __getitem__(self, item: int | slice | Tensor | Any) -> Instances:
        """Pick instances by an index, a slice, or a tensor of indices or bool; an index gives one."""
        if isinstance(item, int):
            if not -len(self) <= item < len(self):
                raise IndexError(f"index {item} is out of range for {len(self)} instances")
            # A slice picks one entry of every kind of field and keeps it a collection.
            item = slice(item, item + 1 or None)
        return self._with_fields({name: value[item] for name, value in self._fields.items()})

    def __len__(self) -> int:
        for value in self._fields.values():
            # Not len(value): while torch.jit.trace records, the number of rows is a 0-d tensor.
            num_instances: int = value.shape[0] if isinstance(value, Tensor) else value.__len__()
            return num_instances
        raise UserNotImplementedError("Instances without fields have no length")

    def __iter__(self) -> Iterator[Any]:
        raise UserNotImplementedError("Instances are not iterable; index them, or iterate over a field")

    @staticmethod
    def cat(instance_lists: Sequence[Instances]) -> Instances:
        """Concatenate instances of images of one size, field by field.

        Args:
            instance_lists: at least one; all with the same fields.

        Raises:
            TypeError: if an entry is no Instances, or a field is of a kind that cannot be concatenated.
            ValueError: if there is no entry, or if image sizes or fields differ.
        """
        for entry in instance_lists:
            if not isinstance(entry, Instances):
                raise UserTypeError(f"expected only Instances to concatenate, got {type(entry).__name__}")
        if not instance_lists:
            raise UserValueError("there are no Instances to concatenate")
        first = instance_lists[0]
        for entry in instance_lists[1:]:
            if not is_tracing() and tuple(entry.image_size) != tuple(first.image_size):
                raise UserValueError(f"image sizes differ: {first.image_size} and {entry.image_size}")
            if entry._fields.keys() != first._fields.keys():
                raise UserValueError(f"fields differ: {sorted(first._fields)} and {sorted(entry._fields)}")
        if len(instance_lists) == 1:
            return first
        return first._with_fields(
            {name: _cat_field(name, [entry.get(name) for entry in instance_lists]) for name in first._fields}
        )

    def _with_fields(self, fields: dict[str, Any]) -> Instances:
        result = type(self)(self._image_size)
        for name, value in fields.items():
            result.set(name, value)
        return result

    def __str__(self) -> str:
        count = len(self) if self._fields else 0
        height, width = self._image_size
        fields = ", ".join(f"{name}: {value}" for name, value in self._fields.items())
        return (
            f"Instances(num_instances={count}, image_height={height}, image_width={width}, fields=[{fields}])"
        )

    __repr__ = __str__


def _cat_field(name: str, values: list[Any]) -> Any:
    kind = type(values[0])
    if isinstance(values[0], Tensor):
        return torch.cat(values)
    if isinstance(values[0], list):
        return list(itertools.chain.from_iterable(values))
    if hasattr(kind, "cat"):
        return kind.cat(values)
    raise UserTypeError(f"field {name!r} is a {kind.__name__}, which is no tensor or list and has no `cat`")
