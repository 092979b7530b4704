"""Optimizers and learning rate schedules."""

from . import compat_names as compat_names
from .build import build_lr_scheduler as build_lr_scheduler
from .build import build_optimizer as build_optimizer
from .build import get_default_optimizer_params as get_default_optimizer_params
from .lr_scheduler import LRMultiplier as LRMultiplier
from .lr_scheduler import LRScheduler as LRScheduler
from .lr_scheduler import WarmupCosineLR as WarmupCosineLR
from .lr_scheduler import WarmupMultiStepLR as WarmupMultiStepLR
from .lr_scheduler import WarmupParamScheduler as WarmupParamScheduler

__all__ = [
    "LRMultiplier",
    "LRScheduler",
    "WarmupCosineLR",
    "WarmupMultiStepLR",
    "WarmupParamScheduler",
    "build_lr_scheduler",
    "build_optimizer",
    "get_default_optimizer_params",
]
