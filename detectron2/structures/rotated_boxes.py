"""Rotated boxes.

Shapes: N and M boxes. Boxes are (centre x, centre y, width, height, angle) in pixels of one image and
degrees; the angle turns counter-clockwise on the screen. Box (cx, cy, w, h, a) covers the same points as
(cx, cy, h, w, a + 90).
"""

from __future__ import annotations

import torch
from torch import Tensor

from detectron2.layers.rotated_boxes import pairwise_iou_rotated
from detectron2.layers.wrappers import shapes_to_tensor

from .boxes import Boxes


class RotatedBoxes(Boxes):
    """The rotated boxes of one image.

    Attributes:
        tensor: (N, 5) float.
    """

    box_dim = 5

    def to(self, device: torch.device | str, non_blocking: bool = False) -> RotatedBoxes:
        """Return the boxes on `device`."""
        return type(self)(self.tensor.to(device=device, non_blocking=non_blocking))

    def area(self) -> Tensor:
        """Return (N,) areas."""
        return self.tensor[:, 2] * self.tensor[:, 3]

    def normalize_angles(self) -> None:
        """Bring all angles into [-180, 180), in place."""
        self.tensor[:, 4] = (self.tensor[:, 4] + 180.0) % 360.0 - 180.0

    def clip(self, box_size: tuple[int, int], clip_angle_threshold: float = 1.0) -> None:
        """Cut boxes that are almost upright at the border of the image, in place.

        Others stay as they are: what is left of them would be no rotated box, and a smaller one would lose
        the object's extent. Angles are normalised.

        Args:
            box_size: (height, width) of the image.
            clip_angle_threshold: largest angle, in degrees, of a box that is treated as upright.
        """
        self.normalize_angles()
        upright = (self.tensor[:, 4].abs() <= clip_angle_threshold)[:, None]
        center, size = self.tensor[:, :2], self.tensor[:, 2:4]
        border = shapes_to_tensor([box_size[1], box_size[0]]).to(self.tensor)
        start = torch.minimum((center - size / 2).clamp(min=0), border)
        end = torch.minimum((center + size / 2).clamp(min=0), border)
        clipped_size = torch.minimum(size, end - start)  # rounding must not enlarge
        self.tensor[:, :4] = torch.cat([(start + end) / 2, clipped_size], dim=1).where(
            upright, self.tensor[:, :4]
        )

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """Return (N,) bool: are both width and height greater than `threshold`?"""
        return (self.tensor[:, 2:4] > threshold).all(dim=1)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: int = 0) -> Tensor:
        """Tell which boxes lie in the image with all their corners.

        Args:
            box_size: (height, width) of the image.
            boundary_threshold: pixels by which a box may stand out.

        Returns:
            (N,) bool.
        """
        x, y, width, height, angle = self.tensor.unbind(dim=-1)
        cos, sin = torch.deg2rad(angle).cos().abs(), torch.deg2rad(angle).sin().abs()
        half_x, half_y = (cos * width + sin * height) / 2, (sin * width + cos * height) / 2
        extent = Boxes(torch.stack([x - half_x, y - half_y, x + half_x, y + half_y], dim=1))
        return extent.inside_box(box_size, boundary_threshold)

    def get_centers(self) -> Tensor:
        """Return (N, 2) centres, x first."""
        return self.tensor[:, :2]

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Scale the plane, in place.

        With unequal factors a rotated box becomes a parallelogram. It is replaced by the box whose height
        points along the scaled height, and whose sides are as long as the scaled sides.
        """
        angle = torch.deg2rad(self.tensor[:, 4])
        cos, sin = angle.cos(), angle.sin()
        self.tensor[:, 0] *= scale_x
        self.tensor[:, 1] *= scale_y
        self.tensor[:, 2] *= torch.hypot(scale_x * cos, scale_y * sin)
        self.tensor[:, 3] *= torch.hypot(scale_x * sin, scale_y * cos)
        self.tensor[:, 4] = torch.rad2deg(torch.atan2(scale_x * sin, scale_y * cos))


def pairwise_iou(boxes1: RotatedBoxes, boxes2: RotatedBoxes) -> Tensor:
    """Return the (N, M) intersection over union of N rotated boxes with M rotated boxes."""
    return pairwise_iou_rotated(boxes1.tensor, boxes2.tensor)
