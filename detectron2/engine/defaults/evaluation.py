"""Evaluating a model on every test set of a config."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from torch import nn

from detectron2.config.config.node import CfgNode
from detectron2.evaluation.evaluator import DatasetEvaluator, inference_on_dataset
from detectron2.evaluation.testing import print_csv_format
from detectron2.utils import comm
from detectron2.utils.user_errors import UserValueError

__all__ = ["evaluate_test_sets"]

logger = logging.getLogger(__name__)


class _Builders(Protocol):
    """What a trainer class knows about test sets."""

    def build_evaluator(self, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator: ...

    def build_test_loader(self, cfg: CfgNode, dataset_name: str) -> Iterable[Any]: ...


def evaluate_test_sets(
    builders: _Builders,
    cfg: CfgNode,
    model: nn.Module,
    evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
) -> Mapping[str, Any]:
    """Evaluate a model on all of `DATASETS.TEST`. All processes must call it.

    Args:
        builders: makes data loaders, and evaluators where none are given.
        cfg, model, evaluators: as in `DefaultTrainer.test`.

    Returns:
        Results by task; with several test sets, such a dict by the name of the set.
    """
    names = list(cfg.DATASETS.TEST)
    if isinstance(evaluators, DatasetEvaluator):
        evaluators = [evaluators]
    if evaluators is not None and len(evaluators) != len(names):
        raise UserValueError(f"{len(names)} test sets need as many evaluators, got {len(evaluators)}.")
    results: OrderedDict[str, Any] = OrderedDict()
    for index, name in enumerate(names):
        evaluator = evaluators[index] if evaluators else _build_if_known(builders, cfg, name)
        if evaluator is None:
            results[name] = {}
            continue
        results[name] = inference_on_dataset(model, builders.build_test_loader(cfg, name), evaluator)
        if comm.is_main_process():
            logger.info("Results of %s in CSV format:", name)
            print_csv_format(results[name])
    return results[names[0]] if len(names) == 1 else results


def _build_if_known(builders: _Builders, cfg: CfgNode, name: str) -> DatasetEvaluator | None:
    try:
        return builders.build_evaluator(cfg, name)
    except NotImplementedError as error:
        logger.warning("%s is not evaluated. %s", name, error)
        return None
