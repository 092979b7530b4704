"""Drawing predictions and annotations on a picture.

Shapes: H x W the picture, R instances, P keypoints. Boxes are XYXY in pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, unique
from typing import Any

import numpy as np
import torch

from detectron2.data.catalog import Metadata
from detectron2.data.detection_utils.panoptic_png import read_panoptic_ids
from detectron2.data.detection_utils.sem_seg import read_sem_seg
from detectron2.structures.instances import Instances
from detectron2.visualization.canvas import VisImage
from detectron2.visualization.class_colors import ClassColors, ColorBy, Shades, check_color_by
from detectron2.visualization.colors import Color, ColorLike, parse_color
from detectron2.visualization.drawing import OFF_WHITE
from detectron2.visualization.inputs import drop_things, gather_annotations, to_array
from detectron2.visualization.labels import make_labels
from detectron2.visualization.masks import GenericMask, drop_small_parts
from detectron2.visualization.overlay import LABEL_BRIGHTNESS, Overlay
from detectron2.visualization.panoptic import PanopticPrediction, Segment


@unique
class ColorMode(Enum):
    """How instances are coloured, unless a visualizer is told otherwise by `color_by`."""

    IMAGE = 0
    """Every instance in a shade of its class's colour, over the picture."""
    SEGMENTATION = 1
    """As IMAGE, nearly opaque where the metadata has `thing_colors`."""
    IMAGE_BW = 2
    """As IMAGE, with everything outside the masks in grey."""


class Visualizer(Overlay):
    """Draw predictions or annotations on a picture.

    Methods draw in the order in which they are called and return the `VisImage`, whose `get_image()` is an
    RGB array and whose `save()` writes a file. Pictures come out the same on every run.
    """

    def __init__(
        self,
        img_rgb: np.ndarray,
        metadata: Metadata | None = None,
        scale: float = 1.0,
        instance_mode: ColorMode = ColorMode.IMAGE,
        font_size_scale: float = 1.0,
        *,
        color_by: ColorBy | None = None,
    ) -> None:
        """
        Args:
            img_rgb: (H, W, 3) RGB in [0, 255].
            metadata: names and colours of the classes, from `MetadataCatalog`; without it, numbers and the
                palette.
            scale: size of the output over the size of the picture.
            instance_mode: how instances are coloured.
            font_size_scale: makes the text larger or smaller than the picture's size suggests.
            color_by: "class" gives all instances of a class its colour, "instance" each a shade of it; None
                leaves it to the mode.
        """
        super().__init__(img_rgb, metadata, scale, font_size_scale)
        check_color_by(color_by)
        self.cpu_device = torch.device("cpu")
        self.class_colors = ClassColors(self.metadata)
        self._instance_mode = instance_mode
        self._color_by = color_by
        self._jitter_shades = Shades(first=1)

    def draw_instance_predictions(self, predictions: Instances, jittering: bool = True) -> VisImage:
        """Draw the detections of the picture.

        Args:
            predictions: any of `pred_boxes`, `pred_classes`, `scores`, `pred_masks`, `pred_masks_rle`,
                `pred_keypoints`.
            jittering: in mode SEGMENTATION, vary the class's colour from instance to instance.
        """
        predictions = predictions.to(self.cpu_device)
        boxes = predictions.pred_boxes if predictions.has("pred_boxes") else None
        classes = predictions.pred_classes.tolist() if predictions.has("pred_classes") else None
        scores = predictions.scores.tolist() if predictions.has("scores") else None
        keypoints = predictions.pred_keypoints if predictions.has("pred_keypoints") else None
        mask_field = "pred_masks" if predictions.has("pred_masks") else "pred_masks_rle"
        masks = self._convert_masks(predictions.get(mask_field)) if predictions.has(mask_field) else None
        alpha = 0.5
        if self._instance_mode == ColorMode.SEGMENTATION and self.metadata.get("thing_colors"):
            alpha = 0.8
        elif self._instance_mode == ColorMode.IMAGE_BW:
            self.grey_out_all_but(masks)
            alpha = 0.3
        return self.overlay_instances(
            boxes=boxes,
            labels=make_labels(classes, scores, self.metadata.get("thing_classes")),
            masks=masks,
            keypoints=keypoints,
            assigned_colors=self.instance_colors(classes, jittering) if classes is not None else None,
            alpha=alpha,
        )

    def grey_out_all_but(self, masks: Sequence[GenericMask] | None) -> None:
        """Take the colour out of the picture where no mask is; this starts the drawing over."""
        union = None
        if masks:
            union = np.zeros(self.img.shape[:2], dtype=bool)
            for mask in masks:
                union |= mask.mask != 0
        self.output.reset_image(self._create_grayscale_image(union))

    def instance_colors(self, classes: Sequence[int], jittering: bool = True) -> list[Color]:
        """The colours of instances of these classes, by class or by instance as asked of this visualizer.

        Args:
            classes: of `thing_classes`.
            jittering: in mode SEGMENTATION, vary the class's colour from instance to instance.
        """
        colors = [self.class_colors.of_thing(category) for category in classes]
        if self._color_by == "class":
            return colors
        if self._color_by is None and self._instance_mode == ColorMode.SEGMENTATION:
            return [self._jitter(color) for color in colors] if jittering else colors
        return Shades().for_each(colors)

    def draw_sem_seg(
        self,
        sem_seg: np.ndarray | torch.Tensor,
        area_threshold: float | None = None,
        alpha: float = 0.8,
        draw_text: bool = True,
        edge_color: ColorLike | None = OFF_WHITE,
    ) -> VisImage:
        """Draw a semantic segmentation.

        Args:
            sem_seg: (H, W) class ids; ids without a name in `stuff_classes` are left out.
            area_threshold: connected parts of fewer pixels are left out.
            alpha: opacity.
            draw_text: write the names of the classes.
        """
        label_map = to_array(sem_seg)
        names = self.metadata.get("stuff_classes")
        classes = [c for c in np.unique(label_map).astype(int).tolist() if c >= 0]
        segments = [
            {"id": c, "category_id": c, "isthing": False} for c in classes if names is None or c < len(names)
        ]
        prediction = PanopticPrediction(label_map, segments)
        self._draw_stuff(prediction, area_threshold, alpha, edge_color)
        if draw_text:
            self._label_stuff(prediction, area_threshold)
        return self.output

    def draw_panoptic_seg(
        self,
        panoptic_seg: torch.Tensor | np.ndarray,
        segments_info: Sequence[Segment] | None,
        area_threshold: float | None = None,
        alpha: float = 0.7,
    ) -> VisImage:
        """Draw a panoptic segmentation: stuff in the colours of its classes, things in shades of theirs.

        Args:
            panoptic_seg: (H, W) ids of segments.
            segments_info: their "id", contiguous "category_id", "isthing" and optionally "score"; None for a
                map of `category * label_divisor + instance`.
            area_threshold: connected parts of stuff of fewer pixels are left out.
            alpha: opacity.
        """
        prediction = PanopticPrediction(panoptic_seg, segments_info, self.metadata)
        colors = [self.class_colors.of_thing(category) for category in prediction.thing_classes()]
        if self._color_by is None:
            colors = [self._jitter(color) for color in colors]
        elif self._color_by != "class":
            colors = Shades().for_each(colors)
        return self.draw_panoptic_prediction(prediction, colors, area_threshold, alpha)

    # Both names were published.
    draw_panoptic_seg_predictions = draw_panoptic_seg

    def draw_panoptic_prediction(
        self,
        prediction: PanopticPrediction,
        thing_colors: Sequence[ColorLike],
        area_threshold: float | None = None,
        alpha: float = 0.7,
    ) -> VisImage:
        """Draw a panoptic segmentation whose things have their colours already.

        Args:
            prediction: the segments.
            thing_colors: one for each of its `instance_masks`.
            area_threshold, alpha: as for `draw_panoptic_seg`.
        """
        if self._instance_mode == ColorMode.IMAGE_BW:
            self.output.reset_image(self._create_grayscale_image(prediction.non_empty_mask()))
        self._draw_stuff(prediction, area_threshold, alpha, OFF_WHITE)
        things = list(prediction.instance_masks())
        if things:
            masks, segments = zip(*things)
            scores = [float(s["score"]) for s in segments] if all("score" in s for s in segments) else None
            labels = make_labels(
                prediction.thing_classes(),
                scores,
                self.metadata.get("thing_classes"),
                [bool(s.get("iscrowd", 0)) for s in segments],
            )
            self.overlay_instances(masks=masks, labels=labels, assigned_colors=thing_colors, alpha=alpha)
        self._label_stuff(prediction, area_threshold)  # after the things, whose masks would cover it
        return self.output

    def draw_dataset_dict(self, dic: Mapping[str, Any]) -> VisImage:
        """Draw the annotations of a data set's dictionary.

        A panoptic segmentation is drawn alone, as it has all of them; otherwise the semantic one with the
        instances on top.

        Args:
            dic: in the format of `DatasetCatalog`, unaltered by a mapper; segmentations may also be given as
                arrays, "pan_seg" and "sem_seg".
        """
        pan_seg = dic.get("pan_seg")
        if pan_seg is None and "pan_seg_file_name" in dic and "segments_info" in dic:
            pan_seg = read_panoptic_ids(dic["pan_seg_file_name"])
        if pan_seg is not None:
            return self.draw_panoptic_seg(pan_seg, dic["segments_info"], area_threshold=0)
        sem_seg = dic["sem_seg"] if "sem_seg" in dic else read_sem_seg(dict(dic))
        if sem_seg is not None:
            stuff = drop_things(sem_seg, self.metadata) if dic.get("annotations") else sem_seg
            self.draw_sem_seg(stuff, area_threshold=0, alpha=0.5)
        if dic.get("annotations"):
            fields = gather_annotations(dic["annotations"])
            names = self.metadata.get("thing_classes")
            self.overlay_instances(
                boxes=fields.boxes,
                labels=make_labels(fields.classes, None, names, fields.is_crowd),
                masks=fields.masks,
                keypoints=fields.keypoints,
                assigned_colors=self.instance_colors(fields.classes) if fields.classes is not None else None,
            )
        return self.output

    # -- steps that a subclass may replace, under the names that clients know

    def _create_grayscale_image(self, mask: np.ndarray | None = None) -> np.ndarray:
        """The picture without its colours: (H, W, 3) float32, as it was inside an (H, W) mask."""
        grey = np.repeat(self.img.astype(np.float32).mean(axis=2, keepdims=True), 3, axis=2)
        return grey if mask is None else np.where(np.asarray(mask)[..., None] != 0, self.img, grey)

    def _jitter(self, color: ColorLike) -> Color:
        """A colour close to the given one, another one at each call."""
        return self._jitter_shades.next(parse_color(color))

    def _draw_stuff(
        self,
        prediction: PanopticPrediction,
        area_threshold: float | None,
        alpha: float,
        edge_color: ColorLike | None,
    ) -> None:
        for mask, segment in prediction.semantic_masks():
            color = self.class_colors.of_stuff(int(segment["category_id"]))
            self.draw_binary_mask(
                mask, color, edge_color=edge_color, alpha=alpha, area_threshold=area_threshold
            )

    def _label_stuff(self, prediction: PanopticPrediction, area_threshold: float | None) -> None:
        names = self.metadata.get("stuff_classes")
        for mask, segment in prediction.semantic_masks():
            category = int(segment["category_id"])
            (text,) = make_labels([category], None, names) or ("",)
            color = self._change_color_brightness(self.class_colors.of_stuff(category), LABEL_BRIGHTNESS)
            self._draw_text_in_mask(drop_small_parts(mask, area_threshold or 0), text, color)
