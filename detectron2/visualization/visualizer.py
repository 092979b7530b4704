"""Drawing predictions and annotations on a picture.

Shapes: H x W the picture, R instances, P keypoints. Boxes are XYXY in pixels of the picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, unique
from typing import Any

import numpy as np
import torch
from PIL import Image

from detectron2.data.catalog import Metadata
from detectron2.data.detection_utils.panoptic_png import read_panoptic_ids
from detectron2.data.detection_utils.sem_seg import read_sem_seg
from detectron2.structures.boxes import BoxMode
from detectron2.structures.instances import Instances
from detectron2.utils.user_errors import UserValueError
from detectron2.visualization.canvas import VisImage
from detectron2.visualization.colors import Color, ColorLike, change_brightness, palette_color, shade
from detectron2.visualization.drawing import Drawing
from detectron2.visualization.inputs import (
    drop_things,
    forge_segments,
    to_array,
    to_box_array,
    to_generic_masks,
    to_keypoint_array,
)
from detectron2.visualization.labels import make_labels
from detectron2.visualization.masks import GenericMask, innermost_point, mask_extent
from detectron2.visualization.painter import OFF_WHITE, RED
from detectron2.visualization.skeleton import make_skeleton

KEYPOINT_THRESHOLD = 0.05


@unique
class ColorMode(Enum):
    """How instances are coloured."""

    IMAGE = 0
    """Every instance in a colour of its own, over the picture."""
    SEGMENTATION = 1
    """Instances of one class in shades of the class's colour (`thing_colors` of the metadata), nearly
    opaque."""
    IMAGE_BW = 2
    """As IMAGE, with everything outside the masks in grey."""


class Visualizer(Drawing):
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
    ) -> None:
        """
        Args:
            img_rgb: (H, W, 3) RGB in [0, 255].
            metadata: names and colours of the classes, from `MetadataCatalog`; without it, numbers and the
                palette.
            scale: size of the output over the size of the picture.
            instance_mode: how instances are coloured.
            font_size_scale: makes the text larger or smaller than the picture's size suggests.
        """
        super().__init__(img_rgb, scale, font_size_scale)
        self.metadata = metadata if metadata is not None else Metadata()
        self.cpu_device = torch.device("cpu")
        self.keypoint_threshold = KEYPOINT_THRESHOLD
        self._instance_mode = instance_mode

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
        masks = None
        if predictions.has(mask_field):
            masks = to_generic_masks(predictions.get(mask_field), self.img.shape[:2])
        if self._instance_mode == ColorMode.IMAGE_BW and masks is not None:
            self._grey_out_all_but(masks)
        by_class = self._instance_mode == ColorMode.SEGMENTATION
        return self.overlay_instances(
            boxes=boxes,
            labels=make_labels(classes, scores, self.metadata.get("thing_classes")),
            masks=masks,
            keypoints=keypoints,
            assigned_colors=self._class_colors(classes or [], jittering) if by_class and classes else None,
            alpha=0.8 if by_class and self.metadata.get("thing_colors") else 0.5,
        )

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
            area_threshold: classes of fewer pixels are left out.
            alpha: opacity.
            draw_text: write the names of the classes.
        """
        label_map = to_array(sem_seg)
        names = self.metadata.get("stuff_classes")
        ids, areas = np.unique(label_map, return_counts=True)
        large = areas >= (area_threshold or 0)
        named = (ids >= 0) & (ids < (len(names) if names is not None else np.inf))
        order = np.argsort(-areas, kind="stable")
        classes = ids[order][(large & named)[order]].tolist()
        colors = [self._category_color(category, "stuff") for category in classes]
        for category, color in zip(classes, colors):
            mask = label_map == category
            self.draw_binary_mask(mask, color, edge_color=edge_color, alpha=alpha, area_threshold=0)
        if draw_text:
            for category, text, color in zip(classes, make_labels(classes, None, names) or [], colors):
                self.draw_text_in_mask(label_map == category, text, color)
        return self.output

    def draw_panoptic_seg(
        self,
        panoptic_seg: torch.Tensor | np.ndarray,
        segments_info: Sequence[Mapping[str, Any]] | None,
        area_threshold: float | None = None,
        alpha: float = 0.7,
    ) -> VisImage:
        """Draw a panoptic segmentation: stuff in the colours of its classes, every thing in one of its own.

        Args:
            panoptic_seg: (H, W) ids of segments.
            segments_info: their "id", contiguous "category_id", "isthing" and optionally "score"; None for a
                map of `category * label_divisor + instance`.
            area_threshold: stuff of fewer pixels is left out.
            alpha: opacity.
        """
        label_map = to_array(panoptic_seg)
        if segments_info is None:
            segments_info = forge_segments(label_map, self.metadata)
        ids, counts = np.unique(label_map, return_counts=True)
        area = dict(zip(ids.tolist(), counts.tolist()))
        visible = sorted(
            (s for s in segments_info if int(s["id"]) in area), key=lambda s: -area[int(s["id"])]
        )
        if self._instance_mode == ColorMode.IMAGE_BW:
            self._grey_out_all_but([label_map > 0])

        stuff = [s for s in visible if not s["isthing"]]
        things = [s for s in visible if s["isthing"]]
        threshold = area_threshold or 0
        stuff = [s for s in stuff if area[int(s["id"])] >= threshold]
        stuff_classes = [int(s["category_id"]) for s in stuff]
        stuff_colors = [self._category_color(category, "stuff") for category in stuff_classes]
        for segment, color in zip(stuff, stuff_colors):
            mask = label_map == segment["id"]
            self.draw_binary_mask(mask, color, edge_color=OFF_WHITE, alpha=alpha, area_threshold=0)

        thing_classes = [int(s["category_id"]) for s in things]
        thing_colors = self._class_colors(thing_classes)
        thing_masks = [label_map == s["id"] for s in things]
        self.overlay_instances(masks=thing_masks, assigned_colors=thing_colors, alpha=alpha)

        # Texts come last: a mask that is drawn later would cover them.
        self._label_masks(thing_masks, self._thing_labels(things), thing_colors)
        stuff_labels = make_labels(stuff_classes, None, self.metadata.get("stuff_classes")) or []
        for segment, label, color in zip(stuff, stuff_labels, stuff_colors):
            self.draw_text_in_mask(label_map == segment["id"], label, color)
        return self.output

    def _thing_labels(self, segments: Sequence[Mapping[str, Any]]) -> list[str]:
        classes = [int(s["category_id"]) for s in segments]
        scores = [float(s["score"]) for s in segments] if all("score" in s for s in segments) else None
        crowds = [bool(s.get("iscrowd", 0)) for s in segments]
        return make_labels(classes, scores, self.metadata.get("thing_classes"), crowds) or []

    def _label_masks(
        self, masks: Sequence[np.ndarray], labels: Sequence[str], colors: Sequence[ColorLike]
    ) -> None:
        """Write labels into masks. The last, smallest ones choose first: they have fewer places."""
        for mask, label, color in reversed(list(zip(masks, labels, colors))):
            self.draw_label(label, mask_extent(mask).tolist(), color, inner_point=innermost_point(mask))

    # Both names were published.
    draw_panoptic_seg_predictions = draw_panoptic_seg

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
            self._draw_annotations(dic["annotations"])
        return self.output

    def _draw_annotations(self, annotations: Sequence[Mapping[str, Any]]) -> None:
        has = {
            key: all(key in a for a in annotations)
            for key in ("segmentation", "keypoints", "bbox", "category_id")
        }
        classes = [a["category_id"] for a in annotations] if has["category_id"] else None
        boxes = None
        if has["bbox"]:
            boxes = [
                BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYXY_ABS)
                if len(a["bbox"]) == 4
                else a["bbox"]
                for a in annotations
            ]
        keypoints = None
        if has["keypoints"]:
            keypoints = np.asarray([a["keypoints"] for a in annotations]).reshape(len(annotations), -1, 3)
        crowds = [bool(a.get("iscrowd", 0)) for a in annotations]
        by_class = self._instance_mode == ColorMode.SEGMENTATION
        self.overlay_instances(
            boxes=boxes,
            labels=make_labels(classes, None, self.metadata.get("thing_classes"), crowds),
            masks=[a["segmentation"] for a in annotations] if has["segmentation"] else None,
            keypoints=keypoints,
            assigned_colors=self._class_colors(classes) if by_class and classes is not None else None,
        )

    def overlay_instances(
        self,
        *,
        boxes: Any = None,
        labels: Sequence[str] | None = None,
        masks: Any = None,
        keypoints: Any = None,
        assigned_colors: Sequence[ColorLike] | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw instances, the large ones first.

        Args:
            boxes: `Boxes` or (R, 4); `RotatedBoxes` or (R, 5).
            labels: R texts.
            masks: `PolygonMasks`, `BitMasks`, (R, H, W), or R polygon lists, run lengths or arrays.
            keypoints: `Keypoints` or (R, P, 3): x, y and score or visibility.
            assigned_colors: R colours; None takes the palette's.
            alpha: opacity of the masks.
        """
        box_array = to_box_array(boxes) if boxes is not None else None
        generic_masks = to_generic_masks(masks, self.img.shape[:2]) if masks is not None else None
        keypoint_array = to_keypoint_array(keypoints) if keypoints is not None else None
        num_instances = _common_length(
            boxes=box_array,
            masks=generic_masks,
            keypoints=keypoint_array,
            labels=labels,
            assigned_colors=assigned_colors,
        )
        if num_instances == 0:
            return self.output
        colors = (
            assigned_colors
            if assigned_colors is not None
            else [palette_color(i) for i in range(num_instances)]
        )
        if box_array is not None and box_array.shape[1] == 5:
            return self.overlay_rotated_instances(box_array, labels, colors)

        extents = box_array
        if extents is None and generic_masks is not None:
            extents = np.stack([mask.bbox() for mask in generic_masks])
        order = (
            range(num_instances)
            if extents is None
            else np.argsort(-_box_areas(extents), kind="stable").tolist()
        )
        for i in order:
            if generic_masks is not None:
                self._draw_mask(generic_masks[i], colors[i], alpha)
            if box_array is not None:
                self.draw_box(box_array[i], edge_color=colors[i], alpha=0.9)
        if keypoint_array is not None:
            for i in order:
                self.draw_and_connect_keypoints(keypoint_array[i])
        if labels is not None and extents is not None:
            inside = generic_masks if box_array is None else None
            # Small objects choose first: they have fewer places for a label.
            for i in reversed(order):
                point = innermost_point(inside[i].mask) if inside else None
                self.draw_label(labels[i], extents[i].tolist(), colors[i], inner_point=point)
        return self.output

    def overlay_rotated_instances(
        self,
        boxes: Any = None,
        labels: Sequence[str] | None = None,
        assigned_colors: Sequence[ColorLike] | None = None,
    ) -> VisImage:
        """Draw rotated boxes, the large ones first.

        Args:
            boxes: (R, 5) or `RotatedBoxes`.
            labels: R texts.
            assigned_colors: R colours; None takes the palette's.
        """
        if boxes is None or len(boxes) == 0:
            return self.output
        array = to_box_array(boxes)
        colors = (
            assigned_colors if assigned_colors is not None else [palette_color(i) for i in range(len(array))]
        )
        for i in np.argsort(-array[:, 2] * array[:, 3], kind="stable").tolist():
            label = labels[i] if labels is not None else None
            self.draw_rotated_box_with_label(array[i].tolist(), alpha=0.9, edge_color=colors[i], label=label)
        return self.output

    def draw_and_connect_keypoints(self, keypoints: np.ndarray | torch.Tensor) -> VisImage:
        """Draw one instance's keypoints and the lines between them.

        The metadata's `keypoint_names` and `keypoint_connection_rules` decide on the lines; people also get a
        neck.

        Args:
            keypoints: (P, 3): x, y and score or visibility. Points below `keypoint_threshold` are left out.
        """
        joints, limbs = make_skeleton(to_array(keypoints), self.metadata, self.keypoint_threshold)
        for limb in limbs:
            (x0, y0), (x1, y1) = limb.start, limb.stop
            self.draw_line([x0, x1], [y0, y1], limb.color, linewidth=1.5 * self.painter.line_width)
        for joint in joints:
            self.draw_circle(joint, color=RED, radius=1.5 * self.painter.line_width + 1)
        return self.output

    def _draw_mask(self, mask: GenericMask, color: ColorLike, alpha: float) -> None:
        edge = change_brightness(color, 0.25)
        self.draw_binary_mask(mask.mask, color, edge_color=edge, alpha=alpha, area_threshold=0)

    def _category_color(self, category: int, kind: str) -> Color:
        """The colour of a class ("thing" or "stuff") in [0, 1], from the metadata or the palette."""
        colors = self.metadata.get(f"{kind}_colors")
        if colors is None or category >= len(colors):
            return palette_color(category)
        red, green, blue = (channel / 255 for channel in colors[category])
        return red, green, blue

    def _class_colors(self, classes: Sequence[int], jittering: bool = True) -> list[Color]:
        """The colour of each instance's class, in shades that tell instances apart."""
        colors = [self._category_color(category, "thing") for category in classes]
        if not jittering:
            return colors
        num_seen: Counter[int] = Counter()
        for i, category in enumerate(classes):
            colors[i] = shade(colors[i], num_seen[category])
            num_seen[category] += 1
        return colors

    def _grey_out_all_but(self, masks: Iterable[Any]) -> None:
        """Take the colour out of the picture where no mask is."""
        keep = np.zeros(self.img.shape[:2], dtype=bool)
        for mask in masks:
            keep |= (mask.mask if isinstance(mask, GenericMask) else mask) != 0
        grey = np.repeat(np.asarray(Image.fromarray(self.img).convert("L"))[..., None], 3, axis=2)
        self.output.reset_image(np.where(keep[..., None], self.img, grey))


def _common_length(**of_instances: Sequence[Any] | np.ndarray | None) -> int:
    """How many instances there are, by every list that is given; 0 where none is."""
    counts = {name: len(values) for name, values in of_instances.items() if values is not None}
    if len(set(counts.values())) > 1:
        raise UserValueError(f"every instance needs one of each, but there are {counts}")
    return max(counts.values(), default=0)


def _box_areas(boxes: np.ndarray) -> np.ndarray:
    areas: np.ndarray = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas
