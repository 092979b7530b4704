"""Learning rates against closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler

from detectron2.config import get_cfg
from detectron2.solver import (
    LRMultiplier,
    WarmupCosineLR,
    WarmupMultiStepLR,
    WarmupParamScheduler,
    build_lr_scheduler,
)

MAX_ITER = 40


def make_optimizer(lr: float = 5.0) -> torch.optim.Optimizer:
    parameters = [torch.nn.Parameter(torch.zeros(0)) for _ in range(2)]
    return torch.optim.SGD(
        [{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": 2 * lr}], lr=lr, momentum=0.9
    )


def run(scheduler: Any, optimizer: torch.optim.Optimizer, iterations: int = MAX_ITER) -> list[float]:
    """Learning rate that each iteration uses; the second group must stay at twice the first."""
    rates = []
    for _ in range(iterations):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert second == pytest.approx(2 * first)
        rates.append(first)
        optimizer.step()
        scheduler.step()
    return rates


def warmup(iteration: int, iters: int, factor: float, method: str, start: float, end: float) -> float | None:
    if iteration >= iters:
        return None
    if method == "constant":
        return start * factor
    return start * factor + (end - start * factor) * iteration / iters


@pytest.mark.parametrize("method", ["linear", "constant"])
@pytest.mark.parametrize("warmup_iters", [0, 1, 5, 15])
@pytest.mark.parametrize("name", ["WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"])
@pytest.mark.parametrize("rescale", [False, True])
def test_built_schedule_is_the_closed_form(name: str, warmup_iters: int, method: str, rescale: bool) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(
        ["SOLVER.LR_SCHEDULER_NAME", name, "SOLVER.MAX_ITER", MAX_ITER, "SOLVER.STEPS", (10, 15, 20)]
        + ["SOLVER.BASE_LR", 5.0, "SOLVER.BASE_LR_END", 1.0, "SOLVER.GAMMA", 0.1, "SOLVER.NUM_DECAYS", 3]
        + ["SOLVER.WARMUP_ITERS", warmup_iters, "SOLVER.WARMUP_METHOD", method, "SOLVER.WARMUP_FACTOR", 0.001]
        + ["SOLVER.RESCALE_INTERVAL", rescale]
    )

    def factor(progress: float) -> float:
        """Factor of BASE_LR when this part of the schedule is over."""
        if name == "WarmupCosineLR":
            return 0.2 + 0.8 * (1 + math.cos(math.pi * progress)) / 2
        iteration = progress * MAX_ITER + 1e-6
        boundaries = (10, 15, 20) if name == "WarmupMultiStepLR" else (10, 20, 30)
        return 0.1 ** sum(iteration >= boundary for boundary in boundaries)

    expected = []
    for i in range(MAX_ITER):
        end = factor(0.0) if rescale else factor(warmup_iters / MAX_ITER)
        value = warmup(i, warmup_iters, 0.001, method, 1.0, end)
        if value is None:
            start = warmup_iters if rescale else 0
            value = factor((i - start) / (MAX_ITER - start))
        expected.append(5.0 * value)
    optimizer = make_optimizer()
    rates = run(build_lr_scheduler(cfg, optimizer), optimizer)
    assert rates == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("rescale", [False, True])
def test_warmup_may_fill_all_of_training(rescale: bool) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(
        ["SOLVER.MAX_ITER", 10, "SOLVER.STEPS", (), "SOLVER.BASE_LR", 1.0, "SOLVER.RESCALE_INTERVAL", rescale]
    )
    cfg.merge_from_list(["SOLVER.WARMUP_ITERS", 1000, "SOLVER.WARMUP_FACTOR", 0.0])
    optimizer = make_optimizer(1.0)
    scheduler = build_lr_scheduler(cfg, optimizer)
    assert run(scheduler, optimizer, 10) == pytest.approx([i / 10 for i in range(10)])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1.0)


def test_steps_beyond_the_end_are_ignored_and_said(caplog: pytest.LogCaptureFixture) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.MAX_ITER", 10, "SOLVER.STEPS", (5, 10, 50), "SOLVER.WARMUP_ITERS", 0])
    optimizer = make_optimizer(1.0)
    scheduler = build_lr_scheduler(cfg, optimizer)
    assert "never come" in caplog.text
    assert run(scheduler, optimizer, 10) == pytest.approx([1.0] * 5 + [0.1] * 5)


def test_one_iteration_is_a_schedule() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.MAX_ITER", 1, "SOLVER.STEPS", ()])
    optimizer = make_optimizer(1.0)
    run(build_lr_scheduler(cfg, optimizer), optimizer, 1)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["SOLVER.LR_SCHEDULER_NAME", "Cosine"], "must be WarmupMultiStepLR, WarmupCosineLR or"),
        (["SOLVER.WARMUP_METHOD", "burnin"], "linear, constant"),
        (["SOLVER.MAX_ITER", 0], "MAX_ITER must be at least 1"),
        (["SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.BASE_LR_END", 9.0], "BASE_LR_END"),
        (["SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.BASE_LR", 0.0], "BASE_LR_END"),
    ],
)
def test_impossible_schedules_are_errors(overrides: list[Any], message: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(overrides)
    with pytest.raises(ValueError, match=message):
        build_lr_scheduler(cfg, make_optimizer())


def test_multiplier_must_be_a_schedule() -> None:
    with pytest.raises(ValueError, match="ParamScheduler"):
        LRMultiplier(make_optimizer(), multiplier=lambda progress: 1.0, max_iter=3)


def test_warmup_length_is_a_part() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        WarmupParamScheduler(CosineParamScheduler(1, 0), 0.1, 5)


@pytest.mark.parametrize("method", ["linear", "constant"])
def test_multi_step_class(method: str) -> None:
    optimizer = make_optimizer()
    scheduler = WarmupMultiStepLR(optimizer, [10, 15], gamma=0.5, warmup_iters=5, warmup_method=method)
    expected = []
    for i in range(20):
        value = 0.5 ** sum(i >= m for m in (10, 15))
        factor = warmup(i, 5, 0.001, method, 1.0, 1.0)
        expected.append(5.0 * value * (1.0 if factor is None else factor))
    assert run(scheduler, optimizer, 20) == pytest.approx(expected)
    with pytest.raises(ValueError, match="increase"):
        WarmupMultiStepLR(make_optimizer(), [3, 2])
    with pytest.raises(ValueError, match="linear, constant"):
        WarmupMultiStepLR(make_optimizer(), [3], warmup_method="none")


def test_cosine_class() -> None:
    optimizer = make_optimizer()
    scheduler = WarmupCosineLR(optimizer, 20, warmup_factor=0.1, warmup_iters=4)
    expected = []
    for i in range(20):
        factor = warmup(i, 4, 0.1, "linear", 1.0, 1.0)
        expected.append(5.0 * (1.0 if factor is None else factor) * (1 + math.cos(math.pi * i / 20)) / 2)
    assert run(scheduler, optimizer, 20) == pytest.approx(expected)


def test_multiplier_starts_where_it_is_told() -> None:
    optimizer = make_optimizer()
    schedule = MultiStepParamScheduler([1.0, 0.5], milestones=[10], num_updates=20)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    scheduler = LRMultiplier(optimizer, schedule, max_iter=20, last_iter=11)
    assert scheduler.get_last_lr() == pytest.approx([2.5, 5.0])
