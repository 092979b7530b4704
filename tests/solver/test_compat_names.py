"""Steps of `solver` that others' code calls by their private names."""

from __future__ import annotations

import importlib

import pytest
import torch

from detectron2.config import get_cfg

build = importlib.import_module("detectron2.solver.build")
lr_scheduler = importlib.import_module("detectron2.solver.lr_scheduler")


def test_factor_of_a_warm_up() -> None:
    factor = lr_scheduler._get_warmup_factor_at_iter
    assert [factor("linear", i, 4, 0.2) for i in (0, 2, 4, 9)] == pytest.approx([0.2, 0.6, 1, 1])
    assert [factor("constant", i, 4, 0.2) for i in (0, 3, 4)] == [0.2, 0.2, 1]
    with pytest.raises(ValueError, match="linear, constant"):
        factor("cosine", 0, 4, 0.2)


def test_parameter_groups_are_taken_apart() -> None:
    a, b = torch.zeros(1), torch.zeros(2)
    found = build._expand_param_groups([{"params": [a, b], "lr": 1}, {"params": a, "lr": 2, "decay": 0}])
    assert [group["params"] for group in found] == [[a], [b]]
    assert [{k: v for k, v in group.items() if k != "params"} for group in found] == [
        {"lr": 2, "decay": 0},
        {"lr": 1},
    ]


def gradients(*values: float) -> list[torch.nn.Parameter]:
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in values]
    for parameter, value in zip(parameters, values):
        parameter.grad = torch.full((2,), value)
    return parameters


@pytest.mark.parametrize(("kind", "largest"), [("value", 1.0), ("norm", 0.5**0.5)])
def test_clippers_take_one_parameter_or_several(kind: str, largest: float) -> None:
    cfg = get_cfg().SOLVER.CLIP_GRADIENTS
    cfg.CLIP_TYPE, cfg.CLIP_VALUE = kind, 1.0
    clip = build._create_gradient_clipper(cfg)
    (one,), several = gradients(5.0), gradients(5.0, 0.1)
    clip(one)
    clip(several)
    found = [float(p.grad.max()) for p in (one, *several) if p.grad is not None]
    assert found == pytest.approx([largest, largest, 0.1], rel=1e-5)


def test_optimizers_that_clip() -> None:
    make = build._generate_optimizer_class_with_gradient_clipping
    each = make(torch.optim.SGD, per_param_clipper=lambda p: p.grad.fill_(1.0))
    assert issubclass(each, torch.optim.SGD) and each.__name__ == "SGDWithGradientClip"
    (parameter,) = gradients(5.0)
    each([parameter], lr=0.5).step()
    assert parameter.tolist() == [-0.5, -0.5]
    together = make(torch.optim.SGD, global_clipper=lambda ps: [p.grad.fill_(2.0) for p in ps])
    (parameter,) = gradients(5.0)
    together([parameter], lr=0.5).step()
    assert parameter.tolist() == [-1.0, -1.0]
    with pytest.raises(ValueError, match="either per_param_clipper or global_clipper"):
        make(torch.optim.SGD)
