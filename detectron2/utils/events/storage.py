"""The storage that code below a training loop puts its numbers, pictures and histograms into."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from fvcore.common.history_buffer import HistoryBuffer

from detectron2.utils.user_errors import UserKeyError, UserValueError, near

__all__ = ["EventStorage", "get_event_storage", "has_event_storage"]

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
    """Collect scalars (with their history), images and histograms under the iteration they belong to.

    Attributes:
        start_iter: the iteration that it began with; 0 where the run is not the continuation of another.
    """

    def __init__(self, start_iter: int = 0) -> None:
        """
        Args:
            start_iter: the iteration that the next event belongs to.
        """
        self._iter = self.start_iter = int(start_iter)
        self._current_prefix = ""
        self._history: defaultdict[str, HistoryBuffer] = defaultdict(HistoryBuffer)
        self._latest_scalars: dict[str, tuple[float, int]] = {}
        self._smoothing_hints: dict[str, bool] = {}
        # Read by writers, those of users too, under the names that the contract has.
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
            hint = near(name, self._history) or f" There are: {', '.join(sorted(self._history)) or 'none'}."
            raise UserKeyError(f"No scalar named {name!r} was put into this storage.{hint}")
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
