"""Structured inputs and outputs of models as flat tuples of tensors, which is what tracers work with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from detectron2.structures.boxes import Boxes
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.structures.masks import ROIMasks
from detectron2.structures.rotated_boxes import RotatedBoxes
from detectron2.utils.user_errors import UserValueError

# An object -> its parts, and what else is needed to put it together again.
_TakeApart = Callable[[Any], tuple[list[Any], Any]]
# Parts and the rest -> the object.
_PutTogether = Callable[[list[Any], Any], Any]

_STRUCTURES: dict[type, tuple[_TakeApart, _PutTogether]] = {
    list: (lambda x: (x, None), lambda parts, _: parts),
    tuple: (lambda x: (list(x), None), lambda parts, _: tuple(parts)),
    dict: (lambda x: (list(x.values()), tuple(x)), lambda parts, keys: dict(zip(keys, parts))),
    Boxes: (lambda x: ([x.tensor], None), lambda parts, _: Boxes(*parts)),
    RotatedBoxes: (lambda x: ([x.tensor], None), lambda parts, _: RotatedBoxes(*parts)),
    ROIMasks: (lambda x: ([x.tensor], None), lambda parts, _: ROIMasks(*parts)),
    ImageList: (lambda x: ([x.tensor], x.image_sizes), lambda parts, sizes: ImageList(parts[0], sizes)),
    Instances: (
        lambda x: (list(x.get_fields().values()), (x.image_size, tuple(x.get_fields()))),
        lambda parts, rest: Instances(rest[0], **dict(zip(rest[1], parts))),
    ),
}


@dataclass(frozen=True)
class Schema:
    """How an object was flattened; calling it with the flat values gives the object.

    Attributes:
        kind: class of the object; `Tensor` for a value, None for a constant.
        rest: what the object consists of besides its parts; a constant itself.
        parts: of its parts, in order.
    """

    kind: type | None
    rest: Any = None
    parts: tuple[Schema, ...] = ()

    def __call__(self, values: tuple[Any, ...] | list[Any]) -> Any:
        """Put the object together.

        Args:
            values: as many as `flatten_to_tuple` returned.

        Raises:
            ValueError: there are too few or too many.
        """
        if len(values) != self.num_values:
            raise UserValueError(f"This schema stands for {self.num_values} values, got {len(values)}")
        return self._build(iter(values))

    @property
    def num_values(self) -> int:
        """How many flat values there are."""
        return int(self.kind is Tensor) + sum(part.num_values for part in self.parts)

    @property
    def constants(self) -> list[Any]:
        """Everything in the object that is neither a tensor nor a container of such."""
        own = [self.rest] if self.kind is None else []
        return own + [constant for part in self.parts for constant in part.constants]

    def _build(self, values: Iterator[Any]) -> Any:
        if self.kind is None:
            return self.rest
        if self.kind is Tensor:
            return next(values)
        put_together = _STRUCTURES[self.kind][1]
        return put_together([part._build(values) for part in self.parts], self.rest)


def flatten_to_tuple(obj: Any) -> tuple[tuple[Tensor, ...], Schema]:
    """Take an object apart into its tensors.

    Lists, tuples, dicts and this package's structures are taken apart; anything else that is no tensor stays
    in the schema as a constant, as do image sizes.

    Returns:
        The tensors, and what puts the object together from them or from others.
    """
    if isinstance(obj, Tensor):
        return (obj,), Schema(Tensor)
    if type(obj) not in _STRUCTURES:
        return (), Schema(None, obj)
    parts, rest = _STRUCTURES[type(obj)][0](obj)
    flattened = [flatten_to_tuple(part) for part in parts]
    values = tuple(value for values, _ in flattened for value in values)
    return values, Schema(type(obj), rest, tuple(schema for _, schema in flattened))


class TracingAdapter(nn.Module):
    """A model as a function from tensors to a tuple of tensors, for tracers and for counting of operations.

    What is not a tensor, such as `height` in an input or the size of an image, is fixed by the example.

    Attributes:
        flattened_inputs: tensors of the example, the arguments to trace with.
        inputs_schema: makes the model's inputs from such tensors.
        outputs_schema: makes the model's outputs from what the adapter returns; None before its first call.
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
            model: anything that `inference_func` can call.
            inputs: an example; the model's one argument, or a tuple of its arguments.
            inference_func: called with the model and its arguments; by default calls the model.
            allow_non_tensor: accept constants in inputs and outputs; otherwise they are an error, as a trace
                would silently keep the example's.
        """
        super().__init__()
        self.model = model
        self.inference_func = inference_func or (lambda model, *arguments: model(*arguments))
        self.allow_non_tensor = allow_non_tensor
        self.inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        self.flattened_inputs, self.inputs_schema = flatten_to_tuple(self.inputs)
        self.outputs_schema: Schema | None = None
        self._check_constants(self.inputs_schema, "inputs")

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        """Run the model on tensors in the order of `flattened_inputs`."""
        outputs = self.inference_func(self.model, *self.inputs_schema(args))
        values, schema = flatten_to_tuple(outputs)
        self._check_constants(schema, "outputs")
        if self.outputs_schema is None:
            self.outputs_schema = schema
        elif not self.allow_non_tensor and self.outputs_schema != schema:
            raise UserValueError(
                "The model returned another structure than at the first call, so that one trace cannot stand "
                f"for both:\n{self.outputs_schema}\n{schema}"
            )
        return values

    def _check_constants(self, schema: Schema, where: str) -> None:
        if self.allow_non_tensor or not schema.constants:
            return
        kinds = sorted({type(constant).__name__ for constant in schema.constants})
        raise UserValueError(
            f"The {where} hold values that are no tensors ({', '.join(kinds)}): a trace would keep those of "
            "the example. Remove them, or pass allow_non_tensor=True if that is meant"
        )
