"""Optimizers, their parameter groups, and gradient clipping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from detectron2.config import CfgNode, get_cfg
from detectron2.solver import build_lr_scheduler, build_optimizer, get_default_optimizer_params
from detectron2.solver.build import GradientClipType, maybe_add_gradient_clipping, reduce_param_groups


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.norm = nn.BatchNorm2d(2)
        self.group = nn.GroupNorm(1, 2)
        self.fc = nn.Linear(2, 2)
        self.tied = self.fc
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def options_by_parameter(model: nn.Module, groups: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    options = {}
    for group in groups:
        for parameter in group["params"]:
            assert names[parameter] not in options, "a parameter stands in two groups"
            options[names[parameter]] = {key: value for key, value in group.items() if key != "params"}
    return options


def test_every_trainable_parameter_is_in_one_group_with_its_options() -> None:
    model = Model()
    groups = get_default_optimizer_params(
        model,
        base_lr=1.0,
        weight_decay=0.5,
        weight_decay_norm=0.0,
        bias_lr_factor=2.0,
        weight_decay_bias=0.25,
    )
    bias = {"lr": 2.0, "weight_decay": 0.25}
    plain = {"lr": 1.0, "weight_decay": 0.5}
    norm = {"lr": 1.0, "weight_decay": 0.0}
    assert options_by_parameter(model, groups) == {
        "conv.weight": plain,
        "conv.bias": bias,
        "norm.weight": norm,
        "norm.bias": bias,
        "group.weight": norm,
        "group.bias": bias,
        "fc.weight": plain,
        "fc.bias": bias,
    }
    assert len(groups) == 3


def test_options_that_are_not_given_are_left_to_the_optimizer() -> None:
    model = Model()
    groups = get_default_optimizer_params(model)
    assert len(groups) == 1
    assert groups[0].keys() == {"params"}


def test_factor_by_name_and_overrides() -> None:
    model = Model()
    options = options_by_parameter(
        model,
        get_default_optimizer_params(
            model,
            base_lr=1.0,
            lr_factor_func=lambda name: 0.1 if name.startswith("fc.") else 1.0,
            overrides={"bias": {"lr": 9.0}},
        ),
    )
    assert options["fc.weight"]["lr"] == pytest.approx(0.1)
    assert options["conv.weight"]["lr"] == 1.0
    assert options["fc.bias"]["lr"] == 9.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bias_lr_factor": 2.0}, "bias_lr_factor scales base_lr"),
        ({"lr_factor_func": lambda name: 1.0}, "lr_factor_func scales base_lr"),
        ({"weight_decay_bias": 0.0, "overrides": {"bias": {"lr": 1.0}}}, "conflict"),
    ],
)
def test_contradictory_options_are_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_default_optimizer_params(Model(), **arguments)


def test_callers_overrides_are_not_changed() -> None:
    overrides: dict[str, dict[str, float]] = {}
    get_default_optimizer_params(Model(), weight_decay_bias=0.1, overrides=overrides)
    assert overrides == {}


def test_reducing_groups_joins_equal_options_and_later_ones_win() -> None:
    a, b, c = (nn.Parameter(torch.zeros(1)) for _ in range(3))
    groups = reduce_param_groups(
        [
            {"params": [a], "lr": 1.0},
            {"params": b, "lr": 2.0},
            {"params": [c, a], "lr": 2.0, "weight_decay": 0.0},
            {"params": [b], "weight_decay": 0.0},
        ]
    )
    assert len(groups) == 1
    assert {id(p) for p in groups[0]["params"]} == {id(a), id(b), id(c)}
    assert reduce_param_groups([]) == []
    with pytest.raises(ValueError, match="needs the key 'params'"):
        reduce_param_groups([{"lr": 1.0}])


def make_cfg(*overrides: Any) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_list(list(overrides))
    return cfg


def test_build_optimizer_reads_the_solver_node() -> None:
    cfg = make_cfg(
        "SOLVER.BASE_LR", 0.5, "SOLVER.MOMENTUM", 0.75, "SOLVER.NESTEROV", True, "SOLVER.WEIGHT_DECAY", 0.25
    )
    model = Model()
    optimizer = build_optimizer(cfg, model)
    assert isinstance(optimizer, torch.optim.SGD)
    options = options_by_parameter(model, optimizer.param_groups)
    assert {o["momentum"] for o in options.values()} == {0.75}
    assert {o["nesterov"] for o in options.values()} == {True}
    assert {o["lr"] for o in options.values()} == {0.5}
    assert options["conv.bias"]["weight_decay"] == 0.25
    assert options["norm.weight"]["weight_decay"] == 0.0


def gradients(model: nn.Module) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = 10 * torch.randn(parameter.shape, generator=generator)
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def clip_value(grads: list[torch.Tensor]) -> list[torch.Tensor]:
    return [g.clamp(-0.5, 0.5) for g in grads]


def clip_norm(grads: list[torch.Tensor]) -> list[torch.Tensor]:
    return [g * min(1.0, 0.5 / (float(g.norm()) + 1e-6)) for g in grads]


def clip_full_model(grads: list[torch.Tensor]) -> list[torch.Tensor]:
    total = float(torch.cat([g.flatten() for g in grads]).norm())
    return [g * min(1.0, 0.5 / (total + 1e-6)) for g in grads]


@pytest.mark.parametrize(
    ("kind", "reference"), [("value", clip_value), ("norm", clip_norm), ("full_model", clip_full_model)]
)
@pytest.mark.parametrize("wrap", ["class", "instance"])
def test_clipped_step_is_sgd_on_clipped_gradients(
    kind: str, reference: Callable[[list[torch.Tensor]], list[torch.Tensor]], wrap: str
) -> None:
    node = "SOLVER.CLIP_GRADIENTS."
    cfg = make_cfg(node + "ENABLED", True, node + "CLIP_TYPE", kind, node + "CLIP_VALUE", 0.5)
    model = Model()
    before = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    optimizer: torch.optim.Optimizer
    if wrap == "class":
        optimizer = maybe_add_gradient_clipping(cfg, torch.optim.SGD)(model.parameters(), lr=1.0)
    else:
        plain = torch.optim.SGD(model.parameters(), lr=1.0)
        optimizer = maybe_add_gradient_clipping(cfg, plain)
        assert optimizer is plain
    optimizer.step()  # no gradient anywhere yet
    clipped = reference(gradients(model))
    optimizer.step()
    after = [p.detach() for p in model.parameters() if p.requires_grad]
    for old, gradient, new in zip(before, clipped, after):
        torch.testing.assert_close(new, old - gradient)
    assert isinstance(optimizer, torch.optim.SGD)


def test_clipping_is_off_by_default_and_refuses_a_closure() -> None:
    assert maybe_add_gradient_clipping(get_cfg(), torch.optim.SGD) is torch.optim.SGD
    cfg = make_cfg("SOLVER.CLIP_GRADIENTS.ENABLED", True)
    optimizer = build_optimizer(cfg, Model())
    with pytest.raises(NotImplementedError, match="closure"):
        optimizer.step(lambda: 0.0)


def test_unknown_clip_type_lists_the_known_ones() -> None:
    cfg = make_cfg("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "half")
    with pytest.raises(ValueError, match="value, norm, full_model"):
        build_optimizer(cfg, Model())
    assert {kind.value for kind in GradientClipType} == {"value", "norm", "full_model"}


def test_optimizer_and_schedule_state_survive_a_checkpoint() -> None:
    cfg = make_cfg("SOLVER.MAX_ITER", 20, "SOLVER.STEPS", (10,), "SOLVER.WARMUP_ITERS", 5)

    def make() -> tuple[Any, Any]:
        torch.manual_seed(0)
        optimizer = build_optimizer(cfg, Model())
        return optimizer, build_lr_scheduler(cfg, optimizer)

    optimizer, scheduler = make()
    for _ in range(12):
        optimizer.step()
        scheduler.step()
    assert scheduler.state_dict().keys() == {"base_lrs", "last_epoch"}
    again, resumed = make()
    again.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    for _ in range(8):
        for opt, sched in ((optimizer, scheduler), (again, resumed)):
            opt.step()
            sched.step()
        assert [g["lr"] for g in again.param_groups] == [g["lr"] for g in optimizer.param_groups]
