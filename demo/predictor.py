"""Predict on pictures and videos, and draw what was predicted."""

from __future__ import annotations

import atexit
import logging
import queue
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.engine.defaults import DefaultPredictor, load_metadata
from detectron2.utils.video_visualizer import VideoVisualizer
from detectron2.utils.visualizer import ColorMode, VisImage, Visualizer
from detectron2.visualization.class_colors import ColorBy

logger = logging.getLogger("detectron2.demo")

_PANOPTIC_OPACITY = 0.6
_SEM_SEG_OPACITY = 0.55


class VisualizationDemo:
    """A model that draws its predictions."""

    def __init__(
        self,
        cfg: CfgNode,
        instance_mode: ColorMode = ColorMode.IMAGE,
        parallel: bool = False,
        metadata: Metadata | None = None,
        color_by: ColorBy | None = "class",
    ) -> None:
        """
        Args:
            cfg: the config of the model.
            instance_mode: how instances are coloured.
            parallel: predict on videos in other processes, one per GPU, while this one reads and draws.
            metadata: the names and colours of the classes; None means those that the checkpoint carries, by
                which its predictions are numbered, and where it carries none, those of `DATASETS.TEST`.
            color_by: what a colour stands for: "class", "instance" or "track"; None leaves it to the mode.
        """
        if metadata is None and cfg.MODEL.WEIGHTS:
            metadata = load_metadata(cfg.MODEL.WEIGHTS)
            if metadata is not None:
                logger.info("Class names are those that %s carries", cfg.MODEL.WEIGHTS)
        self.instance_mode = instance_mode
        self.color_by = color_by
        self.parallel = parallel
        self.predictor: Any = (
            AsyncPredictor(cfg, torch.cuda.device_count(), metadata)
            if parallel
            else DefaultPredictor(cfg, metadata=metadata)
        )
        if metadata is None:
            has_set = bool(cfg.DATASETS.TEST)
            metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0]) if has_set else Metadata(name="demo")
        self.metadata = metadata

    def run_on_image(self, image: np.ndarray) -> tuple[dict[str, Any], VisImage]:
        """Predict on one picture.

        Args:
            image: (H, W, 3) BGR.

        Returns:
            The model's output and the picture with what is in it.
        """
        predictions = self.predictor(image)
        visualizer = Visualizer(
            image[:, :, ::-1], self.metadata, instance_mode=self.instance_mode, color_by=self.color_by
        )
        return predictions, draw_predictions(visualizer, predictions)

    def run_on_video(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Predict on frame after frame.

        Args:
            frames: (H, W, 3) BGR each, such as `read_frames` gives them.

        Yields:
            (H, W, 3) BGR, with the predictions drawn.
        """
        visualizer = VideoVisualizer(self.metadata, self.instance_mode, color_by=self.color_by)
        for frame, predictions in self._predict_in_order(frames):
            rgb = np.ascontiguousarray(frame[:, :, ::-1])
            yield np.ascontiguousarray(_draw_frame(visualizer, rgb, predictions).get_image()[:, :, ::-1])

    def _predict_in_order(self, frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
        if not self.parallel:
            for frame in frames:
                yield frame, self.predictor(frame)
            return
        waiting: deque[np.ndarray] = deque()
        for frame in frames:
            waiting.append(frame)
            self.predictor.put(frame)
            if len(waiting) >= self.predictor.default_buffer_size:
                yield waiting.popleft(), self.predictor.get()
        while waiting:
            yield waiting.popleft(), self.predictor.get()


def draw_predictions(visualizer: Visualizer, predictions: dict[str, Any]) -> VisImage:
    """Draw a model's output for one picture: its panoptic segmentation, else semantics and instances."""
    if "panoptic_seg" in predictions:
        panoptic_seg, segments_info = predictions["panoptic_seg"]
        return visualizer.draw_panoptic_seg(panoptic_seg.cpu(), segments_info, alpha=_PANOPTIC_OPACITY)
    if "sem_seg" in predictions:
        visualizer.draw_sem_seg(predictions["sem_seg"].argmax(dim=0).cpu(), alpha=_SEM_SEG_OPACITY)
    if "instances" in predictions:
        visualizer.draw_instance_predictions(predictions["instances"].to("cpu"))
    return visualizer.get_output()


def _draw_frame(visualizer: VideoVisualizer, rgb: np.ndarray, predictions: dict[str, Any]) -> VisImage:
    if "panoptic_seg" in predictions:
        panoptic_seg, segments_info = predictions["panoptic_seg"]
        return visualizer.draw_panoptic_seg_predictions(rgb, panoptic_seg.cpu(), segments_info)
    if "instances" in predictions:
        return visualizer.draw_instance_predictions(rgb, predictions["instances"].to("cpu"))
    if "sem_seg" in predictions:
        return visualizer.draw_sem_seg(rgb, predictions["sem_seg"].argmax(dim=0).cpu())
    return VisImage(rgb)


class AsyncPredictor:
    """A predictor whose calls run in other processes: one per GPU, or one where there is none.

    `put()` hands a picture over, `get()` waits for the next result; results come in the pictures' order.
    """

    def __init__(self, cfg: CfgNode, num_gpus: int = 1, metadata: Metadata | None = None) -> None:
        """
        Args:
            cfg: the config of the model.
            num_gpus: 0 means one process on the CPU.
            metadata: as `DefaultPredictor` takes it.
        """
        context = mp.get_context("spawn")  # a process that has touched CUDA cannot be forked
        num_workers = max(num_gpus, 1)
        self._tasks: Any = context.Queue(maxsize=3 * num_workers)
        self._results: Any = context.Queue(maxsize=3 * num_workers)
        self._workers = []
        for gpu in range(num_workers):
            worker_cfg = cfg.clone()
            worker_cfg.defrost()
            worker_cfg.MODEL.DEVICE = f"cuda:{gpu}" if num_gpus > 0 else "cpu"
            worker = context.Process(
                target=_predict_forever, args=(worker_cfg, metadata, self._tasks, self._results), daemon=True
            )
            worker.start()
            self._workers.append(worker)
        self._num_put = 0
        self._num_got = 0
        self._early: dict[int, Any] = {}
        atexit.register(self.shutdown)

    def put(self, image: np.ndarray) -> None:
        """Hand a picture over; waits while the processes have enough to do."""
        self._tasks.put((self._num_put, image))
        self._num_put += 1

    def get(self) -> dict[str, Any]:
        """Wait for the predictions on the earliest picture that has none yet."""
        while self._num_got not in self._early:
            try:
                index, result = self._results.get(timeout=5)
            except queue.Empty:
                self._check_workers()
                continue
            self._early[index] = result
        result = self._early.pop(self._num_got)
        self._num_got += 1
        if isinstance(result, Exception):
            raise result
        return result

    def _check_workers(self) -> None:
        dead = [worker for worker in self._workers if not worker.is_alive()]
        if dead:
            raise RuntimeError(
                f"a prediction process ended with status {dead[0].exitcode}; its error stands above. "
                "Run without --parallel to see it alone"
            )

    def __len__(self) -> int:
        """Number of pictures whose predictions were not fetched."""
        return self._num_put - self._num_got

    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        self.put(image)
        return self.get()

    def shutdown(self) -> None:
        """End the processes."""
        for worker in self._workers:
            if worker.is_alive():
                worker.terminate()

    @property
    def default_buffer_size(self) -> int:
        """How many pictures to hand over before the first result is fetched."""
        return 5 * len(self._workers)


def _predict_forever(cfg: CfgNode, metadata: Metadata | None, tasks: Any, results: Any) -> None:
    predictor = DefaultPredictor(cfg, metadata=metadata)
    while True:
        index, image = tasks.get()
        try:
            results.put((index, _to_cpu(predictor(image))))
        except Exception as error:
            results.put((index, error))


def _to_cpu(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_cpu(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_to_cpu(entry) for entry in value)
    return value.to("cpu") if hasattr(value, "to") else value
