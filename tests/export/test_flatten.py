"""Structures become tuples of tensors and come back."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from detectron2.export import TracingAdapter, flatten_to_tuple
from detectron2.export.flatten import (
    DictSchema,
    IdentitySchema,
    InstancesSchema,
    ListSchema,
    Schema,
    TensorWrapSchema,
    TupleSchema,
)
from detectron2.structures import Boxes, ImageList, Instances, RotatedBoxes
from detectron2.testing import assert_instances_allclose


def make_object() -> Any:
    instances = Instances((4, 6), pred_boxes=Boxes(torch.ones(2, 4)), scores=torch.rand(2))
    images = ImageList(torch.rand(1, 3, 4, 6), [(4, 6)])
    return [{"instances": instances, "height": 8, "name": None}, (torch.zeros(3), "text"), images]


def test_values_come_in_the_order_of_names_with_constants_among_them() -> None:
    values, schema = flatten_to_tuple(make_object())
    assert [tuple(v.shape) if isinstance(v, torch.Tensor) else v for v in values] == [
        8,
        *[(2, 4), (2,), (2,)],  # boxes, scores, and the size of the image
        None,
        (3,),
        "text",
        *[(1, 3, 4, 6), (2,)],  # the batch, and the size of its image
    ]
    moved = [v + 1 if isinstance(v, torch.Tensor) and v.is_floating_point() else v for v in values]
    first, second, images = schema(moved)
    assert type(first["instances"].pred_boxes) is Boxes
    assert torch.equal(first["instances"].pred_boxes.tensor, torch.full((2, 4), 2.0))
    assert first["instances"].image_size.tolist() == [4, 6]
    assert (first["height"], first["name"], second[1]) == (8, None, "text")
    assert torch.equal(second[0], torch.ones(3)) and images.image_sizes[0].tolist() == [4, 6]


def test_numbers_and_texts_come_back() -> None:
    obj = [3, ([5, 6], {"name": [7, 9], "alias": None}), "text", 0.5]
    values, schema = flatten_to_tuple(obj)
    assert values == (3, 5, 6, None, 7, 9, "text", 0.5)
    assert schema(values) == obj


def test_a_tensor_of_sizes_is_kept_as_it_is() -> None:
    instances = Instances(
        torch.tensor([5, 8]), pred_masks=torch.tensor([3]), pred_boxes=Boxes(torch.ones(1, 4))
    )
    values, schema = flatten_to_tuple([3, instances])
    expected = (instances.pred_boxes.tensor, instances.pred_masks, instances.image_size)
    assert all(found is wanted for found, wanted in zip(values[1:], expected)) and len(values) == 4
    assert_instances_allclose(schema(values)[1], instances, rtol=0, size_as_tensor=True)


def test_schemas_are_plain_data() -> None:
    _, schema = flatten_to_tuple(make_object())
    _, same = flatten_to_tuple(schema(flatten_to_tuple(make_object())[0]))
    assert schema == same and schema != flatten_to_tuple([1])[1]
    assert pickle.loads(pickle.dumps(schema)) == schema
    assert yaml.load(yaml.dump(schema), Loader=yaml.UnsafeLoader) == schema


def test_kinds_of_schemas() -> None:
    kinds = {
        DictSchema: {"a": 1},
        IdentitySchema: b"bytes",
        InstancesSchema: Instances((1, 2)),
        ListSchema: [1],
        TensorWrapSchema: RotatedBoxes(torch.zeros(2, 5)),
        TupleSchema: (1, 2),
    }
    for kind, obj in kinds.items():
        values, schema = flatten_to_tuple(obj)
        assert type(schema) is kind and isinstance(schema, Schema)
        assert type(schema(values)) is type(obj)


def test_keys_that_are_no_texts_are_refused() -> None:
    with pytest.raises(KeyError, match="got the key 3"):
        flatten_to_tuple({3: torch.zeros(1)})


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
    with pytest.raises(ValueError, match="must only contain tensors.*int"):
        TracingAdapter(Doubler(), inputs)
    adapter = TracingAdapter(Doubler(), inputs, allow_non_tensor=True)
    assert adapter.inputs_schema is None and len(adapter(*adapter.flattened_inputs)) == 1
    with pytest.raises(ValueError, match="cannot generalize"):
        adapter(torch.ones(2))


def test_adapter_leaves_out_constants_of_outputs_where_told() -> None:
    adapter = TracingAdapter(nn.Identity(), torch.ones(2), lambda _, x: [x, "name"], allow_non_tensor=True)
    assert [x.tolist() for x in adapter(torch.ones(2))] == [[1, 1]]
    assert adapter.outputs_schema is None


def test_adapter_looks_into_a_data_parallel_wrapper_and_needs_no_gradient() -> None:
    linear = nn.Linear(2, 2)
    adapter = TracingAdapter(nn.DataParallel(linear), torch.ones(1, 2))
    assert adapter.model is linear and not adapter(torch.ones(1, 2))[0].requires_grad


def test_adapter_refuses_a_structure_that_changes() -> None:
    adapter = TracingAdapter(nn.Identity(), torch.ones(2), lambda _, x: [x] * int(x[0]))
    adapter(torch.ones(2))
    with pytest.raises(ValueError, match="another structure"):
        adapter(torch.full((2,), 2.0))
