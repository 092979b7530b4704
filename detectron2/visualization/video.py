"""Drawing predictions on the frames of a video, with colours that stay with their objects.

Boxes are XYXY in pixels of the frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from detectron2.data.catalog import Metadata
from detectron2.structures import rle
from detectron2.structures.boxes import Boxes, pairwise_iou
from detectron2.structures.instances import Instances
from detectron2.utils.user_errors import UserValueError
from detectron2.visualization.canvas import VisImage
from detectron2.visualization.colors import Color, palette_color
from detectron2.visualization.inputs import to_generic_masks
from detectron2.visualization.labels import make_labels
from detectron2.visualization.masks import GenericMask
from detectron2.visualization.visualizer import ColorMode, Visualizer

_MAX_MISSED_FRAMES = 8
_BOX_MATCH_IOU = 0.6
_MASK_MATCH_IOU = 0.5


@dataclass
class _Track:
    """An object that was seen in this frame or a few frames ago."""

    category: int
    color: Color
    shape: Any  # (4,) XYXY, or run lengths
    missed: int = 0


class VideoVisualizer:
    """Draw predictions on frame after frame; an object that stays about where it was keeps its colour."""

    def __init__(self, metadata: Metadata | None, instance_mode: ColorMode = ColorMode.IMAGE) -> None:
        """
        Args:
            metadata: names and colours of the classes.
            instance_mode: IMAGE or IMAGE_BW.
        """
        if instance_mode not in (ColorMode.IMAGE, ColorMode.IMAGE_BW):
            raise UserValueError(f"a video is drawn in mode IMAGE or IMAGE_BW, got {instance_mode}")
        self.metadata = metadata if metadata is not None else Metadata()
        self._instance_mode = instance_mode
        self._tracks: list[_Track] = []
        self._num_colors_used = 0

    def draw_instance_predictions(self, frame: np.ndarray, predictions: Instances) -> VisImage:
        """Draw the detections of one frame.

        Args:
            frame: (H, W, 3) RGB.
            predictions: any of `pred_boxes`, `pred_classes`, `scores`, `pred_masks`, `pred_keypoints`, and
                `COLOR`, R colours that override the matching.
        """
        visualizer = Visualizer(frame, self.metadata, instance_mode=self._instance_mode)
        predictions = predictions.to("cpu")
        if not len(predictions):
            self._assign_colors([], [], _BOX_MATCH_IOU)
            return visualizer.output
        boxes = predictions.pred_boxes.tensor.numpy() if predictions.has("pred_boxes") else None
        classes = (
            predictions.pred_classes.tolist() if predictions.has("pred_classes") else [0] * len(predictions)
        )
        scores = predictions.scores.tolist() if predictions.has("scores") else None
        masks = None
        if predictions.has("pred_masks"):
            masks = to_generic_masks(predictions.pred_masks, frame.shape[:2])
        if predictions.has("COLOR"):
            colors = list(predictions.COLOR)
        elif masks is not None:
            colors = self._assign_colors(classes, _encode(masks), _MASK_MATCH_IOU)
        else:
            colors = self._assign_colors(classes, [] if boxes is None else list(boxes), _BOX_MATCH_IOU)
        if self._instance_mode == ColorMode.IMAGE_BW and masks is not None:
            visualizer._grey_out_all_but(masks)
        labels = make_labels(classes, scores, self.metadata.get("thing_classes"))
        return visualizer.overlay_instances(
            boxes=None if masks is not None else boxes,  # masks alone keep a moving picture calm
            masks=masks,
            labels=labels,
            keypoints=predictions.pred_keypoints if predictions.has("pred_keypoints") else None,
            assigned_colors=colors,
            alpha=0.3 if self._instance_mode == ColorMode.IMAGE_BW else 0.5,
        )

    def draw_sem_seg(
        self, frame: np.ndarray, sem_seg: np.ndarray | torch.Tensor, area_threshold: float | None = None
    ) -> VisImage:
        """Draw the semantic segmentation of one frame: (H, W) class ids."""
        visualizer = Visualizer(frame, self.metadata)
        return visualizer.draw_sem_seg(sem_seg, area_threshold=area_threshold)

    def draw_panoptic_seg_predictions(
        self,
        frame: np.ndarray,
        panoptic_seg: torch.Tensor | np.ndarray,
        segments_info: Sequence[Mapping[str, Any]],
        area_threshold: float | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw the panoptic segmentation of one frame; arguments as for `Visualizer.draw_panoptic_seg`."""
        label_map = np.asarray(panoptic_seg.cpu() if isinstance(panoptic_seg, torch.Tensor) else panoptic_seg)
        visualizer = Visualizer(frame, self.metadata, instance_mode=self._instance_mode)
        visible = [s for s in segments_info if (label_map == s["id"]).any()]
        stuff = [s for s in visible if not s["isthing"]]
        visualizer.draw_panoptic_seg(label_map, stuff, area_threshold=area_threshold, alpha=alpha)
        things = [s for s in visible if s["isthing"]]
        masks = [GenericMask(label_map == s["id"], *label_map.shape) for s in things]
        classes = [int(s["category_id"]) for s in things]
        colors = self._assign_colors(classes, _encode(masks), _MASK_MATCH_IOU)
        scores = [float(s["score"]) for s in things] if all("score" in s for s in things) else None
        labels = make_labels(classes, scores, self.metadata.get("thing_classes"))
        if things:
            visualizer.overlay_instances(masks=masks, labels=labels, assigned_colors=colors, alpha=alpha)
        return visualizer.output

    def _assign_colors(self, classes: Sequence[int], shapes: Sequence[Any], min_iou: float) -> list[Color]:
        """Match the objects of a frame with those seen before, best overlap first; return their colours."""
        comparable = [
            t for t in self._tracks if shapes and isinstance(t.shape, dict) == isinstance(shapes[0], dict)
        ]
        matched: dict[int, _Track] = {}
        if comparable and shapes:
            overlaps = _iou(shapes, [t.shape for t in comparable])  # (objects, tracks)
            same_class = np.asarray(classes)[:, None] == np.asarray([t.category for t in comparable])[None]
            overlaps = np.where(same_class, overlaps, 0.0)
            for _ in range(min(overlaps.shape)):
                row, column = divmod(int(overlaps.argmax()), overlaps.shape[1])
                if overlaps[row, column] <= min_iou:
                    break
                matched[row] = comparable[column]
                overlaps[row, :] = overlaps[:, column] = 0
        current = []
        for index, (category, shape) in enumerate(zip(classes, shapes)):
            color = matched[index].color if index in matched else self._new_color()
            current.append(_Track(category, color, shape))
        seen = {id(track) for track in matched.values()}
        lost = [t for t in self._tracks if id(t) not in seen and t.missed < _MAX_MISSED_FRAMES]
        for track in lost:
            track.missed += 1
        self._tracks = current + lost
        return [track.color for track in current]

    def _new_color(self) -> Color:
        self._num_colors_used += 1
        return palette_color(self._num_colors_used - 1)


def _encode(masks: Sequence[GenericMask]) -> list[dict[str, Any]]:
    return [rle.encode_one(mask.mask) for mask in masks]


def _iou(first: Sequence[Any], second: Sequence[Any]) -> np.ndarray:
    if isinstance(first[0], dict):
        return rle.pairwise_iou(first, second)
    return pairwise_iou(*(Boxes(torch.from_numpy(np.stack(boxes))) for boxes in (first, second))).numpy()
