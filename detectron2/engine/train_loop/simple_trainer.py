"""One training step in full: a batch, losses, gradients, an update."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from detectron2.engine.train_loop.base import TrainerBase
from detectron2.engine.train_loop.step_record import StepRecord, name_images
from detectron2.utils.user_errors import UserTypeError

__all__ = ["SimpleTrainer"]


class SimpleTrainer(TrainerBase):
    """Train one model with one optimizer and one data loader: a batch, losses, gradients, an update.

    For anything else subclass `TrainerBase` and write the `run_step` you need; for another precision or
    another way to get gradients override the small methods that `run_step` calls.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        async_write_metrics: bool = False,
    ) -> None:
        """
        Args:
            model: takes a batch of the data loader, returns a dict of scalar losses, or one loss. It is
                put into training mode.
            data_loader: an iterable that does not end.
            optimizer: made for the model's parameters.
            gather_metric_period: average the losses over all processes, write them and check that they are
                finite every so many iterations. Larger values save communication on many machines.
            zero_grad_before_forward: clear the gradients before the forward pass and not after it. This frees
                their memory during the forward pass.
            async_write_metrics: write the losses of an iteration in the next one, so that no iteration
                waits for the GPU. The check for non-finite losses then comes one iteration, and one
                update, late.
        """
        super().__init__()
        model.train()
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.gather_metric_period = gather_metric_period
        self.zero_grad_before_forward = zero_grad_before_forward
        self.async_write_metrics = async_write_metrics
        self._data_loader_iter_obj: Iterator[Any] | None = None
        self._image_names: list[str] = []
        self._delayed_record: StepRecord | None = None

    def run_step(self) -> None:
        if not self.model.training:
            raise RuntimeError(
                f"{type(self).__name__} found its model in evaluation mode. A hook or callback that calls "
                "model.eval() must call model.train() when it is done."
            )
        batch, data_time = self._next_batch()
        if self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        with self._forward_context():
            losses = self._as_loss_dict(self.model(batch))
            total: Tensor = sum(losses.values())  # type: ignore[assignment]  # there is at least one
        if not self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        self._backward(total)
        self.after_backward()
        self._write_metrics(losses, data_time)  # raises on non-finite losses, before the weights change
        self._optimizer_step()

    def _next_batch(self) -> tuple[Any, float]:
        """Return the next batch and the seconds that it was waited for."""
        start = time.perf_counter()
        try:
            batch = next(self._data_loader_iter)
        except StopIteration:
            raise RuntimeError(
                f"The data loader ended in iteration {self.iter}. A training loader must not end: give it an "
                "endless sampler such as TrainingSampler."
            ) from None
        data_time = time.perf_counter() - start
        self._image_names = name_images(batch)
        return batch, data_time

    @property
    def _data_loader_iter(self) -> Iterator[Any]:
        # Made by the first step and not in __init__: worker processes start here.
        if self._data_loader_iter_obj is None:
            self._data_loader_iter_obj = iter(self.data_loader)
        return self._data_loader_iter_obj

    def reset_data_loader(self, data_loader_builder: Callable[[], Iterable[Any]]) -> None:
        """Replace the data loader, letting go of the old one first so that two never hold memory.

        Args:
            data_loader_builder: makes the new data loader.
        """
        del self.data_loader
        self._data_loader_iter_obj = None
        self.data_loader = data_loader_builder()

    def _forward_context(self) -> AbstractContextManager[Any]:
        return nullcontext()

    @staticmethod
    def _as_loss_dict(output: Any) -> dict[str, Tensor]:
        """Accept what models return: a dict of losses, or a single loss."""
        if isinstance(output, Tensor):
            return {"total_loss": output}
        if not isinstance(output, Mapping) or not output:
            raise UserTypeError(
                "In training mode a model must return a scalar loss or a dict of at least one scalar loss, "
                f"got {type(output).__name__}: {output!r}"
            )
        return dict(output)

    def _backward(self, total: Tensor) -> None:
        total.backward()

    def _optimizer_step(self) -> None:
        self.optimizer.step()

    def _write_metrics(self, loss_dict: Mapping[str, Tensor], data_time: float, prefix: str = "") -> None:
        if (self.iter + 1) % self.gather_metric_period:
            return
        record: StepRecord | None = StepRecord(
            self.iter, loss_dict, data_time, prefix=prefix, image_names=self._image_names
        )
        if self.async_write_metrics:
            record, self._delayed_record = self._delayed_record, record
        if record is not None:
            record.write()

    @staticmethod
    def write_metrics(
        loss_dict: Mapping[str, Tensor], data_time: float, cur_iter: int, prefix: str = ""
    ) -> None:
        """Average losses over all processes and put them into the storage. All processes must call it.

        Args:
            loss_dict: scalar losses of this process.
            data_time: seconds that this process waited for the batch; the slowest process is written.
            cur_iter: the iteration that the losses belong to.
            prefix: put in front of the name of the summed loss.

        Raises:
            FloatingPointError: a loss is NaN or infinite, in any process. It is raised in all of them, so
                that none waits for another.
        """
        StepRecord(cur_iter, loss_dict, data_time, prefix=prefix).write()

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        state["optimizer"] = self.optimizer.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])

    def after_train(self) -> None:
        try:
            self.flush_metrics()
        finally:
            super().after_train()

    def flush_metrics(self) -> None:
        """Write what `async_write_metrics` has kept back."""
        record, self._delayed_record = self._delayed_record, None
        if record is not None:
            record.write()
