"""Optimizers and learning rate schedules from a config, and the parameter groups that they work on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

import torch
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
)
from torch import Tensor, nn

from detectron2.config.config.node import CfgNode
from detectron2.solver.lr_scheduler import LRMultiplier, LRScheduler, WarmupParamScheduler
from detectron2.utils.user_errors import UserNotImplementedError, UserValueError

logger = logging.getLogger(__name__)

_NORM_MODULES: tuple[type[nn.Module], ...] = (
    # All of batch norm, synchronised and lazy ones included, and all of instance norm.
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)

_GradientClipper = Callable[[Tensor | list[Tensor]], Any]


class GradientClipType(Enum):
    """What `SOLVER.CLIP_GRADIENTS.CLIP_TYPE` says: which numbers are held to `CLIP_VALUE`."""

    VALUE = "value"
    """Every element of every gradient."""
    NORM = "norm"
    """The norm of each parameter's gradient."""
    FULL_MODEL = "full_model"
    """The norm of all gradients taken together."""


def _create_gradient_clipper(cfg: CfgNode) -> _GradientClipper:
    """A function that clips the gradients of one parameter or of several, from the node CLIP_GRADIENTS."""
    limit, norm_type = cfg.CLIP_VALUE, cfg.NORM_TYPE
    try:
        clip_type = GradientClipType(cfg.CLIP_TYPE)
    except ValueError:
        known = ", ".join(kind.value for kind in GradientClipType)
        raise UserValueError(
            f"CLIP_GRADIENTS.CLIP_TYPE must be one of {known}, got {cfg.CLIP_TYPE!r}"
        ) from None

    def clip_each_norm(parameters: Tensor | list[Tensor]) -> None:
        for parameter in [parameters] if isinstance(parameters, Tensor) else parameters:
            nn.utils.clip_grad_norm_(parameter, limit, norm_type)

    if clip_type is GradientClipType.VALUE:
        return lambda parameters: nn.utils.clip_grad_value_(parameters, limit)
    if clip_type is GradientClipType.NORM:
        return clip_each_norm
    return lambda parameters: nn.utils.clip_grad_norm_(parameters, limit, norm_type)


def _clip_before_each_step(optimizer: torch.optim.Optimizer, clip: _GradientClipper) -> None:
    """Clip at the start of `step`, when mixed precision has already unscaled the gradients."""

    def before_step(optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        closure = args[1] if len(args) > 1 else kwargs.get("closure")  # args start with the optimizer
        if closure is not None:
            raise UserNotImplementedError(
                "gradient clipping does not work with a closure: gradients change inside"
            )
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        with_gradients = [parameter for parameter in parameters if parameter.grad is not None]
        if with_gradients:
            clip(with_gradients)

    optimizer.register_step_pre_hook(before_step)


def _generate_optimizer_class_with_gradient_clipping(
    optimizer: type[torch.optim.Optimizer],
    *,
    per_param_clipper: Callable[[Tensor], Any] | None = None,
    global_clipper: _GradientClipper | None = None,
) -> type[torch.optim.Optimizer]:
    """Make a subclass of an optimizer that clips, each parameter by itself or all of them together."""
    if (per_param_clipper is None) == (global_clipper is None):
        raise UserValueError("give either per_param_clipper or global_clipper")

    def clip(parameters: Any) -> None:
        if global_clipper is not None:
            global_clipper(parameters)
        elif per_param_clipper is not None:
            for parameter in parameters:
                per_param_clipper(parameter)

    def init(self: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> None:
        optimizer.__init__(self, *args, **kwargs)
        _clip_before_each_step(self, clip)

    return type(f"{optimizer.__name__}WithGradientClip", (optimizer,), {"__init__": init})


def maybe_add_gradient_clipping(cfg: CfgNode, optimizer: Any) -> Any:
    """Make an optimizer clip gradients where `SOLVER.CLIP_GRADIENTS.ENABLED` says so.

    Args:
        cfg: the whole config.
        optimizer: a class or an instance.

    Returns:
        A subclass for a class; the same object for an instance.
    """
    if not cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
        return optimizer
    clip = _create_gradient_clipper(cfg.SOLVER.CLIP_GRADIENTS)
    if isinstance(optimizer, torch.optim.Optimizer):
        _clip_before_each_step(optimizer, clip)
        return optimizer
    return _generate_optimizer_class_with_gradient_clipping(optimizer, global_clipper=clip)


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Make the SGD optimizer that `SOLVER` describes, for the parameters that need gradients."""
    parameters = get_default_optimizer_params(
        model,
        base_lr=cfg.SOLVER.BASE_LR,
        weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
        bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
        weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
    )
    optimizer: torch.optim.Optimizer = torch.optim.SGD(
        parameters,
        lr=cfg.SOLVER.BASE_LR,
        momentum=cfg.SOLVER.MOMENTUM,
        nesterov=cfg.SOLVER.NESTEROV,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        foreach=True,
    )
    clipping: torch.optim.Optimizer = maybe_add_gradient_clipping(cfg, optimizer)
    return clipping


def get_default_optimizer_params(
    model: nn.Module,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    bias_lr_factor: float | None = 1.0,
    weight_decay_bias: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
    overrides: dict[str, dict[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Sort the parameters that need gradients into groups with their own learning rate and weight decay.

    Args:
        model: parameters that are used twice in it are listed once.
        base_lr: learning rate; None leaves it to the optimizer.
        weight_decay: None leaves it to the optimizer.
        weight_decay_norm: weight decay of norm layers; None treats them as the rest.
        bias_lr_factor: learning rate of parameters called `bias`, relative to `base_lr`.
        weight_decay_bias: their weight decay; None treats them as the rest.
        lr_factor_func: full parameter name -> factor of its learning rate.
        overrides: last part of a parameter's name -> options that win over everything else, e.g.
            `{"embedding": {"lr": 0.01, "weight_decay": 0.1}}`.

    Returns:
        Groups for any torch optimizer.
    """
    overrides = dict(overrides or {})
    bias_options: dict[str, float] = {}
    if bias_lr_factor is not None and bias_lr_factor != 1.0:
        bias_options["lr"] = _require_base_lr(base_lr, "bias_lr_factor") * bias_lr_factor
    if weight_decay_bias is not None:
        bias_options["weight_decay"] = weight_decay_bias
    if bias_options:
        if "bias" in overrides:
            raise UserValueError(
                "bias_lr_factor and weight_decay_bias conflict with the entry 'bias' of overrides"
            )
        overrides["bias"] = bias_options
    defaults = {
        name: value for name, value in (("lr", base_lr), ("weight_decay", weight_decay)) if value is not None
    }

    groups: list[dict[str, Any]] = []
    seen: set[Tensor] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            options = dict(defaults)
            if weight_decay_norm is not None and isinstance(module, _NORM_MODULES):
                options["weight_decay"] = weight_decay_norm
            if lr_factor_func is not None:
                factor = lr_factor_func(f"{module_name}.{name}")
                options["lr"] = _require_base_lr(base_lr, "lr_factor_func") * factor
            options.update(overrides.get(name, {}))
            groups.append({"params": [parameter], **options})
    return reduce_param_groups(groups)


def _require_base_lr(base_lr: float | None, option: str) -> float:
    if base_lr is None:
        raise UserValueError(f"{option} scales base_lr, so base_lr must be given too")
    return base_lr


def reduce_param_groups(params: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join parameter groups with equal options; few large groups make an optimizer's step fast.

    Args:
        params: groups with "params" and options. A parameter that stands in several gets the options of all,
            later ones win.

    Returns:
        Groups, in the order in which their options first appear; each parameter once.
    """
    joined: dict[tuple[tuple[str, Any], ...], list[Tensor]] = {}
    for group in _expand_param_groups(params):
        options = tuple((name, value) for name, value in group.items() if name != "params")
        joined.setdefault(options, []).extend(group["params"])
    return [{"params": members, **dict(options)} for options, members in joined.items()]


def _expand_param_groups(params: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A group for every parameter, in the order in which they first appear, with all options it has got."""
    options_per_parameter: dict[Tensor, dict[str, Any]] = {}
    for group in params:
        if "params" not in group:
            raise UserValueError(f"a parameter group needs the key 'params', this one has {sorted(group)}")
        members: Iterable[Tensor] = (
            [group["params"]] if isinstance(group["params"], Tensor) else group["params"]
        )
        options = {name: value for name, value in group.items() if name != "params"}
        for parameter in members:
            options_per_parameter.setdefault(parameter, {}).update(options)
    return [{"params": [parameter], **options} for parameter, options in options_per_parameter.items()]


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """Make the schedule that `SOLVER` describes, warm-up included."""
    solver = cfg.SOLVER
    scheduler = WarmupParamScheduler(
        _build_schedule(solver),
        solver.WARMUP_FACTOR,
        min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
        solver.WARMUP_METHOD,
        solver.RESCALE_INTERVAL,
    )
    return LRMultiplier(optimizer, multiplier=scheduler, max_iter=solver.MAX_ITER)


class _EqualSteps(ParamScheduler):  # type: ignore[misc]  # fvcore has no types
    """Decay by `gamma` at `num_decays` places that cut training into parts of the same length."""

    def __init__(self, gamma: float, num_decays: int) -> None:
        self._gamma = gamma
        self._num_decays = num_decays

    def __call__(self, where: float) -> float:
        # A scheduler is stepped once more when training is over, at where = 1.
        past = int((where + self.WHERE_EPSILON) * (self._num_decays + 1))
        return self._gamma ** min(past, self._num_decays)


def _build_schedule(solver: CfgNode) -> ParamScheduler:
    """The schedule without warm-up, as a factor of BASE_LR."""
    name, max_iter = solver.LR_SCHEDULER_NAME, solver.MAX_ITER
    if max_iter < 1:
        raise UserValueError(f"SOLVER.MAX_ITER must be at least 1, got {max_iter}")
    if name == "WarmupMultiStepLR":
        steps = [step for step in solver.STEPS if step < max_iter]
        if any(step > max_iter for step in solver.STEPS):
            logger.warning(
                "SOLVER.STEPS %s: those after SOLVER.MAX_ITER %d never come", solver.STEPS, max_iter
            )
        return MultiStepParamScheduler(
            [solver.GAMMA**k for k in range(len(steps) + 1)], milestones=steps, num_updates=max_iter
        )
    if name == "WarmupCosineLR":
        if not 0 <= solver.BASE_LR_END <= solver.BASE_LR or solver.BASE_LR == 0:
            raise UserValueError(
                "a cosine schedule ends at SOLVER.BASE_LR_END, which must lie between 0 and SOLVER.BASE_LR; "
                f"got {solver.BASE_LR_END} and {solver.BASE_LR}"
            )
        return CosineParamScheduler(1.0, solver.BASE_LR_END / solver.BASE_LR)
    if name == "WarmupStepWithFixedGammaLR":
        return _EqualSteps(solver.GAMMA, solver.NUM_DECAYS)
    raise UserValueError(
        "SOLVER.LR_SCHEDULER_NAME must be WarmupMultiStepLR, WarmupCosineLR or WarmupStepWithFixedGammaLR, "
        f"got {name!r}"
    )
