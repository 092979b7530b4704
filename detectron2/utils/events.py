"""Numbers, pictures and histograms of a run: one storage that collects them, writers that publish them.

Code anywhere below a training loop calls `get_event_storage().put_scalar(...)`; the loop owns the storage and
decides when the writers look at it. Nothing here knows what a model or a trainer is.
"""

from __future__ import annotations

import datetime
import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Any

import torch
from fvcore.common.history_buffer import HistoryBuffer

from detectron2.utils.file_io import PathManager

from .user_errors import UserImportError, UserKeyError, UserNotImplementedError, UserValueError

__all__ = [
    "CommonMetricPrinter",
    "EventStorage",
    "EventWriter",
    "JSONWriter",
    "TensorboardXWriter",
    "get_event_storage",
    "has_event_storage",
]

# A plain list and not a context variable: worker threads of a trainer write to the storage of the main
# thread.
_CURRENT_STORAGE_STACK: list[EventStorage] = []


def get_event_storage() -> EventStorage:
    """Return the storage of the innermost `with EventStorage(...)` block.

    Raises:
        RuntimeError: no such block is active.
    """
    if not _CURRENT_STORAGE_STACK:
        raise RuntimeError(
            "get_event_storage() was called, but no EventStorage is active. Training loops open one; "
            "elsewhere run the code inside `with EventStorage(): ...`."
        )
    return _CURRENT_STORAGE_STACK[-1]


def has_event_storage() -> bool:
    """Tell whether `get_event_storage` would succeed."""
    return bool(_CURRENT_STORAGE_STACK)


class EventStorage:
    """Collect scalars (with their history), images and histograms under the iteration they belong to."""

    def __init__(self, start_iter: int = 0) -> None:
        """
        Args:
            start_iter: the iteration that the next event belongs to.
        """
        self._iter = int(start_iter)
        self._current_prefix = ""
        self._history: defaultdict[str, HistoryBuffer] = defaultdict(HistoryBuffer)
        self._latest_scalars: dict[str, tuple[float, int]] = {}
        self._smoothing_hints: dict[str, bool] = {}
        self._vis_data: list[tuple[str, Any, int]] = []
        self._histograms: list[dict[str, Any]] = []

    def put_scalar(
        self, name: str, value: Any, smoothing_hint: bool = True, cur_iter: int | None = None
    ) -> None:
        """Add one value to the history of a scalar.

        Args:
            name: the scalar's name; the active name scope is put in front.
            value: a number or a tensor with one element.
            smoothing_hint: whether writers should show a median over recent iterations (noisy values such as
                losses) or the value itself (results, learning rates). One name keeps one hint.
            cur_iter: the iteration of the value, where it is not the storage's own.
        """
        name = self._current_prefix + name
        if self._smoothing_hints.setdefault(name, smoothing_hint) != smoothing_hint:
            raise UserValueError(
                f"Scalar {name!r} was first put with smoothing_hint={not smoothing_hint}, and now with "
                f"smoothing_hint={smoothing_hint}. Use the same hint, or two names."
            )
        iteration = self._iter if cur_iter is None else cur_iter
        number = float(value)
        self._history[name].update(number, iteration)
        self._latest_scalars[name] = (number, iteration)

    def put_scalars(self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **kwargs: Any) -> None:
        """Add one value to each of several scalars, given as `name=value`."""
        for name, value in kwargs.items():
            self.put_scalar(name, value, smoothing_hint=smoothing_hint, cur_iter=cur_iter)

    def put_image(self, img_name: str, img_tensor: Any) -> None:
        """Add an image for writers that can show it.

        Args:
            img_name: the image's name.
            img_tensor: (C, H, W) tensor or array, RGB; uint8 in [0, 255] or float in [0, 1].
        """
        self._vis_data.append((img_name, img_tensor, self._iter))

    def put_histogram(self, hist_name: str, hist_tensor: torch.Tensor, bins: int = 1000) -> None:
        """Add the histogram of a tensor's values.

        Args:
            hist_name: the histogram's name.
            hist_tensor: a tensor of any shape with at least one element.
            bins: number of equal bins between the smallest and the largest value.
        """
        values = hist_tensor.detach().float().cpu()
        lowest, highest = values.min().item(), values.max().item()
        edges = torch.linspace(lowest, highest, bins + 1)
        # The keys are the arguments of SummaryWriter.add_histogram_raw.
        self._histograms.append(
            {
                "tag": hist_name,
                "min": lowest,
                "max": highest,
                "num": values.numel(),
                "sum": values.sum().item(),
                "sum_squares": values.square().sum().item(),
                "bucket_limits": edges[1:].tolist(),
                "bucket_counts": torch.histc(values, bins).tolist(),
                "global_step": self._iter,
            }
        )

    def history(self, name: str) -> HistoryBuffer:
        """Return the history of one scalar.

        Raises:
            KeyError: the scalar was never put.
        """
        if name not in self._history:
            known = ", ".join(sorted(self._history)) or "none"
            raise UserKeyError(f"No scalar named {name!r} was put into this storage. There are: {known}.")
        return self._history[name]

    def histories(self) -> Mapping[str, HistoryBuffer]:
        """Return the history of every scalar by name."""
        return self._history

    def latest(self) -> dict[str, tuple[float, int]]:
        """Return the latest value of every scalar and the iteration it belongs to."""
        return self._latest_scalars

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """Return what `latest` does, with a median instead of the value for scalars hinted as noisy.

        Args:
            window_size: the median is over the values of this many last iterations.
        """
        return {
            name: (self._smoothed(name, window_size) if self._smoothing_hints[name] else value, iteration)
            for name, (value, iteration) in list(self._latest_scalars.items())
        }

    def _smoothed(self, name: str, window_size: int) -> float:
        return float(self._history[name].median(self.count_samples(name, window_size)))

    def count_samples(self, name: str, window_size: int = 20) -> int:
        """Count the values of a scalar that belong to its last `window_size` iterations.

        A scalar that is put only now and then (or several times per iteration) has another number of values
        than iterations, and a median should not reach back further than the window.
        """
        values = self._history[name].values()
        if not values:
            return 0
        oldest = values[-1][1] - window_size
        # Histories grow to many thousands of values: look at the tail only.
        count = 0
        for _, iteration in reversed(values):
            if iteration <= oldest:
                break
            count += 1
        return count

    def smoothing_hints(self) -> dict[str, bool]:
        """Return the smoothing hint of every scalar by name."""
        return self._smoothing_hints

    def step(self) -> None:
        """Move to the next iteration. Events put before and after belong to different ones."""
        self._iter += 1

    @property
    def iter(self) -> int:
        """The iteration that new events belong to; a trainer keeps it equal to its own."""
        return self._iter

    @iter.setter
    def iter(self, val: int) -> None:
        self._iter = int(val)

    @property
    def iteration(self) -> int:
        """Another name of `iter`, kept for code written against early versions of the interface."""
        return self._iter

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Put `name/` in front of the scalars that are put inside the `with` block."""
        outer = self._current_prefix
        self._current_prefix = name.rstrip("/") + "/"
        try:
            yield
        finally:
            self._current_prefix = outer

    def clear_images(self) -> None:
        """Forget all images: a writer calls it once it has shown them."""
        self._vis_data = []

    def clear_histograms(self) -> None:
        """Forget all histograms: a writer calls it once it has shown them."""
        self._histograms = []

    def __enter__(self) -> EventStorage:
        _CURRENT_STORAGE_STACK.append(self)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert _CURRENT_STORAGE_STACK[-1] is self, (
            "EventStorage blocks were closed in another order than opened"
        )
        _CURRENT_STORAGE_STACK.pop()


class EventWriter:
    """Base of everything that reads the current storage from time to time and publishes what is new."""

    def write(self) -> None:
        """Publish what the current storage has got since the last call."""
        raise UserNotImplementedError(f"{type(self).__name__} must implement write()")

    def close(self) -> None:
        """Release files and connections. Called once, after the last `write`."""


class JSONWriter(EventWriter):
    """Append one JSON object per iteration to a file, so that a run that is resumed continues its own file.

    Each line holds "iteration" and the scalars that belong to it, e.g.
    `{"iteration": 19, "loss_cls": 1.52, "lr": 0.02}`. NaN is written as `NaN`, which Python's and pandas'
    readers accept.
    """

    def __init__(self, json_file: str, window_size: int = 20) -> None:
        """
        Args:
            json_file: the file to append to; it is created where there is none.
            window_size: window of the median, see `EventStorage.latest_with_smoothing_hint`.
        """
        self._path = json_file
        self._window_size = window_size
        self._last_write = -1
        self._file_handle: IO[str] | None = None

    def _open(self) -> IO[str]:
        # At the first write and not before: a trainer that is built and never run leaves nothing behind.
        if self._file_handle is None:
            # A killed run can leave half a line; the next line must not be glued to it.
            cut_short = _ends_without_newline(self._path)
            self._file_handle = PathManager.open(self._path, "a")
            if cut_short:
                self._file_handle.write("\n")
        return self._file_handle

    def write(self) -> None:
        per_iteration: defaultdict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, iteration) in (
            get_event_storage().latest_with_smoothing_hint(self._window_size).items()
        ):
            if iteration > self._last_write:
                per_iteration[iteration][name] = value
        if not per_iteration:
            return
        self._last_write = max(per_iteration)
        file = self._open()
        for iteration in sorted(per_iteration):
            scalars = {"iteration": iteration, **per_iteration[iteration]}
            file.write(json.dumps(scalars, sort_keys=True) + "\n")
        file.flush()

    def close(self) -> None:
        if self._file_handle is not None:
            self._file_handle.close()


def _ends_without_newline(path: str) -> bool:
    if not PathManager.isfile(path):
        return False
    with PathManager.open(path, "rb") as file:
        if file.seek(0, 2) == 0:
            return False
        file.seek(-1, 2)
        return file.read(1) != b"\n"


class TensorboardXWriter(EventWriter):
    """Write scalars, images and histograms as TensorBoard event files."""

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs: Any) -> None:
        """
        Args:
            log_dir: folder of the event files.
            window_size: window of the median, see `EventStorage.latest_with_smoothing_hint`.
            kwargs: further arguments of `torch.utils.tensorboard.SummaryWriter`.

        Raises:
            ImportError: the tensorboard package is not installed.
        """
        self._window_size = window_size
        self._last_write = -1
        try:
            from torch.utils.tensorboard import SummaryWriter  # optional dependency
        except ImportError as error:
            raise UserImportError(
                "TensorboardXWriter needs the package 'tensorboard', which is not installed. Install it with "
                "`pip install tensorboard`, or leave this writer out: metrics.json holds the same numbers."
            ) from error
        self._writer = SummaryWriter(log_dir, **kwargs)

    def write(self) -> None:
        storage = get_event_storage()
        newest = self._last_write
        for name, (value, iteration) in storage.latest_with_smoothing_hint(self._window_size).items():
            if iteration > self._last_write:
                self._writer.add_scalar(name, value, iteration)
                newest = max(newest, iteration)
        self._last_write = newest
        for name, image, iteration in storage._vis_data:
            self._writer.add_image(name, image, iteration)
        storage.clear_images()
        for histogram in storage._histograms:
            self._writer.add_histogram_raw(**histogram)
        storage.clear_histograms()

    def close(self) -> None:
        self._writer.close()


class CommonMetricPrinter(EventWriter):
    """Log one line: time left, iteration, losses, seconds per iteration, learning rate and GPU memory."""

    def __init__(self, max_iter: int | None = None, window_size: int = 20) -> None:
        """
        Args:
            max_iter: the last iteration of the run; without it there is no estimate of the time left.
            window_size: losses and times are medians over this many iterations.
        """
        self.logger = logging.getLogger(__name__)
        self._max_iter = max_iter
        self._window_size = window_size
        self._last_write: tuple[int, float] | None = None  # iteration and time of the previous line

    def write(self) -> None:
        storage = get_event_storage()
        iteration = storage.iter
        if iteration == self._max_iter:
            # Hooks that run after the last step reach here once more, with nothing new to say.
            return
        parts = [
            self._eta_text(storage),
            f"iter: {iteration}",
            *self._loss_texts(storage),
            *self._time_texts(storage),
            self._lr_text(storage),
        ]
        if torch.cuda.is_available():
            parts.append(f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M")
        self.logger.info("  ".join(part for part in parts if part))

    def _eta_text(self, storage: EventStorage) -> str:
        seconds = self._seconds_left(storage)
        return "" if seconds is None else f"eta: {datetime.timedelta(seconds=int(seconds))}"

    def _seconds_left(self, storage: EventStorage) -> float | None:
        if self._max_iter is None:
            return None
        iterations_left = self._max_iter - storage.iter - 1
        if "time" in storage.histories():
            seconds = storage.history("time").median(1000) * iterations_left
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
            return float(seconds)
        # A loop without an IterationTimer: measure between two lines.
        now, previous = time.perf_counter(), self._last_write
        self._last_write = (storage.iter, now)
        if previous is None or previous[0] == storage.iter:
            return None
        return (now - previous[1]) / (storage.iter - previous[0]) * iterations_left

    def _loss_texts(self, storage: EventStorage) -> list[str]:
        names = [name for name in storage.histories() if "loss" in name]
        return [f"{name}: {storage._smoothed(name, self._window_size):.4g}" for name in names]

    def _time_texts(self, storage: EventStorage) -> list[str]:
        texts = []
        for name in ("time", "data_time"):
            if name in storage.histories():
                buffer = storage.history(name)
                average = buffer.avg(storage.count_samples(name, self._window_size))
                texts += [f"{name}: {average:.4f}", f"last_{name}: {buffer.latest():.4f}"]
        return texts

    @staticmethod
    def _lr_text(storage: EventStorage) -> str:
        return f"lr: {storage.history('lr').latest():.5g}" if "lr" in storage.histories() else ""
