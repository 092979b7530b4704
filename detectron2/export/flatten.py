"""Structured inputs and outputs of models as flat tuples of tensors, which is what tracers work with.

A schema is plain data that says how an object was taken apart: it can be compared, pickled, and kept beside
the traced program, whose flat results it puts together again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import TracerWarning  # type: ignore[attr-defined]  # public all the same

from detectron2.layers.tracing import is_tracing
from detectron2.layers.wrappers import shapes_to_tensor
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.structures.rows import TensorRows
from detectron2.utils.registry import locate
from detectron2.utils.user_errors import UserKeyError, UserTypeError, UserValueError

Values = tuple[Any, ...]


@dataclass
class Schema:
    """How objects of a kind are taken apart into flat values, and put together from such."""

    @classmethod
    def flatten(cls, obj: Any) -> tuple[Values, Schema]:
        """Take an object apart; returns its values and what puts them together."""
        raise NotImplementedError

    def __call__(self, values: Values | list[Any]) -> Any:
        """Put the object together from as many values as `flatten` gave.

        Raises:
            ValueError: there are too few or too many.
        """
        raise NotImplementedError


@dataclass
class IdentitySchema(Schema):
    """A tensor, or a constant such as a number, a text or None: its own only value."""

    @classmethod
    def flatten(cls, obj: Any) -> tuple[Values, IdentitySchema]:
        """See `Schema.flatten`."""
        return (obj,), cls()

    def __call__(self, values: Values | list[Any]) -> Any:
        """See `Schema`."""
        _check_number(values, 1)
        return values[0]


@dataclass
class ListSchema(Schema):
    """A list: the values of its entries, one after the other.

    Attributes:
        schemas: of the entries.
        sizes: how many values each entry has.
    """

    schemas: list[Schema]
    sizes: list[int]

    @classmethod
    def flatten(cls, obj: Any) -> tuple[Values, ListSchema]:
        """See `Schema.flatten`."""
        values, schemas, sizes = _flatten_all(list(obj))
        return values, cls(schemas, sizes)

    def __call__(self, values: Values | list[Any]) -> Any:
        """See `Schema`."""
        _check_number(values, sum(self.sizes))
        entries, start = [], 0
        for schema, size in zip(self.schemas, self.sizes):
            entries.append(schema(values[start : start + size]))
            start += size
        return entries


@dataclass
class TupleSchema(ListSchema):
    """A tuple, as `ListSchema`."""

    def __call__(self, values: Values | list[Any]) -> Any:
        """See `Schema`."""
        return tuple(super().__call__(values))


@dataclass
class DictSchema(ListSchema):
    """A mapping with names as keys: the values of its entries in the order of the names.

    Attributes:
        keys: sorted.
    """

    keys: list[str]

    @classmethod
    def flatten(cls, obj: Any) -> tuple[Values, DictSchema]:
        """See `Schema.flatten`.

        Raises:
            KeyError: a key is no text.
        """
        wrong = [key for key in obj if not isinstance(key, str)]
        if wrong:
            raise UserKeyError(
                f"Expected a dict whose keys are texts, to order them by; got the key {wrong[0]!r}"
            )
        keys = sorted(obj)
        values, schemas, sizes = _flatten_all([obj[key] for key in keys])
        return values, cls(schemas, sizes, keys)

    def __call__(self, values: Values | list[Any]) -> Any:
        """See `Schema`."""
        return dict(zip(self.keys, super().__call__(values)))


@dataclass
class InstancesSchema(DictSchema):
    """`Instances`: the values of its fields, and last the image's size, a tensor (2,)."""

    @classmethod
    def flatten(cls, obj: Any) -> tuple[Values, DictSchema]:
        """See `Schema.flatten`."""
        values, schema = super().flatten(obj.get_fields())
        return (*values, _size_tensor(obj.image_size)), schema

    def __call__(self, values: Values | list[Any]) -> Any:
        """See `Schema`; the image's size stays a tensor."""
        _check_number(values, sum(self.sizes) + 1)
        return Instances(values[-1], **super().__call__(values[:-1]))


@dataclass
class TensorWrapSchema(Schema):
    """An object made of one tensor, such as `Boxes`.

    Attributes:
        class_name: its class, with the module.
    """

    class_name: str

    @classmethod
    def flatten(cls, obj: Any) -> tuple[Values, TensorWrapSchema]:
        """See `Schema.flatten`."""
        kind = type(obj)
        return (obj.tensor,), cls(f"{kind.__module__}.{kind.__qualname__}")

    def __call__(self, values: Values | list[Any]) -> Any:
        """See `Schema`."""
        _check_number(values, 1)
        wrap = locate(self.class_name)
        if not (isinstance(wrap, type) and issubclass(wrap, TensorRows)):
            raise UserTypeError(
                f"Expected the name of a class such as Boxes in a schema, got {self.class_name}"
            )
        return wrap(values[0])


@dataclass
class ImageListSchema(Schema):
    """An `ImageList`: its tensor, and the size of each image, a tensor (2,).

    Attributes:
        num_images: N.
    """

    num_images: int

    @classmethod
    def flatten(cls, obj: Any) -> tuple[Values, ImageListSchema]:
        """See `Schema.flatten`."""
        return (obj.tensor, *map(_size_tensor, obj.image_sizes)), cls(len(obj.image_sizes))

    def __call__(self, values: Values | list[Any]) -> Any:
        """See `Schema`; the images' sizes stay tensors."""
        _check_number(values, 1 + self.num_images)
        sizes: list[Any] = list(values[1:])
        return ImageList(values[0], sizes)


_SCHEMAS: tuple[tuple[type, type[Schema]], ...] = (
    (list, ListSchema),
    (tuple, TupleSchema),
    (Mapping, DictSchema),
    (Instances, InstancesSchema),
    (TensorRows, TensorWrapSchema),
    (ImageList, ImageListSchema),
)


def flatten_to_tuple(obj: Any) -> tuple[Values, Schema]:
    """Take an object apart into tensors and constants.

    Lists, tuples, dicts and this package's structures are taken apart, entries of a dict and fields of
    `Instances` in the order of their names; everything else is a value as it is: a tensor, or a constant.

    Returns:
        The values, and what puts the object together from them or from others.
    """
    schema = next((schema for kind, schema in _SCHEMAS if isinstance(obj, kind)), IdentitySchema)
    return schema.flatten(obj)


def _flatten_all(entries: list[Any]) -> tuple[Values, list[Schema], list[int]]:
    """Values of all entries, the schema of each, and how many values each has."""
    flattened = [flatten_to_tuple(entry) for entry in entries]
    values = tuple(value for of_entry, _ in flattened for value in of_entry)
    return values, [schema for _, schema in flattened], [len(of_entry) for of_entry, _ in flattened]


def _check_number(values: Values | list[Any], expected: int) -> None:
    if len(values) != expected:
        raise UserValueError(f"This schema stands for {expected} values, got {len(values)}")


def _size_tensor(image_size: Any) -> Tensor:
    """(height, width), or a tensor of both as it is -> (2,) int64."""
    if isinstance(image_size, Tensor):
        return image_size
    if is_tracing() and any(isinstance(side, Tensor) for side in image_size):
        return shapes_to_tensor(image_size)
    return torch.tensor([int(side) for side in image_size])


class TracingAdapter(nn.Module):
    """A model as a function from tensors to a tuple of tensors: what torch.jit.trace and other tracers take.

    The traced program works for images of any size, but for as many images as the example has. Its results
    and the model's own are the same::

        adapter = TracingAdapter(model, image, lambda model, image: model.inference([{"image": image}])[0])
        traced = torch.jit.trace(adapter, (image,))
        output = adapter.outputs_schema(traced(other_image))

    Attributes:
        flattened_inputs: tensors of the example, the arguments to trace with.
        inputs_schema: makes the model's inputs from such tensors; None where the example holds constants.
        outputs_schema: makes the model's outputs from what the adapter returns; None before its first call,
            and where the outputs hold constants.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        inference_func: Callable[..., Any] | None = None,
        allow_non_tensor: bool = False,
    ) -> None:
        """
        Args:
            model: anything that `inference_func` can call; of a data-parallel wrapper the model inside.
            inputs: an example; the model's one argument, or a tuple of its arguments.
            inference_func: called with the model and its arguments; by default calls the model.
            allow_non_tensor: accept constants. In inputs they bind the adapter to the example itself, of
                outputs tensors alone are returned; counting of operations needs no more. Otherwise they are
                an error, as a trace would silently keep the example's.

        Raises:
            ValueError: the example holds constants, and `allow_non_tensor` is False.
        """
        super().__init__()
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        self.model = model
        self.inference_func = inference_func or _call
        self.allow_non_tensor = allow_non_tensor
        self.inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        values, schema = flatten_to_tuple(self.inputs)
        self.flattened_inputs: tuple[Tensor, ...] = self._tensors_of(values, "Inputs")
        self.inputs_schema: Schema | None = schema if len(self.flattened_inputs) == len(values) else None
        self.outputs_schema: Schema | None = None

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        """Run the model, without gradients, on tensors in the order of `flattened_inputs`."""
        with torch.no_grad(), _warnings_of_torch_off():
            outputs = self.inference_func(self.model, *self._inputs_from(args))
        values, schema = flatten_to_tuple(outputs)
        tensors = self._tensors_of(values, "Outputs")
        if len(tensors) < len(values):
            self.outputs_schema = None
        elif self.outputs_schema is None:
            self.outputs_schema = schema
        elif self.outputs_schema != schema:
            raise UserValueError(
                "The model returned another structure than at the first call, so that one trace cannot stand "
                f"for both:\n{self.outputs_schema}\n{schema}"
            )
        return tensors

    def _inputs_from(self, args: tuple[Tensor, ...]) -> Any:
        if self.inputs_schema is not None:
            return self.inputs_schema(args)
        is_example = len(args) == len(self.flattened_inputs) and all(
            given is known for given, known in zip(args, self.flattened_inputs)
        )
        if not is_example:
            raise UserValueError(
                "The example of this adapter holds values that are no tensors, so it cannot generalize to "
                "other inputs: call and trace it with its `flattened_inputs`, or give it tensors alone"
            )
        return self.inputs

    def _tensors_of(self, values: Values, where: str) -> tuple[Tensor, ...]:
        tensors = tuple(value for value in values if isinstance(value, Tensor))
        if len(tensors) < len(values) and not self.allow_non_tensor:
            kinds = sorted({type(value).__name__ for value in values if not isinstance(value, Tensor)})
            raise UserValueError(
                f"{where} for tracing must only contain tensors, but there are values of type "
                f"{', '.join(kinds)}, of which a trace would keep those of the example. Remove them, or pass "
                "allow_non_tensor=True if that is meant"
            )
        return tensors


@contextmanager
def _warnings_of_torch_off() -> Iterator[None]:
    """While tracing, silence what torch says of its own functions, as of the size check of `group_norm`."""
    if not is_tracing():
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=TracerWarning, module=r"torch\.nn\.")
        yield


def _call(model: Callable[..., Any], *inputs: Any) -> Any:
    return model(*inputs)
