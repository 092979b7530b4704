"""Learning rate schedules for COCO, named by their length: 1x is 90000 iterations of 16 images."""

from fvcore.common.param_scheduler import MultiStepParamScheduler

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler


def step_schedule(max_iter, milestones, warmup_iters, warmup_factor):
    """Divide the rate by 10 at each of two milestones, after a linear warmup; all lengths in iterations."""
    steps = L(MultiStepParamScheduler)(
        values=[1.0, 0.1, 0.01], milestones=list(milestones), num_updates=max_iter
    )
    return L(WarmupParamScheduler)(
        scheduler=steps,
        warmup_length=warmup_iters / max_iter,
        warmup_method="linear",
        warmup_factor=warmup_factor,
    )


def default_X_scheduler(num_X):
    """Drop the rate 60000 and 20000 iterations before the end; up to 2x at 2/3 and 8/9 of the run."""
    max_iter = 90000 * num_X
    drops = (60000 * num_X, 80000 * num_X) if num_X <= 2 else (max_iter - 60000, max_iter - 20000)
    return step_schedule(max_iter, drops, warmup_iters=1000, warmup_factor=0.001)


def stretch(factor, train, lr_multiplier):
    """Make a run longer: change its options and its `step_schedule` in place. The warmup keeps its share."""
    train.max_iter = int(train.max_iter * factor)
    steps = lr_multiplier.scheduler
    steps.milestones = [int(milestone * factor) for milestone in steps.milestones]
    steps.num_updates = train.max_iter


lr_multiplier_1x, lr_multiplier_2x = (default_X_scheduler(length) for length in (1, 2))
lr_multiplier_3x, lr_multiplier_6x, lr_multiplier_9x = (default_X_scheduler(length) for length in (3, 6, 9))
