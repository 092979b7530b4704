"""Writers that publish what the storage holds: the console, a file of JSON lines, TensorBoard."""

from __future__ import annotations

import datetime
import functools
import json
import logging
import math
import time
from collections import defaultdict
from typing import IO, Any

import torch

from detectron2.utils.events.storage import EventStorage, get_event_storage
from detectron2.utils.file_io import PathManager, set_aside
from detectron2.utils.user_errors import UserNotImplementedError

logger = logging.getLogger(__name__)

__all__ = ["CommonMetricPrinter", "EventWriter", "JSONWriter", "TensorboardXWriter"]


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
    `{"iteration": 19, "loss_cls": 1.52, "lr": 0.02}`. NaN and infinities, which JSON does not have, are null.
    The file holds one run: one that starts at iteration 0 sets the file of an earlier run aside under the
    next free name, such as `metrics_1.json`.
    """

    def __init__(self, json_file: str, window_size: int = 20) -> None:
        """
        Args:
            json_file: the file to append to; it is created where there is none.
            window_size: the medians of noisy scalars are over this many last iterations.
        """
        self._path = json_file
        self._window_size = window_size
        self._last_write = -1
        self._file_handle: IO[str] | None = None

    def _open(self) -> IO[str]:
        # At the first write and not before: a trainer that is built and never run leaves nothing behind.
        if self._file_handle is None:
            if get_event_storage().start_iter == 0:
                set_aside(self._path)
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
            scalars = {name: _json_number(value) for name, value in per_iteration[iteration].items()}
            line = json.dumps({"iteration": iteration, **scalars}, sort_keys=True, allow_nan=False)
            file.write(line + "\n")
        file.flush()

    def close(self) -> None:
        if self._file_handle is not None:
            self._file_handle.close()


def _json_number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _ends_without_newline(path: str) -> bool:
    if not PathManager.isfile(path):
        return False
    with PathManager.open(path, "rb") as file:
        if file.seek(0, 2) == 0:
            return False
        file.seek(-1, 2)
        return bool(file.read(1) != b"\n")


class TensorboardXWriter(EventWriter):
    """Write scalars, images and histograms as TensorBoard event files.

    Where tensorboard is not installed, it says so once and writes nothing.
    """

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs: Any) -> None:
        """
        Args:
            log_dir: folder of the event files.
            window_size: the medians of noisy scalars are over this many last iterations.
            kwargs: further arguments of `torch.utils.tensorboard.SummaryWriter`.
        """
        self._window_size = window_size
        self._last_write = -1
        self._arguments = {"log_dir": log_dir, **kwargs}
        self._summary_writer: type[Any] | None = None
        try:
            from torch.utils.tensorboard import SummaryWriter  # optional dependency
        except ImportError:
            logger.warning(
                "The package 'tensorboard' is not installed: no TensorBoard files are written, metrics.json"
                " holds the same numbers. `pip install tensorboard` brings it."
            )
        else:
            self._summary_writer = SummaryWriter

    @functools.cached_property
    def _writer(self) -> Any:
        # Made when there is something to write: it opens its file at once.
        assert self._summary_writer is not None
        return self._summary_writer(**self._arguments)

    def write(self) -> None:
        if self._summary_writer is None:
            return
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
        if "_writer" in self.__dict__:
            self._writer.close()


class CommonMetricPrinter(EventWriter):
    """Log one line: time left, iteration, losses, metrics, seconds per iteration, learning rate, GPU memory.

    Metrics are the scalars with "[metric]" in their names. A subclass may override `_get_eta`.
    """

    def __init__(self, max_iter: int | None = None, window_size: int = 20) -> None:
        """
        Args:
            max_iter: the last iteration of the run; without it there is no estimate of the time left.
            window_size: losses and times are medians over this many iterations.
        """
        self.logger = logging.getLogger(__package__)  # the name that readers of logs look for
        self._max_iter = max_iter
        self._window_size = window_size
        self._last_write: tuple[int, float] | None = None  # iteration and time of the previous line

    def write(self) -> None:
        storage = get_event_storage()
        iteration = storage.iter
        if iteration == self._max_iter:
            # Hooks that run after the last step reach here once more, with nothing new to say.
            return
        eta = self._get_eta(storage)
        parts = [
            f"eta: {eta}" if eta else "",
            f"iter: {iteration}",
            *self._median_texts(storage, "loss"),
            *self._median_texts(storage, "[metric]"),
            *self._time_texts(storage),
            self._lr_text(storage),
        ]
        if torch.cuda.is_available():
            parts.append(f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M")
        self.logger.info(" %s", "  ".join(part for part in parts if part))

    def _get_eta(self, storage: EventStorage) -> str | None:
        """The time left as text, such as "1:02:03"; None where it is not known."""
        seconds = self._seconds_left(storage)
        return None if seconds is None else str(datetime.timedelta(seconds=int(seconds)))

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

    def _median_texts(self, storage: EventStorage, part: str) -> list[str]:
        names = [name for name in storage.histories() if part in name]
        medians = {
            name: storage.history(name).median(storage.count_samples(name, self._window_size))
            for name in names
        }
        return [f"{name}: {median:.4g}" for name, median in medians.items()]

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
        return f"lr: {storage.history('lr').latest():.5g}" if "lr" in storage.histories() else "lr: N/A"
