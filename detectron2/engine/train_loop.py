"""The training loop, its hooks' interface, and one training step in full and in mixed precision.

`TrainerBase` knows iterations and hooks, `SimpleTrainer` what happens in one iteration, `AMPTrainer` the
same in lower precision. What a whole run needs beyond that (configs, checkpoints, evaluation) is in
`defaults`.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from detectron2.engine.loss_metrics import LossRecord, name_images, write_losses
from detectron2.utils.events import EventStorage, get_event_storage
from detectron2.utils.user_errors import (
    UserNotImplementedError,
    UserTypeError,
    UserValueError,
    describe_error,
    is_for_user,
)

__all__ = ["AMPTrainer", "HookBase", "SimpleTrainer", "TrainerBase"]

logger = logging.getLogger(__name__)


class HookBase:
    """Something that a trainer does around its steps. Every method does nothing until a subclass overrides
    it.

    The trainer calls its hooks, in the order in which they were registered:

        hook.before_train()
        for iter in range(start_iter, max_iter):
            hook.before_step()
            trainer.run_step()      # calls hook.after_backward() between the gradients and the update
            hook.after_step()
            iter += 1
        hook.after_train()          # also when the training fails

    A hook reads `self.trainer.iter`: the current iteration in the step methods; in `after_train` the
    number of finished iterations, which is `max_iter` exactly when all were done.
    """

    trainer: TrainerBase = None  # type: ignore[assignment]  # set by register_hooks, before any method is called
    """The trainer that the hook is registered to."""

    def before_train(self) -> None:
        """Called before the first iteration."""

    def after_train(self) -> None:
        """Called after the last iteration, and after an exception that ends the training."""

    def before_step(self) -> None:
        """Called before each iteration."""

    def after_backward(self) -> None:
        """Called in each iteration when the gradients are there and the weights are not updated yet."""

    def after_step(self) -> None:
        """Called after each iteration."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold to continue this hook. A hook that has state also defines
        `load_state_dict(state)`."""
        return {}


class TrainerBase:
    """Run `run_step` between two iterations and call hooks around it.

    Attributes:
        iter: the current iteration.
        start_iter: the iteration that this run started with.
        max_iter: the iteration that this run ends before.
        storage: the `EventStorage` of this run, once `train` was called.
    """

    def __init__(self) -> None:
        self._hooks: list[HookBase] = []
        self.iter: int = 0
        self.start_iter: int = 0
        self.max_iter: int
        self.storage: EventStorage

    def register_hooks(self, hooks: list[HookBase | None]) -> None:
        """Add hooks behind those that are registered already; None entries are left out.

        Args:
            hooks: the hooks, in the order in which they will be called.
        """
        for hook in hooks:
            if hook is None:
                continue
            if not isinstance(hook, HookBase):
                raise UserTypeError(f"A hook must be a HookBase, got {type(hook).__name__}: {hook!r}")
            # A strong reference would be a cycle, and keep models alive on the GPU after their trainer is
            # gone.
            hook.trainer = weakref.proxy(self)
            self._hooks.append(hook)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Train from `start_iter` (included) to `max_iter` (excluded)."""
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        if start_iter < max_iter:
            logger.info("Training from iteration %d to %d", start_iter, max_iter)
        else:
            logger.warning(self._describe_empty_run())

        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                while self.iter < max_iter:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
            except Exception as error:
                logger.error(
                    "Training stopped in iteration %d: %s",
                    self.iter,
                    describe_error(error),
                    exc_info=not is_for_user(error),  # a traceback is for bugs
                )
                raise
            finally:
                self.after_train()

    def _describe_empty_run(self) -> str:
        return (
            f"Nothing is trained: the run would start at iteration {self.start_iter}, and ends before "
            f"iteration {self.max_iter}."
        )

    def before_train(self) -> None:
        for hook in self._hooks:
            hook.before_train()

    def after_train(self) -> None:
        self.storage.iter = self.iter
        errors: list[Exception] = []
        for hook in self._hooks:
            # A hook that fails must not keep the writers behind it from flushing.
            try:
                hook.after_train()
            except Exception as error:
                logger.error("%s failed after training: %s", type(hook).__name__, error)
                errors.append(error)
        if errors:
            raise errors[0]

    def before_step(self) -> None:
        # Hooks may have put the storage elsewhere; events of this iteration belong to this iteration.
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.before_step()

    def after_backward(self) -> None:
        for hook in self._hooks:
            hook.after_backward()

    def after_step(self) -> None:
        for hook in self._hooks:
            hook.after_step()

    def run_step(self) -> None:
        """Do one iteration."""
        raise UserNotImplementedError(f"{type(self).__name__} must implement run_step()")

    def state_dict(self) -> dict[str, Any]:
        """Return the iteration and the hooks' state by class name; of two hooks of a class, the first's."""
        state: dict[str, Any] = {"iteration": self.iter}
        hook_states: dict[str, Any] = {}
        for hook in self._hooks:
            name = type(hook).__qualname__
            hook_state = hook.state_dict()
            if hook_state and name not in hook_states:
                hook_states[name] = hook_state
        if hook_states:
            state["hooks"] = hook_states
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned: training goes on behind the stored iteration."""
        self.iter = state_dict["iteration"]
        for name, hook_state in state_dict.get("hooks", {}).items():
            hook = next((hook for hook in self._hooks if type(hook).__qualname__ == name), None)
            if hook is None or not hasattr(hook, "load_state_dict"):
                logger.warning(
                    "The checkpoint holds the state of a hook %r; no such hook takes it here.", name
                )
                continue
            hook.load_state_dict(hook_state)


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
        self._delayed_metrics: LossRecord | None = None

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
        if self.async_write_metrics:
            current = LossRecord(loss_dict, data_time, self.iter, prefix, self._image_names)
            previous, self._delayed_metrics = self._delayed_metrics, current
        else:
            previous = LossRecord(loss_dict, data_time, self.iter, prefix, self._image_names)
        if previous is not None:
            previous.write(self.write_metrics)

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
        write_losses(loss_dict, data_time, cur_iter, prefix)

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        state["optimizer"] = self.optimizer.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])

    def after_train(self) -> None:
        try:
            self._flush_metrics()
        finally:
            super().after_train()

    def _flush_metrics(self) -> None:
        """Write what `async_write_metrics` has kept back."""
        delayed, self._delayed_metrics = self._delayed_metrics, None
        if delayed is not None:
            delayed.write(self.write_metrics)


class AMPTrainer(SimpleTrainer):
    """`SimpleTrainer` with the forward pass in automatic mixed precision; weights stay in float32."""

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        grad_scaler: torch.amp.GradScaler | None = None,
        precision: torch.dtype = torch.float16,
        log_grad_scaler: bool = False,
        async_write_metrics: bool = False,
    ) -> None:
        """
        Args:
            model: as in `SimpleTrainer`.
            data_loader: as in `SimpleTrainer`.
            optimizer: as in `SimpleTrainer`.
            gather_metric_period: as in `SimpleTrainer`.
            zero_grad_before_forward: as in `SimpleTrainer`.
            grad_scaler: scales losses so that float16 gradients do not vanish. None means: a default one for
                float16, none for bfloat16, whose range is that of float32.
            precision: `torch.float16` (CUDA only) or `torch.bfloat16` (CUDA and CPU).
            log_grad_scaler: write the scale as a metric.
            async_write_metrics: as in `SimpleTrainer`.
        """
        if isinstance(model, DataParallel) or (
            isinstance(model, DistributedDataParallel) and len(model.device_ids or []) > 1
        ):
            raise UserValueError(
                "AMPTrainer needs one process per device; this model is spread over several."
            )
        super().__init__(
            model,
            data_loader,
            optimizer,
            gather_metric_period,
            zero_grad_before_forward,
            async_write_metrics=async_write_metrics,
        )
        device_type = next(model.parameters()).device.type
        if precision not in (torch.float16, torch.bfloat16):
            raise UserValueError(f"precision must be torch.float16 or torch.bfloat16, got {precision}")
        if precision == torch.float16 and device_type == "cpu":
            raise UserValueError(
                "float16 training needs a GPU, and the model is on the CPU. Use bfloat16 there: "
                "SOLVER.AMP.DTYPE bfloat16, or switch it off: SOLVER.AMP.ENABLED False."
            )
        self.precision = precision
        self.log_grad_scaler = log_grad_scaler
        self._device_type = device_type
        if grad_scaler is None:
            grad_scaler = torch.amp.GradScaler(device_type, enabled=precision == torch.float16)
        self.grad_scaler = grad_scaler

    def run_step(self) -> None:
        super().run_step()
        if self.log_grad_scaler:
            get_event_storage().put_scalar("[metric]grad_scaler", self.grad_scaler.get_scale())

    def _forward_context(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._device_type, dtype=self.precision)

    def _backward(self, total: Tensor) -> None:
        self.grad_scaler.scale(total).backward()

    def _optimizer_step(self) -> None:
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        # Empty where nothing is scaled; the key is there either way.
        state["grad_scaler"] = self.grad_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        # A checkpoint of a float32 or bfloat16 run has no scale: the default one adapts within some steps.
        if state_dict.get("grad_scaler") and self.grad_scaler.is_enabled():
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
