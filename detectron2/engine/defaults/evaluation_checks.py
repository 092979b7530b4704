"""What would stop the evaluation at the end of a run, found before the run begins."""

from __future__ import annotations

import logging

from detectron2.config.config.node import CfgNode
from detectron2.data.build.class_ids import find_class_count_mismatch
from detectron2.data.catalog import MetadataCatalog
from detectron2.engine.evaluators import find_evaluator_type
from detectron2.utils.user_errors import UserValueError

logger = logging.getLogger(__name__)


def check_test_sets(cfg: CfgNode, has_own_evaluators: bool) -> None:
    """Look whether the data sets of `DATASETS.TEST` can be evaluated with the model of a config.

    Args:
        cfg: the config, with numbers of classes filled in.
        has_own_evaluators: the trainer makes other evaluators than `build_evaluator` does. They may get along
            with anything, so that findings are logged only.

    Raises:
        ValueError: a data set has more or fewer classes than the model.
    """
    for name in cfg.DATASETS.TEST:
        mismatch = find_class_count_mismatch(cfg, name)
        if has_own_evaluators:
            if MetadataCatalog.get(name).get("evaluator_type") is None:
                logger.warning(
                    "Data set %r of DATASETS.TEST has no evaluator_type in its metadata, which the trainer's "
                    "build_evaluator may ask for.",
                    name,
                )
            if mismatch is not None:
                logger.warning("%s It stands in DATASETS.TEST.", mismatch)
            continue
        try:
            find_evaluator_type(name)
        except NotImplementedError as error:
            logger.warning("%s will not be evaluated. %s", name, error)
            continue
        if mismatch is not None:
            raise UserValueError(
                f"{mismatch} It stands in DATASETS.TEST, and its evaluation would fail after the training."
            )
