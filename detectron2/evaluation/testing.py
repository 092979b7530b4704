"""Printing results and holding them against expected ones."""

from __future__ import annotations

import logging
import pprint
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from detectron2.utils.user_errors import UserTypeError

logger = logging.getLogger(__name__)


def print_csv_format(results: Mapping[str, Any]) -> None:
    """Log the main metrics of every task as comma-separated lines that paste into a spreadsheet.

    Per-category entries, which have a "-" in their name, are left out.

    Args:
        results: task name to metrics, as evaluators return it.
    """
    if not isinstance(results, Mapping):
        raise UserTypeError(f"results should map task names to metrics, got {type(results).__name__}")
    for task, metrics in results.items():
        if not isinstance(metrics, Mapping):
            logger.info("copypaste: %s=%s", task, metrics)
            continue
        main = {name: value for name, value in metrics.items() if "-" not in name}
        logger.info("copypaste: Task: %s", task)
        logger.info("copypaste: %s", ",".join(main))
        logger.info("copypaste: %s", ",".join(f"{value:.4f}" for value in main.values()))


def verify_results(cfg: Any, results: Mapping[str, Any]) -> bool:
    """Compare results with `cfg.TEST.EXPECTED_RESULTS`; end the program with status 1 where they disagree.

    Args:
        cfg: its `TEST.EXPECTED_RESULTS` lists `[task, metric, expected value, tolerance]` entries.
        results: task name to metrics.

    Returns:
        True when every expectation holds, also when there is none.
    """
    expectations = cfg.TEST.EXPECTED_RESULTS
    if not expectations:
        return True
    failures = []
    for task, metric, expected, tolerance in expectations:
        actual = results.get(task, {}).get(metric)
        if actual is None:
            failures.append(f"{task}/{metric}: expected {expected}, but the results do not have it")
        elif not np.isfinite(actual) or abs(actual - expected) > tolerance:
            failures.append(f"{task}/{metric}: expected {expected} +- {tolerance}, got {actual}")
    if failures:
        logger.error("Result verification failed:\n  %s", "\n  ".join(failures))
        logger.error("All results: %s", pprint.pformat(dict(results)))
        sys.exit(1)
    logger.info("Results verification passed.")
    return True


def flatten_results_dict(results: Mapping[str, Any]) -> dict[str, Any]:
    """Turn nested results into one level: `{"bbox": {"AP": 1}}` becomes `{"bbox/AP": 1}`."""
    flat: dict[str, Any] = {}
    for name, value in results.items():
        if isinstance(value, Mapping):
            flat.update((f"{name}/{inner}", leaf) for inner, leaf in flatten_results_dict(value).items())
        else:
            flat[name] = value
    return flat
