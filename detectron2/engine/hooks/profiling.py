"""Where time and memory go."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any

import torch

from detectron2.engine.train_loop.base import HookBase
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

logger = logging.getLogger(__name__)


class TorchProfiler(HookBase):
    """Profile the iterations that a predicate picks with `torch.profiler`.

    Example: `TorchProfiler(lambda trainer: 10 < trainer.iter < 13, cfg.OUTPUT_DIR)`. The traces open in
    chrome://tracing and perfetto, and in TensorBoard with its profiler plug-in.
    """

    def __init__(
        self,
        enable_predicate: Callable[[Any], bool],
        output_dir: str,
        *,
        activities: Iterable[torch.profiler.ProfilerActivity] | None = None,
        save_tensorboard: bool = True,
    ) -> None:
        """
        Args:
            enable_predicate: takes the trainer, tells whether to profile the coming iteration.
            output_dir: folder of the traces.
            activities: what to record; None is everything that this machine can record.
            save_tensorboard: write in TensorBoard's layout, below `output_dir/log`.
        """
        self._enable_predicate = enable_predicate
        self._output_dir = output_dir
        self._activities = activities
        self._save_tensorboard = save_tensorboard
        self._profiler: Any = None

    def before_step(self) -> None:
        if self._enable_predicate(self.trainer):
            self._profiler = self._make_profiler()
            self._profiler.__enter__()

    def _make_profiler(self) -> Any:
        return torch.profiler.profile(
            activities=None if self._activities is None else list(self._activities),
            on_trace_ready=self._tensorboard_handler() if self._save_tensorboard else None,
            record_shapes=True,
            profile_memory=True,
            with_stack=True,
            with_flops=True,
        )

    def _tensorboard_handler(self) -> Callable[[Any], None]:
        folder = os.path.join(self._output_dir, "log", f"profiler-tensorboard-iter{self.trainer.iter}")
        handler: Callable[[Any], None] = torch.profiler.tensorboard_trace_handler(
            folder, worker_name=f"worker{comm.get_rank()}"
        )
        return handler

    def after_step(self) -> None:
        if self._profiler is None:
            return
        profiler, self._profiler = self._profiler, None
        profiler.__exit__(None, None, None)
        if not self._save_tensorboard:
            PathManager.mkdirs(self._output_dir)
            name = f"profiler-trace-iter{self.trainer.iter}-rank{comm.get_rank()}.json"
            profiler.export_chrome_trace(os.path.join(self._output_dir, name))


class AutogradProfiler(TorchProfiler):
    """Profile with `torch.autograd.profiler`, which costs less and records less."""

    def __init__(
        self, enable_predicate: Callable[[Any], bool], output_dir: str, *, use_cuda: bool = True
    ) -> None:
        """
        Args:
            enable_predicate: takes the trainer, tells whether to profile the coming iteration.
            output_dir: folder of the traces.
            use_cuda: record GPU kernels too, where there is a GPU.
        """
        super().__init__(enable_predicate, output_dir, save_tensorboard=False)
        self._use_cuda = use_cuda and torch.cuda.is_available()

    def _make_profiler(self) -> Any:
        return torch.autograd.profiler.profile(use_device="cuda" if self._use_cuda else None)


class TorchMemoryStats(HookBase):
    """Log the GPU memory in use, the first few times only: it settles early in a run."""

    def __init__(self, period: int = 20, max_runs: int = 10) -> None:
        """
        Args:
            period: iterations between two lines.
            max_runs: number of lines in all.
        """
        self._period = period
        self._runs_left = max_runs

    def after_step(self) -> None:
        next_iter = self.trainer.iter + 1
        is_due = next_iter % self._period == 0 or next_iter == self.trainer.max_iter
        if not is_due or self._runs_left <= 0 or not torch.cuda.is_available() or not comm.is_main_process():
            return
        self._runs_left -= 1
        megabyte = 2**20
        logger.info(
            "iter: %d  reserved: %.0fM (max %.0fM)  allocated: %.0fM (max %.0fM)",
            self.trainer.iter,
            torch.cuda.memory_reserved() / megabyte,
            torch.cuda.max_memory_reserved() / megabyte,
            torch.cuda.memory_allocated() / megabyte,
            torch.cuda.max_memory_allocated() / megabyte,
        )
        # What comes next shall be compared with the next line, not with the allocations of the start.
        torch.cuda.reset_peak_memory_stats()
