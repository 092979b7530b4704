"""Evaluating during and after training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from detectron2.engine.train_loop.base import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.user_errors import UserTypeError, UserValueError


class EvalHook(HookBase):
    """Run an evaluation function every so many iterations and after training, in all processes.

    Its results go into the storage: register the hook before what reads them (`BestCheckpointer`,
    `PeriodicWriter`).
    """

    def __init__(
        self,
        eval_period: int,
        eval_function: Callable[[], Mapping[str, Any] | None],
        eval_after_train: bool = True,
    ) -> None:
        """
        Args:
            eval_period: iterations between two evaluations; 0 evaluates after training only.
            eval_function: takes nothing, returns a dict of numbers, nested as deep as it likes. It may return
                nothing in all processes but the main one.
            eval_after_train: whether to evaluate when training has finished.
        """
        self._period = eval_period
        self._func: Callable[[], Mapping[str, Any] | None] | None = eval_function
        self._eval_after_train = eval_after_train

    def after_step(self) -> None:
        next_iter = self.trainer.iter + 1
        # The last iteration is left to after_train: evaluating the same weights twice helps nobody.
        if self._period > 0 and next_iter % self._period == 0 and next_iter != self.trainer.max_iter:
            self._do_eval()

    def after_train(self) -> None:
        # Not after an error. "+ 1" because trainers with their own loop end at max_iter - 1.
        if self._eval_after_train and self.trainer.iter + 1 >= self.trainer.max_iter:
            self._do_eval()
        # It is often a closure over the trainer; letting go of it frees the model.
        self._func = None

    def _do_eval(self) -> None:
        """Evaluate and put the results into the storage; a step that subclasses may override."""
        assert self._func is not None, "evaluation after the end of training"
        results = self._func()
        if results:
            self._put_scalars(results)
        # Processes without evaluation work wait here, and not in a gradient exchange with its timeout.
        comm.synchronize()

    def _put_scalars(self, results: Mapping[str, Any]) -> None:
        if not isinstance(results, Mapping):
            raise UserTypeError(f"The evaluation function must return a dict of numbers, got {results!r}")
        for name, value in flatten_results_dict(results).items():
            try:
                number = float(value)
            except (TypeError, ValueError):
                raise UserValueError(
                    f"The evaluation function must return a nested dict of numbers, but {name!r} is "
                    f"{value!r}."
                ) from None
            self.trainer.storage.put_scalar(name, number, smoothing_hint=False)
