"""Structures become tuples of tensors and come back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from detectron2.export import TracingAdapter, flatten_to_tuple
from detectron2.structures import Boxes, ImageList, Instances


def make_object() -> Any:
    instances = Instances((4, 6), pred_boxes=Boxes(torch.ones(2, 4)), scores=torch.rand(2))
    images = ImageList(torch.rand(1, 3, 4, 6), [(4, 6)])
    return [{"instances": instances, "height": 8, "name": None}, (torch.zeros(3), "text"), images]


def test_flattening_keeps_order_of_tensors_and_structure() -> None:
    values, schema = flatten_to_tuple(make_object())
    assert [tuple(v.shape) for v in values] == [(2, 4), (2,), (3,), (1, 3, 4, 6)]
    first, second, images = schema([v + 1 for v in values])
    assert type(first["instances"].pred_boxes) is Boxes
    assert torch.equal(first["instances"].pred_boxes.tensor, torch.full((2, 4), 2.0))
    assert first["instances"].image_size == (4, 6)
    assert (first["height"], first["name"], second[1]) == (8, None, "text")
    assert torch.equal(second[0], torch.ones(3)) and images.image_sizes == [(4, 6)]


def test_flattening_of_a_tensor_and_of_nothing() -> None:
    tensor = torch.rand(2)
    values, schema = flatten_to_tuple(tensor)
    assert values == (tensor,) and schema(values) is tensor
    values, schema = flatten_to_tuple([])
    assert values == () and schema(values) == []


def test_schema_refuses_another_number_of_values() -> None:
    _, schema = flatten_to_tuple([torch.rand(1), torch.rand(1)])
    with pytest.raises(ValueError, match="2 values, got 1"):
        schema((torch.rand(1),))


class Doubler(nn.Module):
    def forward(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"result": 2 * x["image"]} for x in inputs]


def test_adapter_maps_tensors_to_tensors() -> None:
    adapter = TracingAdapter(Doubler(), [{"image": torch.ones(2)}, {"image": torch.zeros(1)}])
    outputs = adapter(*adapter.flattened_inputs)
    assert [x.tolist() for x in outputs] == [[2, 2], [0]]
    assert adapter.outputs_schema is not None
    assert adapter.outputs_schema(outputs)[1]["result"].tolist() == [0]


def test_adapter_calls_the_inference_function() -> None:
    adapter = TracingAdapter(
        Doubler(), torch.ones(2), lambda model, image: model([{"image": image}])[0]["result"]
    )
    assert adapter(torch.full((2,), 3.0))[0].tolist() == [6, 6]


def test_adapter_refuses_constants_unless_told() -> None:
    inputs = [{"image": torch.ones(2), "height": 3}]
    with pytest.raises(ValueError, match="int"):
        TracingAdapter(Doubler(), inputs)
    assert len(TracingAdapter(Doubler(), inputs, allow_non_tensor=True)(torch.ones(2))) == 1


def test_adapter_refuses_a_structure_that_changes() -> None:
    adapter = TracingAdapter(nn.Identity(), torch.ones(2), lambda _, x: [x] * int(x[0]))
    adapter(torch.ones(2))
    with pytest.raises(ValueError, match="another structure"):
        adapter(torch.full((2,), 2.0))
