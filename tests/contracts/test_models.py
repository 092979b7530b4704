"""What every model does, whatever it is made of; every registered part is in one of them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detectron2.export import export_program
from detectron2.layers.extension import missing_reason
from detectron2.modeling.meta_arch.image_model import ImageModel
from detectron2.solver import build_optimizer
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from detectron2.utils.registry import Registry
from detectron2.utils.user_errors import UserValueError

from . import registered
from .compare import assert_same, tensors_in
from .models import COVERED_BY, MODELS, make_cfg, make_input, make_model

# Registries whose entries are no parts of a model, with the file of their contract.
OTHER_CONTRACTS = {"TRACKER_HEADS": "test_trackers.py", "WEIGHT_TRANSLATOR": "test_weight_translators.py"}

# Models whose export, which takes seconds, shows what that of another one shows; `--full` tries them too.
ALIKE = {"mask_rcnn": "panoptic_fpn", "res2net_retinanet": "retinanet"}

model_names = pytest.mark.parametrize("name", MODELS)


def test_every_registry_has_a_contract() -> None:
    assert sorted(registered.registries()) == sorted({**COVERED_BY, **OTHER_CONTRACTS})


@pytest.mark.parametrize("registry", COVERED_BY)
def test_every_registered_part_has_a_model(registry: str) -> None:
    assert registered.entries(registry) == sorted(COVERED_BY[registry])


@pytest.mark.parametrize(
    ("registry", "part", "name"),
    [(registry, part, name) for registry, rows in COVERED_BY.items() for part, name in rows.items()],
)
def test_the_model_of_a_row_has_the_part(
    registry: str, part: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []
    original = Registry.get

    def get(self: Registry, key: str) -> Any:
        asked.append((self._name, key))
        return original(self, key)

    monkeypatch.setattr(Registry, "get", get)
    make_model(name)
    assert (registry, part) in asked


def test_every_class_of_models_has_a_row() -> None:
    made = {type(built(name)).__name__ for name, row in MODELS.items() if not row.skip}
    assert list(registered.subclasses(ImageModel)) == sorted({*made, "DenseDetector"})  # a base


@cache
def built(name: str) -> nn.Module:
    return make_model(name)


def fresh(name: str) -> nn.Module:
    """A model of its own for a test, in training mode."""
    return copy.deepcopy(built(name))


def batch_of(name: str, *num_objects: int) -> list[dict[str, Any]]:
    return [copy.deepcopy(make_input(name, number)) for number in num_objects]


def train(model: nn.Module, batch: Sequence[dict[str, Any]], seed: int = 0) -> dict[str, Tensor]:
    """One step forward and back; every random choice comes from `seed`."""
    torch.manual_seed(seed)
    with EventStorage():
        losses = model(batch)
    assert losses
    for name, loss in losses.items():
        assert loss.ndim == 0 and loss.dtype == torch.float32 and loss.isfinite(), f"{name}: {loss}"
    sum(losses.values()).backward()
    return dict(losses)


def predict(model: nn.Module, batch: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What an evaluation sees; random choices, if there were any, would not repeat."""
    with torch.no_grad():
        results = model.eval()(batch)
    assert len(results) == len(batch)
    return results


def without_gradient(model: nn.Module) -> list[str]:
    return [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


def named_ones(name: str) -> tuple[str, ...]:
    """Beginnings of the names of parameters that the table says no gradient reaches."""
    return tuple(MODELS[name].without_gradient)


@model_names
def test_a_training_step_reaches_every_parameter_that_is_not_named(name: str) -> None:
    model = fresh(name)
    optimizer = build_optimizer(make_cfg(name), model)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    train(model, batch_of(name, 2))
    missed = without_gradient(model)
    assert [key for key in missed if not key.startswith(named_ones(name))] == []
    unused = [prefix for prefix in named_ones(name) if not any(key.startswith(prefix) for key in missed)]
    assert unused == []
    optimizer.step()
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad and p.grad is not None}
    moved = [key for key, p in trained.items() if not torch.equal(p, before[key])]
    assert len(moved) > len(trained) / 2
    frozen = [key for key, p in model.named_parameters() if not p.requires_grad]
    assert [key for key in frozen if not torch.equal(dict(model.named_parameters())[key], before[key])] == []


@model_names
def test_a_training_step_repeats_bit_by_bit(name: str) -> None:
    first, second = fresh(name), fresh(name)
    assert_same(train(first, batch_of(name, 2, 1)), train(second, batch_of(name, 2, 1)))
    assert_same(
        {key: p.grad for key, p in first.named_parameters() if p.grad is not None},
        {key: p.grad for key, p in second.named_parameters() if p.grad is not None},
    )


@model_names
def test_images_without_objects_train_and_reach_every_parameter(name: str) -> None:
    """DistributedDataParallel hangs on parameters that get a gradient in one process and not in another."""
    model, usual = fresh(name), fresh(name)
    train(model, batch_of(name, 0, 0))
    train(usual, batch_of(name, 2))
    assert without_gradient(model) == without_gradient(usual)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@model_names
def test_an_image_in_which_nothing_is_found_has_results(name: str) -> None:
    model = fresh(name)
    for part in model.modules():
        if hasattr(part, "test_score_thresh"):
            part.test_score_thresh = 2.0
    image = make_input(name)
    (result,) = predict(model, [image])
    for key, value in result.items():
        if isinstance(value, Instances):
            assert value.image_size == (image["height"], image["width"])
            assert key == "proposals" or len(value) == 0


@model_names
def test_evaluation_repeats_and_leaves_its_inputs_and_the_model_alone(name: str) -> None:
    model, batch = fresh(name), batch_of(name, 2, 1)
    inputs = [image["image"].clone() for image in batch]
    state = copy.deepcopy(model.state_dict())
    first = copy.deepcopy(predict(model, batch))
    assert_same(first, predict(model, batch))
    assert_same(inputs, [image["image"] for image in batch])
    assert_same(dict(state), dict(model.state_dict()))
    assert all(tensor.isfinite().all() for tensor in tensors_in(first) if tensor.is_floating_point())
    assert any(tensor.numel() for tensor in tensors_in(first))


@model_names
def test_weights_carry_over_by_state_dict(name: str) -> None:
    model, other = fresh(name), make_model(name, seed=1)
    assert list(model.state_dict()) == list(other.state_dict())
    differs = [key for key, value in model.state_dict().items() if not value.equal(other.state_dict()[key])]
    assert differs
    other.load_state_dict(copy.deepcopy(model.state_dict()), strict=True)
    assert_same(predict(model, batch_of(name, 2)), predict(other, batch_of(name, 2)))


@model_names
@pytest.mark.parametrize("duplicate", ["deepcopy", "pickle"])
def test_a_copy_does_the_same_and_shares_no_weights(name: str, duplicate: str) -> None:
    model = fresh(name).eval()
    twin = copy.deepcopy(model) if duplicate == "deepcopy" else pickle.loads(pickle.dumps(model))
    expected = copy.deepcopy(predict(model, batch_of(name, 2)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    assert not twin.training
    assert_same(expected, predict(twin, batch_of(name, 2)))


@model_names
def test_mixed_precision_trains_and_predicts(name: str) -> None:
    model = fresh(name)
    with torch.autocast("cpu", torch.bfloat16):
        losses = train(model, batch_of(name, 2, 0))
        results = predict(model, batch_of(name, 2))
    exact = train(fresh(name), batch_of(name, 2, 0))
    assert list(losses) == list(exact)
    # Which proposals are sampled may change with their scores, so single terms may be far apart.
    assert sum(losses.values()).item() == pytest.approx(sum(exact.values()).item(), rel=0.2)
    assert all(
        p.grad is None or (p.grad.dtype == p.dtype and p.grad.isfinite().all()) for p in model.parameters()
    )
    floats = [tensor for tensor in tensors_in(results) if tensor.is_floating_point()]
    assert floats and all(tensor.isfinite().all() for tensor in floats)


@model_names
def test_weights_of_half_precision_train_and_predict(name: str) -> None:
    model = fresh(name).to(torch.bfloat16)
    train(model, batch_of(name, 2, 0))
    assert [key for key in without_gradient(model) if not key.startswith(named_ones(name))] == []
    floats = [
        tensor for tensor in tensors_in(predict(model, batch_of(name, 2))) if tensor.is_floating_point()
    ]
    assert floats and all(tensor.isfinite().all() for tensor in floats)


@model_names
def test_images_of_different_sizes_make_a_batch(name: str) -> None:
    model = fresh(name)
    batch = [copy.deepcopy(make_input(name, 2, size)) for size in ((64, 96), (96, 64), (37, 51))]
    train(model, batch)
    for image, result in zip(batch, predict(model, batch), strict=True):
        size = (image["height"], image["width"])
        for value in result.values():
            if isinstance(value, Instances):
                assert value.image_size == size
        if "sem_seg" in result:
            assert result["sem_seg"].shape[-2:] == size


@model_names
def test_channels_last_changes_nothing_but_the_order_in_memory(name: str) -> None:
    model, other = fresh(name), fresh(name).to(memory_format=torch.channels_last)
    losses, others = train(model, batch_of(name, 2)), train(other, batch_of(name, 2))
    assert list(losses) == list(others)
    for key, loss in losses.items():
        torch.testing.assert_close(
            others[key], loss, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}"
        )
    assert without_gradient(other) == without_gradient(model)
    assert len(predict(other, batch_of(name, 2))) == 1


@pytest.mark.skipif(bool(missing_reason()), reason=missing_reason() or "-")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.full if name in ALIKE else ()) for name in MODELS]
)
def test_a_model_exports_or_says_why_not(name: str) -> None:
    model = fresh(name).eval()
    refusal = MODELS[name].export_refusal
    if refusal is not None:
        with pytest.raises(UserValueError, match=refusal):
            export_program(model)
        return
    program = export_program(model).module()
    image = make_input(name, 2, (133, 160))["image"].float()
    outputs = program(image)
    (result,) = predict(model, [{"image": image}])
    assert len(result["instances"]) == len(outputs["scores"])
    assert_same(result["instances"].scores, outputs["scores"], tolerance=1e-4)
