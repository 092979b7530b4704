"""A config that was written for some number of processes, fitted to another."""

from __future__ import annotations

import logging

from detectron2.config.config.node import CfgNode
from detectron2.utils.user_errors import UserValueError

__all__ = ["scale_to_processes"]

logger = logging.getLogger(__name__)


def scale_to_processes(cfg: CfgNode, num_processes: int) -> CfgNode:
    """Fit a config that was written for `SOLVER.REFERENCE_WORLD_SIZE` processes to another number.

    The images per process stay, so the whole batch grows by the ratio; so does the learning rate, and all
    lengths in iterations shrink by it, so that the run sees as many images as before.

    Args:
        cfg: the config; one with `REFERENCE_WORLD_SIZE: 0` is returned as it is.
        num_processes: number of processes of the run.

    Returns:
        A new config, with `REFERENCE_WORLD_SIZE` equal to `num_processes`, frozen if `cfg` is.

    Raises:
        ValueError: the batch does not split into equal parts for the processes it was written for.
    """
    reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
    if reference in (0, num_processes):
        return cfg
    if cfg.SOLVER.IMS_PER_BATCH % reference:
        raise UserValueError(
            f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} does not split into "
            f"SOLVER.REFERENCE_WORLD_SIZE {reference} equal parts."
        )
    scaled = _scale_schedule(cfg, num_processes / reference)
    scaled.SOLVER.REFERENCE_WORLD_SIZE = num_processes
    logger.info(
        "Scaled from %d to %d processes: "
        "IMS_PER_BATCH %d, BASE_LR %g, MAX_ITER %d, WARMUP_ITERS %d, STEPS %s",
        reference,
        num_processes,
        *(scaled.SOLVER[key] for key in ("IMS_PER_BATCH", "BASE_LR", "MAX_ITER", "WARMUP_ITERS", "STEPS")),
    )
    if cfg.is_frozen():
        scaled.freeze()
    return scaled


def _scale_schedule(cfg: CfgNode, ratio: float) -> CfgNode:
    """Return an unfrozen copy with batch and learning rate multiplied and iterations divided by `ratio`."""
    cfg = cfg.clone()
    cfg.defrost()
    solver = cfg.SOLVER
    solver.IMS_PER_BATCH = round(solver.IMS_PER_BATCH * ratio)
    solver.BASE_LR = solver.BASE_LR * ratio
    solver.MAX_ITER = round(solver.MAX_ITER / ratio)
    solver.WARMUP_ITERS = round(solver.WARMUP_ITERS / ratio)
    solver.STEPS = tuple(round(step / ratio) for step in solver.STEPS)
    solver.CHECKPOINT_PERIOD = round(solver.CHECKPOINT_PERIOD / ratio)
    cfg.TEST.EVAL_PERIOD = round(cfg.TEST.EVAL_PERIOD / ratio)
    return cfg
