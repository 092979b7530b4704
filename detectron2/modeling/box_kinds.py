"""What inference has to know of upright and of rotated boxes.

Shapes: R boxes, B numbers a box. Boxes are XYXY (B=4) or XYWHA (B=5) in input-image pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from detectron2.layers.nms import batched_nms, batched_nms_rotated
from detectron2.structures.boxes import Boxes
from detectron2.structures.rotated_boxes import RotatedBoxes


class BoxKind(NamedTuple):
    """What inference has to know of a kind of boxes.

    Attributes:
        dim: B.
        structure: the class that carries such boxes.
        clip: (R, B) boxes and (height, width) -> boxes moved into that image.
        is_larger: (R, B) boxes and a length -> (R,) bool, whether both sides are longer.
        nms: (R, B) boxes, (R,) scores, (R,) groups and an IoU -> indices to keep, best first.
    """

    dim: int
    structure: type[Boxes]
    clip: Callable[[Tensor, tuple[int, int]], Tensor]
    is_larger: Callable[[Tensor, float], Tensor]
    nms: Callable[[Tensor, Tensor, Tensor, float], Tensor]


def _clip_upright(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    # As `Boxes.clip`, without its look at every value.
    height, width = image_size[0], image_size[1]
    x, y = boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
    return torch.stack([x, y], dim=2).flatten(1)  # (R, 2 corners, 2 axes) -> (R, 4)


def _clip_rotated(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    rotated = RotatedBoxes(boxes.clone())  # clipping works in place
    rotated.clip(image_size)
    return rotated.tensor


def _is_larger_upright(boxes: Tensor, length: float) -> Tensor:
    return Boxes(boxes).nonempty(length)


def _is_larger_rotated(boxes: Tensor, length: float) -> Tensor:
    return RotatedBoxes(boxes).nonempty(length)


UPRIGHT = BoxKind(4, Boxes, _clip_upright, _is_larger_upright, batched_nms)
ROTATED = BoxKind(5, RotatedBoxes, _clip_rotated, _is_larger_rotated, batched_nms_rotated)
