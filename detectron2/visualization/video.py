"""Drawing predictions on the frames of a video, with colours that stay with their objects.

Boxes are XYXY in pixels of the frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from detectron2.data.catalog import Metadata
from detectron2.structures import rle
from detectron2.structures.instances import Instances
from detectron2.utils.user_errors import UserValueError
from detectron2.visualization.canvas import VisImage
from detectron2.visualization.class_colors import ClassColors, ColorBy, Shades, check_color_by
from detectron2.visualization.colors import ColorLike, palette_color
from detectron2.visualization.inputs import to_box_array, to_generic_masks
from detectron2.visualization.labels import make_labels
from detectron2.visualization.masks import GenericMask
from detectron2.visualization.panoptic import PanopticPrediction, Segment
from detectron2.visualization.tracks import DetectedInstance, match_tracks
from detectron2.visualization.visualizer import ColorMode, Visualizer

_USUAL_MAX_NUM_INSTANCES = 74
_DRAWN_FIELDS = ("pred_boxes", "pred_classes", "scores", "pred_keypoints")


class VideoVisualizer:
    """Draw predictions on frame after frame; an object that stays about where it was keeps its colour."""

    def __init__(
        self,
        metadata: Metadata | None,
        instance_mode: ColorMode = ColorMode.IMAGE,
        *,
        color_by: ColorBy | None = None,
    ) -> None:
        """
        Args:
            metadata: names and colours of the classes.
            instance_mode: IMAGE or IMAGE_BW.
            color_by: "class" gives all instances of a class its colour, "track" (as does None) each object a
                shade of it for as long as it is seen, "instance" a shade by its place in the frame.
        """
        if instance_mode not in (ColorMode.IMAGE, ColorMode.IMAGE_BW):
            raise UserValueError(f"a video is drawn in mode IMAGE or IMAGE_BW, got {instance_mode}")
        check_color_by(color_by)
        self.metadata = metadata if metadata is not None else Metadata()
        self._instance_mode = instance_mode
        self._color_by = color_by or "track"
        self._class_colors = ClassColors(self.metadata)
        self._shades = Shades()
        self._old_instances: list[DetectedInstance] = []
        # Objects with numbers of a tracker: a colour each, free again when the object is gone.
        self._max_num_instances = int(self.metadata.get("_max_num_instances", _USUAL_MAX_NUM_INSTANCES))
        self._color_pool: list[ColorLike] = [palette_color(i) for i in range(self._max_num_instances)]
        self._color_idx_set = set(range(self._max_num_instances))
        self._assigned_colors: dict[int, int] = {}

    def draw_instance_predictions(self, frame: np.ndarray, predictions: Instances) -> VisImage:
        """Draw the detections of one frame.

        Args:
            frame: (H, W, 3) RGB.
            predictions: any of `pred_boxes`, `pred_classes`, `scores`, `pred_masks`, `pred_keypoints`;
                `COLOR`, R colours that are taken as they are; `ID`, R numbers of a tracker, each of which
                keeps its colour; `ID_period`, how long each has been seen: objects are hidden until it
                exceeds `period_threshold` of the metadata.
        """
        visualizer = self._on(frame)
        predictions = predictions.to("cpu")
        masks = None
        if predictions.has("pred_masks"):
            masks = to_generic_masks(predictions.pred_masks, visualizer.img.shape[:2])
        colors = self._colors_of(predictions, masks, visualizer)
        if predictions.has("ID_period"):
            threshold = self.metadata.get("period_threshold", 0)
            visible = [i for i, period in enumerate(predictions.ID_period) if float(period) > threshold]
            colors = [colors[i] for i in visible]
            masks = [masks[i] for i in visible] if masks is not None else None
            drawn = {name: predictions.get(name) for name in _DRAWN_FIELDS if predictions.has(name)}
            predictions = Instances(predictions.image_size, **drawn)[visible]
        classes = predictions.pred_classes.tolist() if predictions.has("pred_classes") else None
        scores = predictions.scores.tolist() if predictions.has("scores") else None
        has_boxes = masks is None and predictions.has("pred_boxes")  # masks alone keep a moving picture calm
        if self._instance_mode == ColorMode.IMAGE_BW:
            visualizer.grey_out_all_but(masks)
        return visualizer.overlay_instances(
            boxes=predictions.pred_boxes if has_boxes else None,
            masks=masks,
            labels=make_labels(classes, scores, self.metadata.get("thing_classes")),
            keypoints=predictions.pred_keypoints if predictions.has("pred_keypoints") else None,
            assigned_colors=colors,
            alpha=0.3 if self._instance_mode == ColorMode.IMAGE_BW else 0.5,
        )

    def draw_sem_seg(
        self, frame: np.ndarray, sem_seg: np.ndarray | torch.Tensor, area_threshold: float | None = None
    ) -> VisImage:
        """Draw the semantic segmentation of one frame: (H, W) class ids."""
        return self._on(frame).draw_sem_seg(sem_seg, area_threshold=area_threshold)

    def draw_panoptic_seg_predictions(
        self,
        frame: np.ndarray,
        panoptic_seg: torch.Tensor | np.ndarray,
        segments_info: Sequence[Segment] | None,
        area_threshold: float | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw the panoptic segmentation of one frame; arguments as for `Visualizer.draw_panoptic_seg`."""
        visualizer = self._on(frame)
        prediction = PanopticPrediction(panoptic_seg, segments_info, self.metadata)
        classes = prediction.thing_classes()
        if self._color_by == "track":
            codes = [rle.encode_one(mask) for mask, _ in prediction.instance_masks()]
            found = [DetectedInstance(c, None, code, None) for c, code in zip(classes, codes)]
            colors = self._assign_colors(found)
        else:
            colors = [*visualizer.instance_colors(classes)]
        return visualizer.draw_panoptic_prediction(prediction, colors, area_threshold, alpha)

    def _on(self, frame: np.ndarray) -> Visualizer:
        return Visualizer(frame, self.metadata, instance_mode=self._instance_mode, color_by=self._color_by)

    def _colors_of(
        self, predictions: Instances, masks: Sequence[GenericMask] | None, visualizer: Visualizer
    ) -> list[ColorLike]:
        """The colour of each detection, by whatever decides it."""
        if predictions.has("COLOR"):
            return list(predictions.COLOR)
        number = len(predictions)
        classes = predictions.pred_classes.tolist() if predictions.has("pred_classes") else [0] * number
        if self._color_by != "track":
            return [*visualizer.instance_colors(classes)]
        if predictions.has("ID"):
            return self._assign_colors_by_id(predictions)
        codes: list[Any] = [None] * number
        boxes: list[Any] = [None] * number
        if masks is not None:
            codes = [rle.encode_one(mask.mask) for mask in masks]
        elif predictions.has("pred_boxes"):
            boxes = list(to_box_array(predictions.pred_boxes))
        found = [DetectedInstance(*seen, color=None) for seen in zip(classes, boxes, codes)]
        return self._assign_colors(found)

    def _assign_colors(self, instances: Sequence[DetectedInstance]) -> list[ColorLike]:
        """Give the objects of a frame the colours of those that they were before, new ones new colours.

        Args:
            instances: the objects; a colour that one has already stays.
        """
        matches = match_tracks(instances, self._old_instances)
        for index, instance in enumerate(instances):
            if instance.color is None and index in matches:
                instance.color = self._old_instances[matches[index]].color
            elif instance.color is None:
                instance.color = self._shades.next(self._class_colors.of_thing(instance.label))
        seen = set(matches.values())
        lost = [old for index, old in enumerate(self._old_instances) if index not in seen]
        for old in lost:
            old.ttl -= 1
        self._old_instances = [*instances, *(old for old in lost if old.ttl > 0)]
        return [instance.color for instance in instances if instance.color is not None]

    def _assign_colors_by_id(self, instances: Instances) -> list[ColorLike]:
        """Give every number of a tracker, `ID`, a colour of its own for as long as it is seen."""
        numbers = [int(number) for number in instances.ID]
        for gone in self._assigned_colors.keys() - set(numbers):
            self._color_idx_set.add(self._assigned_colors.pop(gone))
        for number in numbers:
            if number in self._assigned_colors:
                continue
            if not self._color_idx_set:
                self._color_idx_set.add(len(self._color_pool))
                self._color_pool.append(palette_color(len(self._color_pool)))
            self._assigned_colors[number] = min(self._color_idx_set)
            self._color_idx_set.remove(self._assigned_colors[number])
        return [self._color_pool[self._assigned_colors[number]] for number in numbers]
