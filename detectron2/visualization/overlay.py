"""Drawing many instances at once: boxes, masks, keypoints and labels that keep out of each other's way.

Shapes: R instances, P keypoints. Boxes are XYXY in pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from detectron2.data.catalog import Metadata
from detectron2.visualization.canvas import VisImage
from detectron2.visualization.colors import ColorLike, palette_color
from detectron2.visualization.drawing import RED, Drawing
from detectron2.visualization.inputs import (
    common_length,
    to_array,
    to_box_array,
    to_generic_masks,
    to_keypoint_array,
)
from detectron2.visualization.masks import GenericMask, innermost_point
from detectron2.visualization.skeleton import make_skeleton

KEYPOINT_THRESHOLD = 0.05
LABEL_BRIGHTNESS = 0.7
_EDGE_BRIGHTNESS = 0.25


class Overlay(Drawing):
    """Drawing of instances, on top of the drawing of single things.

    Attributes:
        metadata: names of the keypoints, and the lines between them.
        keypoint_threshold: points of this score or less are hidden.
    """

    def __init__(
        self,
        img_rgb: np.ndarray,
        metadata: Metadata | None = None,
        scale: float = 1.0,
        font_size_scale: float = 1.0,
    ) -> None:
        """
        Args:
            img_rgb: (H, W, 3) RGB in [0, 255].
            metadata: names and colours, from `MetadataCatalog`.
            scale: size of the output over the size of the picture.
            font_size_scale: makes the text larger or smaller than the picture's size suggests.
        """
        super().__init__(img_rgb, scale, font_size_scale)
        self.metadata = metadata if metadata is not None else Metadata()
        self.keypoint_threshold = KEYPOINT_THRESHOLD

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
        box_array = self._convert_boxes(boxes) if boxes is not None else None
        shapes = self._convert_masks(masks) if masks is not None else None
        points = self._convert_keypoints(keypoints) if keypoints is not None else None
        number = common_length(
            boxes=box_array, masks=shapes, keypoints=points, labels=labels, assigned_colors=assigned_colors
        )
        if number == 0:
            return self.output
        colors = assigned_colors if assigned_colors is not None else [palette_color(i) for i in range(number)]
        if box_array is not None and box_array.shape[1] == 5:
            return self.overlay_rotated_instances(box_array, labels, colors)

        order = _large_first(box_array, shapes, number)
        for i in order:
            if shapes is not None:
                self._draw_instance_mask(shapes[i], colors[i], alpha)
            if box_array is not None:
                self.draw_box(box_array[i], edge_color=colors[i], alpha=0.9)
        if points is not None:
            for i in order:
                self.draw_and_connect_keypoints(points[i])
        if labels is not None:
            # Small objects choose first: they have fewer places for a label.
            for i in reversed(order):
                color = self._change_color_brightness(colors[i], LABEL_BRIGHTNESS)
                if box_array is not None:
                    self.draw_label(labels[i], box_array[i].tolist(), color)
                elif shapes is not None:
                    inside = innermost_point(shapes[i].mask)
                    self.draw_label(labels[i], shapes[i].bbox().tolist(), color, inner_point=inside)
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
        array = self._convert_boxes(boxes) if boxes is not None else np.zeros((0, 5))
        for i in np.argsort(-array[:, 2] * array[:, 3], kind="stable").tolist() if len(array) else ():
            color = assigned_colors[i] if assigned_colors is not None else palette_color(i)
            label = labels[i] if labels is not None else None
            self.draw_rotated_box_with_label(array[i].tolist(), alpha=0.9, edge_color=color, label=label)
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
            self.draw_line([x0, x1], [y0, y1], limb.color, linewidth=1.5 * self.line_width)
        for joint in joints:
            self.draw_circle(joint, color=RED, radius=1.5 * self.line_width + 1)
        return self.output

    def _convert_boxes(self, boxes: Any) -> np.ndarray:
        """Boxes of any kind as (R, 4) or, rotated ones, (R, 5)."""
        return to_box_array(boxes)

    def _convert_masks(self, masks_or_polygons: Any) -> list[GenericMask]:
        """Masks of any kind as R masks of the picture's size."""
        return to_generic_masks(masks_or_polygons, self.img.shape[:2])

    def _convert_keypoints(self, keypoints: Any) -> np.ndarray:
        """Keypoints of any kind as (R, P, 3)."""
        return to_keypoint_array(keypoints)

    def _draw_instance_mask(self, mask: GenericMask, color: ColorLike, alpha: float) -> None:
        edge = self._change_color_brightness(color, _EDGE_BRIGHTNESS)
        polygons = [] if mask.has_holes else mask.polygons  # which cannot express holes
        if not polygons:
            self.draw_binary_mask(mask.mask, color, edge_color=edge, alpha=alpha, area_threshold=0)
        for polygon in polygons:
            self.draw_polygon(polygon.reshape(-1, 2), color, edge_color=edge, alpha=alpha)


def _large_first(boxes: np.ndarray | None, masks: Sequence[GenericMask] | None, number: int) -> list[int]:
    """The order in which instances are drawn: by the area of their boxes, else of their masks."""
    if boxes is not None:
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    elif masks is not None:
        areas = np.asarray([mask.area() for mask in masks], dtype=np.float64)
    else:
        return list(range(number))
    order: list[int] = np.argsort(-areas, kind="stable").tolist()
    return order
