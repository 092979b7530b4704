"""Deterministic geometric and colour transforms of one image and of everything annotated on it.

`Transform` and the simple transforms are fvcore's own classes, so that `isinstance` and `register_type`
of user code agree with ours. Images are (H, W) or (H, W, C) arrays; coordinates are (N, 2) arrays of (x, y)
in pixels, where the top-left corner of the image is (0, 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from fvcore.transforms.transform import CropTransform as _FvcoreCropTransform
from fvcore.transforms.transform import HFlipTransform, NoOpTransform, Transform, TransformList
from PIL import Image

from detectron2.utils.user_errors import UserNotImplementedError, UserValueError

from .polygon_clipping import clip_polygon, has_area

__all__ = [
    "ColorTransform",
    "CropTransform",
    "ExtentTransform",
    "HFlip_rotated_box",
    "PILColorTransform",
    "ResizeTransform",
    "Resize_rotated_box",
    "RotationTransform",
]


def _to_pil(img: np.ndarray) -> Image.Image:
    """uint8 (H, W), (H, W, 1) or (H, W, 3 or 4) array -> PIL image of the same pixels."""
    return Image.fromarray(img[:, :, 0] if img.ndim == 3 and img.shape[2] == 1 else img)


def _from_pil(image: Image.Image, like: np.ndarray) -> np.ndarray:
    """Inverse of `_to_pil`: an array with as many dimensions as `like`."""
    result = np.asarray(image)
    return result[:, :, None] if result.ndim < like.ndim else result


class CropTransform(_FvcoreCropTransform):  # type: ignore[misc]  # fvcore has no types
    """fvcore's crop, with polygons clipped by plain arithmetic instead of the shapely package."""

    def apply_polygons(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        """Clip polygons to the crop window; those that are left without area disappear.

        A polygon that the window cuts in several pieces stays one polygon, whose pieces are joined by edges
        on the window's border. It covers the same pixels.

        Args:
            polygons: (N, 2) arrays of (x, y).
        """
        clipped = (clip_polygon(p, self.x0, self.y0, self.x0 + self.w, self.y0 + self.h) for p in polygons)
        return [self.apply_coords(p) for p in clipped if len(p) >= 3 and has_area(p)]


class ExtentTransform(Transform):  # type: ignore[misc]  # fvcore has no types
    """Cut `src_rect` out of the image and scale it to `output_size`; the rectangle may reach outside."""

    def __init__(
        self,
        src_rect: tuple[float, float, float, float],
        output_size: tuple[int, int],
        interp: int = Image.Resampling.BILINEAR,
        fill: Any = 0,
    ) -> None:
        """
        Args:
            src_rect: (x0, y0, x1, y1) in source pixels.
            output_size: (height, width).
            interp: one of PIL's interpolation modes.
            fill: value outside the source image.
        """
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """(H, W[, C]) uint8 or floating point -> (h, w[, C])."""
        return self._sample(img, self.interp if interp is None else interp, self.fill)

    def _sample(self, img: np.ndarray, interp: int, fill: Any) -> np.ndarray:
        if img.ndim == 3 and img.dtype != np.uint8:  # PIL has no images of several channels of other types
            channels = [self._sample(img[:, :, c], interp, fill) for c in range(img.shape[2])]
            return np.stack(channels, axis=2).astype(img.dtype, copy=False)
        height, width = self.output_size
        moved = _to_pil(img).transform(
            size=(width, height),
            method=Image.Transform.EXTENT,
            data=tuple(self.src_rect),
            resample=interp,
            fill=fill,
        )
        return _from_pil(moved, img)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Shift and scale (N, 2) points."""
        x0, y0, x1, y1 = self.src_rect
        height, width = self.output_size
        scale = np.array([width / (x1 - x0), height / (y1 - y0)], dtype=np.float32)
        return (coords.astype(np.float32) - np.array([x0, y0], dtype=np.float32)) * scale

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Like `apply_image`, by nearest neighbour."""
        return self._sample(segmentation, Image.Resampling.NEAREST, self.fill)


class ResizeTransform(Transform):  # type: ignore[misc]  # fvcore has no types
    """Scale the whole image to a given size.

    uint8 images go through Pillow, whose down-scaling averages all source pixels; others through PyTorch.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None) -> None:
        """
        Args:
            h, w: size of the images to come.
            new_h, new_w: their size afterwards.
            interp: one of PIL's interpolation modes; bilinear by default.
        """
        super().__init__()
        if interp is None:
            interp = Image.Resampling.BILINEAR
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """(h, w[, C]) -> (new_h, new_w[, C]); for floats also (N, h, w, C)."""
        if img.shape[:2] != (self.h, self.w) and img.shape[-3:-1] != (self.h, self.w):
            raise UserValueError(
                f"ResizeTransform expects images of {self.h} x {self.w}, got an array of shape {img.shape}."
            )
        mode = self.interp if interp is None else interp
        if img.dtype == np.uint8:
            return _from_pil(_to_pil(img).resize((self.new_w, self.new_h), Image.Resampling(mode)), img)
        return _resize_by_torch(img, (self.new_h, self.new_w), mode)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Scale (N, 2) points; integers stay integers, without what lies behind their point."""
        scale = np.array([self.new_w / self.w, self.new_h / self.h])
        if np.issubdtype(coords.dtype, np.floating):
            scale = scale.astype(coords.dtype)
        moved: np.ndarray = (coords * scale).astype(coords.dtype, copy=False)
        return moved

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Like `apply_image`, by nearest neighbour."""
        return self.apply_image(segmentation, interp=Image.Resampling.NEAREST)

    def inverse(self) -> Transform:
        """The resize back."""
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.interp)


def _resize_by_torch(img: np.ndarray, size: tuple[int, int], interp: int) -> np.ndarray:
    """(H, W), (H, W, C) or (N, H, W, C) of any dtype -> the same with H, W replaced by `size`."""
    modes = {
        Image.Resampling.NEAREST: "nearest",
        Image.Resampling.BILINEAR: "bilinear",
        Image.Resampling.BICUBIC: "bicubic",
    }
    if interp not in modes:
        raise UserValueError(
            f"Only nearest, bilinear and bicubic resize {img.dtype} images, got PIL mode {interp}."
        )
    batched = img.reshape((-1,) + img.shape[-3:] if img.ndim >= 3 else (1, *img.shape, 1))  # (N, H, W, C)
    planes = torch.from_numpy(np.ascontiguousarray(batched)).permute(0, 3, 1, 2)  # (N, C, H, W)
    align = None if interp == Image.Resampling.NEAREST else False
    planes = torch.nn.functional.interpolate(
        planes, size, mode=modes[Image.Resampling(interp)], align_corners=align
    )
    channels_last = planes.permute(0, 2, 3, 1).numpy()  # (N, h, w, C)
    if img.ndim == 2:
        return channels_last[0, :, :, 0]
    return channels_last.reshape((*img.shape[:-3], *size, img.shape[-1]))


class RotationTransform(Transform):  # type: ignore[misc]  # fvcore has no types
    """Rotate counter-clockwise about a point."""

    def __init__(
        self,
        h: int,
        w: int,
        angle: float,
        expand: bool = True,
        center: tuple[float, float] | None = None,
        interp: int | None = None,
    ) -> None:
        """
        Args:
            h, w: size of the images to come.
            angle: in degrees.
            expand: let the canvas grow to hold the whole rotated image. Without it the size stays.
            center: (x, y) in pixels that stays in place; the middle of the image by default. It has no effect
                when `expand` is set.
            interp: one of OpenCV's interpolation modes; linear by default.
        """
        super().__init__()
        image_center = np.array((w / 2, h / 2))
        if center is None:
            center = (w / 2, h / 2)
        if interp is None:
            interp = 1  # cv2.INTER_LINEAR
        bound_w, bound_h = w, h
        if expand:
            cos, sin = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
            bound_w, bound_h = (int(np.rint(side)) for side in (h * sin + w * cos, h * cos + w * sin))
        self._set_attributes(locals())
        self.rm_coords = self.create_rotation_matrix()
        # Pixel (i, j) covers [i, i + 1) x [j, j + 1): its centre is half a pixel away from its index.
        self.rm_image = self.create_rotation_matrix(offset=-0.5)

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """(h, w[, C]) -> (bound_h, bound_w[, C])."""
        if len(img) == 0 or self.angle % 360 == 0:
            return img
        if img.shape[:2] != (self.h, self.w):
            raise UserValueError(
                f"RotationTransform expects {self.h} x {self.w} images, got shape {img.shape}."
            )
        import cv2  # slow to import, and only rotation needs it

        flags = self.interp if interp is None else interp
        return cv2.warpAffine(img, self.rm_image, (self.bound_w, self.bound_h), flags=flags)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Rotate (N, 2) points."""
        coords = np.asarray(coords, dtype=float)
        if len(coords) == 0 or self.angle % 360 == 0:
            return coords
        moved: np.ndarray = coords @ self.rm_coords[:, :2].T + self.rm_coords[:, 2]
        return moved

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Like `apply_image`, by nearest neighbour."""
        return self.apply_image(segmentation, interp=0)  # cv2.INTER_NEAREST

    def create_rotation_matrix(self, offset: float = 0) -> np.ndarray:
        """(2, 3) affine matrix, for coordinates that are shifted by `offset` pixels against ours."""
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        rotation = np.array([[cos, sin], [-sin, cos]])
        fixed_point = np.asarray(self.center, dtype=float) + offset
        shift = fixed_point - rotation @ fixed_point
        if self.expand:
            new_middle = np.array([self.bound_w / 2, self.bound_h / 2]) + offset
            shift = new_middle - rotation @ (self.image_center + offset)
        return np.concatenate([rotation, shift[:, None]], axis=1)

    def inverse(self) -> Transform:
        """Rotate back, then crop what the two expansions added."""
        if not self.expand:
            raise UserNotImplementedError(
                "A rotation without expand=True lost its corners and has no inverse."
            )
        back = RotationTransform(self.bound_h, self.bound_w, -self.angle, True, None, self.interp)
        x0, y0 = (back.bound_w - self.w) // 2, (back.bound_h - self.h) // 2
        return TransformList([back, CropTransform(x0, y0, self.w, self.h)])


class ColorTransform(Transform):  # type: ignore[misc]  # fvcore has no types
    """Any function of the image array that leaves geometry alone."""

    def __init__(self, op: Callable[[np.ndarray], np.ndarray]) -> None:
        """
        Args:
            op: takes and returns an image of unchanged size.
        """
        if not callable(op):
            raise UserValueError(f"op must be callable, got {type(op).__name__}.")
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Call `op`."""
        changed: np.ndarray = self.op(img)
        return changed

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Return the points unchanged."""
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Return the map unchanged."""
        return segmentation

    def inverse(self) -> Transform:
        """Nothing: colours are not restored, and geometry did not change."""
        return NoOpTransform()


class PILColorTransform(ColorTransform):
    """Any function of a PIL image that leaves geometry alone."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Call `op` on the image in PIL's form."""
        return np.asarray(super().apply_image(Image.fromarray(img)))  # type: ignore[arg-type]


def HFlip_rotated_box(transform: HFlipTransform, rotated_boxes: np.ndarray) -> np.ndarray:
    """Mirror (N, 5) boxes of (x centre, y centre, width, height, angle in degrees) left to right, in
    place."""
    rotated_boxes[:, 0] = transform.width - rotated_boxes[:, 0]
    rotated_boxes[:, 4] *= -1
    return rotated_boxes


def Resize_rotated_box(transform: ResizeTransform, rotated_boxes: np.ndarray) -> np.ndarray:
    """Scale (N, 5) boxes of (x centre, y centre, width, height, angle in degrees), in place.

    With unequal scales a rectangle becomes a parallelogram; the result keeps the lengths and the direction of
    its sides' images, as `RotatedBoxes.scale` does.
    """
    scale_x, scale_y = transform.new_w / transform.w, transform.new_h / transform.h
    rotated_boxes[:, 0] *= scale_x
    rotated_boxes[:, 1] *= scale_y
    theta = np.radians(rotated_boxes[:, 4])
    cos, sin = np.cos(theta), np.sin(theta)
    rotated_boxes[:, 2] *= np.hypot(scale_x * cos, scale_y * sin)
    rotated_boxes[:, 3] *= np.hypot(scale_x * sin, scale_y * cos)
    rotated_boxes[:, 4] = np.degrees(np.arctan2(scale_x * sin, scale_y * cos))
    return rotated_boxes


HFlipTransform.register_type("rotated_box", HFlip_rotated_box)
ResizeTransform.register_type("rotated_box", Resize_rotated_box)
NoOpTransform.register_type("rotated_box", lambda transform, rotated_boxes: rotated_boxes)
