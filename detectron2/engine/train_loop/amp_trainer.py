"""The training step in mixed precision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from detectron2.engine.train_loop.simple_trainer import SimpleTrainer
from detectron2.utils.events.storage import get_event_storage
from detectron2.utils.user_errors import UserValueError

__all__ = ["AMPTrainer"]


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
