"""The evaluator interface and the loop that runs a model over a data set for it."""

from __future__ import annotations

import datetime
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from detectron2.checkpoint.class_names import KINDS, require_same_classes
from detectron2.data.catalog import Metadata
from detectron2.utils.comm import get_world_size, is_main_process
from detectron2.utils.user_errors import UserValueError

logger = logging.getLogger(__name__)

_WARMUP_ITERATIONS = 5  # left out of the reported speed: allocation, autotuning and worker start-up
_LOG_PERIOD_SECONDS = 5
_STAGE_TITLES = (("Data loading", "data"), ("Inference", "compute"), ("Eval", "eval"))


class DatasetEvaluator:
    """Collect what a model says about a data set and turn it into numbers.

    The life of one evaluation is `reset()`, then `process()` once per batch, then `evaluate()`.
    """

    def reset(self) -> None:
        """Forget everything that was collected."""

    def process(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Take in one batch.

        Args:
            inputs: what the model was called with, one entry per image.
            outputs: what it returned, in the same order.
        """

    def evaluate(self) -> dict[str, Any] | None:
        """Score what was collected.

        Returns:
            On the main process a mapping from task ("bbox", "sem_seg", ...) to a mapping from metric name to
            number; on the others None or an empty mapping.
        """

    def scored_datasets(self) -> list[Metadata]:
        """Return the metadata of the data sets that it scores, as far as it says so by `_metadata`."""
        metadata = getattr(self, "_metadata", None)
        return [metadata] if isinstance(metadata, Metadata) else []


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators that see the same batches."""

    def __init__(self, evaluators: Sequence[DatasetEvaluator]) -> None:
        super().__init__()
        self._evaluators = evaluators

    def reset(self) -> None:
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def scored_datasets(self) -> list[Metadata]:
        return [found for evaluator in self._evaluators for found in _scored_datasets(evaluator)]

    def evaluate(self) -> dict[str, Any]:
        """Merge the results of all evaluators.

        Raises:
            ValueError: two evaluators report the same task.
        """
        merged: OrderedDict[str, Any] = OrderedDict()
        for evaluator in self._evaluators:
            partial = evaluator.evaluate()  # every process runs it: it may contain collective calls
            if not partial or not is_main_process():
                continue
            repeated = merged.keys() & partial.keys()
            if repeated:
                raise UserValueError(
                    f"two evaluators report the same task(s) {sorted(repeated)}; the second one is "
                    f"{type(evaluator).__name__}. Leave one out, or rename the task in its results"
                )
            merged.update(partial)
        return merged


class _StageTimes:
    """Seconds spent on loading, computing and evaluating, without the first iterations."""

    def __init__(self, num_batches: int | None) -> None:
        self.num_batches = num_batches
        known = num_batches if num_batches is not None else _WARMUP_ITERATIONS + 1
        self.num_warmup = min(_WARMUP_ITERATIONS, max(known - 1, 0))
        self.num_done = 0
        self.seconds = {"data": 0.0, "compute": 0.0, "eval": 0.0}
        self._counted_since = time.perf_counter()
        self._reported_at = -float("inf")

    def add(self, **seconds: float) -> None:
        if self.num_done == self.num_warmup:
            self.seconds = dict.fromkeys(self.seconds, 0.0)
            self._counted_since = time.perf_counter() - sum(seconds.values())
        self.num_done += 1
        for stage, value in seconds.items():
            self.seconds[stage] += value

    @property
    def num_counted(self) -> int:
        return max(self.num_done - self.num_warmup, 0) or max(self.num_done, 1)

    def per_batch(self, stage: str) -> float:
        return self.seconds[stage] / self.num_counted

    @property
    def total(self) -> float:
        return time.perf_counter() - self._counted_since

    def is_report_due(self) -> bool:
        """Whether some seconds have passed since this was true for the last time."""
        now = time.perf_counter()
        if self.num_done <= self.num_warmup or now - self._reported_at < _LOG_PERIOD_SECONDS:
            return False
        self._reported_at = now
        return True

    def progress_line(self) -> str:
        seconds_per_batch = self.total / self.num_counted
        line = f"Inference done {self.num_done}/{self.num_batches if self.num_batches is not None else '?'}. "
        line += " ".join(f"{name}: {self.per_batch(stage):.4f} s/batch." for name, stage in _STAGE_TITLES)
        line += f" Total: {seconds_per_batch:.4f} s/batch."
        if self.num_batches is not None:
            remaining = seconds_per_batch * (self.num_batches - self.num_done)
            line += f" ETA={datetime.timedelta(seconds=int(remaining))}"
        return line

    def closing_line(self, seconds: float, num_devices: int) -> str:
        took = datetime.timedelta(seconds=int(seconds))
        return (
            f"Inference on {self.num_done} batches took {took} ({self.total / self.num_counted:.4f} s/batch "
            f"per device, on {num_devices} devices); the model alone took {self.per_batch('compute'):.4f} "
            "s/batch"
        )


def _as_evaluator(evaluator: DatasetEvaluator | Sequence[DatasetEvaluator] | None) -> DatasetEvaluator:
    if evaluator is None:
        return DatasetEvaluators([])
    if isinstance(evaluator, DatasetEvaluator) or not isinstance(evaluator, (list, tuple)):
        return evaluator  # type: ignore[return-value]  # duck-typed evaluators of users are welcome
    return DatasetEvaluators(evaluator)


def _scored_datasets(evaluator: Any) -> list[Metadata]:
    find = getattr(evaluator, "scored_datasets", None)
    return find() if find is not None else []


def inference_on_dataset(
    model: Callable[[Any], Any] | nn.Module,
    data_loader: Iterable[Any],
    evaluator: DatasetEvaluator | list[DatasetEvaluator] | None,
    callbacks: Mapping[str, Callable[[], Any]] | None = None,
) -> dict[str, Any]:
    """Run a model over a data loader, feed an evaluator, and return its results.

    Progress is logged with the time that loading, the model and the evaluator take per batch, and with an
    ETA. The model is put into evaluation mode and back.

    Args:
        model: a callable from one batch to a sequence of outputs; an `nn.Module` or any other.
        data_loader: yields batches, with or without a length.
        evaluator: one, several, or None to only run (and time) the model.
        callbacks: functions without arguments, called at "on_start", "before_inference", "after_inference"
            (both around every batch) and "on_end".

    Returns:
        What `evaluator.evaluate()` returns; an empty dict in place of None.

    Raises:
        ValueError: the checkpoint of the model knows other classes, or another order, than the data set that
            is scored.
    """
    num_batches = len(data_loader) if isinstance(data_loader, Sized) else None
    num_devices = get_world_size()
    logger.info(
        "Start inference on %s batches", num_batches if num_batches is not None else "an unknown number of"
    )
    evaluator = _as_evaluator(evaluator)
    for metadata in _scored_datasets(evaluator):
        require_same_classes(model, metadata.name, {kind: metadata.get(kind) for kind in KINDS})
    evaluator.reset()

    def call(stage: str) -> None:
        function = (callbacks or {}).get(stage)
        if function is not None:
            function()

    times = _StageTimes(num_batches)
    started = time.perf_counter()
    with ExitStack() as stack:
        if isinstance(model, nn.Module):
            stack.enter_context(inference_context(model))
        stack.enter_context(torch.no_grad())
        call("on_start")
        _run_batches(model, data_loader, evaluator, call, times)
        call("on_end")

    logger.info(times.closing_line(time.perf_counter() - started, num_devices))
    if not times.num_done:
        logger.warning("The data loader gave no batch: there is nothing to evaluate")
    return evaluator.evaluate() or {}


def _run_batches(
    model: Callable[[Any], Any],
    data_loader: Iterable[Any],
    evaluator: DatasetEvaluator,
    call: Callable[[str], None],
    times: _StageTimes,
) -> None:
    """Run the model on every batch and hand its outputs to the evaluator; `call` runs a callback by name."""
    mark = time.perf_counter()
    for inputs in data_loader:
        loaded = time.perf_counter()
        call("before_inference")
        outputs = model(inputs)
        call("after_inference")
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # without it the evaluator would be charged for the model's kernels
        computed = time.perf_counter()
        evaluator.process(inputs, outputs)
        done = time.perf_counter()
        times.add(data=loaded - mark, compute=computed - loaded, eval=done - computed)
        mark = done
        if times.is_report_due():
            logger.info(times.progress_line())


@contextmanager
def inference_context(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for the length of a `with` block, also when the block raises."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        # One by one: a training model may hold frozen parts in evaluation mode.
        for module, was_training in modes:
            module.training = was_training
