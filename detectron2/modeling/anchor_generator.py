"""Anchors: the fixed boxes that dense predictors refine.

Shapes: L feature levels; Hi, Wi height and width of level i; A anchors per location of a level; B numbers per
box. Anchors are XYXY (B=4) or XYWHA (B=5, degrees, counter-clockwise), in pixels of the padded input image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.structures.boxes import Boxes
from detectron2.structures.rotated_boxes import RotatedBoxes
from detectron2.utils.registry import Registry
from detectron2.utils.user_errors import UserValueError

ANCHOR_GENERATOR_REGISTRY = Registry("ANCHOR_GENERATOR")
ANCHOR_GENERATOR_REGISTRY.__doc__ = """
Modules, called as `(cfg, input_shape: list[ShapeSpec])`, that turn a list of feature maps into a list of
anchors.
"""

# One list for all levels, or one list per level.
PerLevel = Sequence[Sequence[float]] | Sequence[float]


class BufferList(nn.Module):
    """A list of tensors that moves with its module and stays out of checkpoints."""

    def __init__(self, buffers: Sequence[Tensor]) -> None:
        super().__init__()
        for i, tensor in enumerate(buffers):
            self.register_buffer(str(i), tensor, persistent=False)

    def __len__(self) -> int:
        return len(self._buffers)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._buffers.values())  # type: ignore[arg-type]  # none of them is None


def _broadcast_params(params: PerLevel, num_features: int, name: str) -> list[list[float]]:
    """Give every level its own list: one list (flat or nested) is shared by all levels."""
    if not len(params):
        raise UserValueError(f"Anchor {name} must not be empty")
    nested: list[Any] = [list(v) if isinstance(v, Sequence) else v for v in params]
    if not isinstance(nested[0], list):
        nested = [nested]
    if len(nested) == 1:
        nested = nested * num_features
    if len(nested) != num_features:
        raise UserValueError(
            f"Anchor {name} must be one list, or one list for each of the {num_features} feature levels; "
            f"got {len(nested)} lists. See MODEL.ANCHOR_GENERATOR and the IN_FEATURES of the head."
        )
    return nested


def location_grid(size: Sequence[int], stride: int, offset: float, like: Tensor) -> Tensor:
    """(Hi * Wi, 2) x and y of the locations of a feature map, row by row."""
    x = (torch.arange(size[1], device=like.device, dtype=torch.float32) + offset) * stride
    y = (torch.arange(size[0], device=like.device, dtype=torch.float32) + offset) * stride
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((grid_x.flatten(), grid_y.flatten()), dim=1)


def _cell_sizes(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> Tensor:
    """(sizes * ratios, 2) float64 widths and heights; ratios (height / width) vary fastest."""
    area = torch.as_tensor(sizes, dtype=torch.float64)[:, None] ** 2
    ratio = torch.as_tensor(aspect_ratios, dtype=torch.float64)[None]
    width = (area / ratio).sqrt()
    return torch.stack((width, ratio * width), dim=-1).flatten(0, 1)


class _GridAnchorGenerator(nn.Module):
    """The same few cell anchors at every location of a regular grid, per feature level."""

    box_dim: int

    def _setup(self, cell_anchors: list[Tensor], strides: Sequence[int], offset: float) -> None:
        if not 0.0 <= offset < 1.0:
            raise UserValueError(f"Anchor offset is a fraction of the stride in [0, 1), got {offset}")
        self.strides = list(strides)
        self.offset = offset
        self.num_features = len(self.strides)
        self.cell_anchors = BufferList(cell_anchors)

    @property
    def num_cell_anchors(self) -> list[int]:
        """Another name of `num_anchors`."""
        return self.num_anchors

    @property
    def num_anchors(self) -> list[int]:
        """Anchors per location, for each level. A head that is shared by levels needs these to be equal."""
        return [len(cell) for cell in self.cell_anchors]

    def _grid_anchors(self, grid_sizes: Sequence[Sequence[int]]) -> list[Tensor]:
        """L (height, width) -> L tensors (Hi * Wi * A, B), location by location."""
        if len(grid_sizes) != self.num_features:
            raise UserValueError(
                f"Expected {self.num_features} feature maps, one per stride; got {len(grid_sizes)}"
            )
        anchors = []
        for size, stride, cell in zip(grid_sizes, self.strides, self.cell_anchors):
            shift = self._as_shift(location_grid(size, stride, self.offset, cell))
            anchors.append((shift[:, None] + cell[None]).flatten(0, 1))  # (HiWi, 1, B) + (1, A, B)
        return anchors

    def _as_shift(self, locations: Tensor) -> Tensor:
        """(M, 2) locations -> (M, B) what to add to a cell anchor there."""
        raise NotImplementedError


@ANCHOR_GENERATOR_REGISTRY.register()
class DefaultAnchorGenerator(_GridAnchorGenerator):
    """Axis-aligned anchors of given sizes and shapes around every feature location."""

    box_dim: int = 4

    @configurable
    def __init__(
        self, *, sizes: PerLevel, aspect_ratios: PerLevel, strides: Sequence[int], offset: float = 0.5
    ) -> None:
        """
        Args:
            sizes: square root of the anchors' areas in pixels; one list for all levels or one per level.
            aspect_ratios: height / width; one list for all levels or one per level.
            strides: of each feature level, in pixels.
            offset: where in its cell a location lies, as a fraction of the stride.
        """
        super().__init__()
        cells = self._calculate_anchors(
            _broadcast_params(sizes, len(strides), "sizes"),
            _broadcast_params(aspect_ratios, len(strides), "aspect_ratios"),
        )
        self._setup(cells, strides, offset)

    def _calculate_anchors(
        self, sizes: Sequence[Sequence[float]], aspect_ratios: Sequence[Sequence[float]]
    ) -> list[Tensor]:
        """Make the cell anchors of every level, (A, 4), from its sizes and ratios."""
        return [self.generate_cell_anchors(*of_level) for of_level in zip(sizes, aspect_ratios)]

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        node = cfg.MODEL.ANCHOR_GENERATOR
        return {
            "sizes": node.SIZES,
            "aspect_ratios": node.ASPECT_RATIOS,
            "strides": [shape.stride for shape in input_shape],
            "offset": node.OFFSET,
        }

    def generate_cell_anchors(
        self,
        sizes: Sequence[float] = (32, 64, 128, 256, 512),
        aspect_ratios: Sequence[float] = (0.5, 1, 2),
    ) -> Tensor:
        """Return the anchors of one location.

        Args:
            sizes: square root of the areas.
            aspect_ratios: height / width.

        Returns:
            (A, 4) XYXY around the origin, A = len(sizes) * len(aspect_ratios), ratios varying fastest.
        """
        half = _cell_sizes(sizes, aspect_ratios) / 2
        return torch.cat((-half, half), dim=1).float()

    def _as_shift(self, locations: Tensor) -> Tensor:
        return locations.repeat(1, 2)

    def forward(self, features: list[Tensor]) -> list[Boxes]:
        """L feature maps (N, C, Hi, Wi) -> L `Boxes` of Hi * Wi * A anchors, the same for every image."""
        return [Boxes(anchors) for anchors in self._grid_anchors([f.shape[-2:] for f in features])]


@ANCHOR_GENERATOR_REGISTRY.register()
class RotatedAnchorGenerator(_GridAnchorGenerator):
    """Anchors of given sizes, shapes and angles around every feature location."""

    box_dim: int = 5

    @configurable
    def __init__(
        self,
        *,
        sizes: PerLevel,
        aspect_ratios: PerLevel,
        strides: Sequence[int],
        angles: PerLevel,
        offset: float = 0.5,
    ) -> None:
        """
        Args:
            sizes, aspect_ratios, strides, offset: as in `DefaultAnchorGenerator`.
            angles: in degrees, counter-clockwise; one list for all levels or one per level.
        """
        super().__init__()
        cells = [
            self.generate_cell_anchors(level_sizes, level_ratios, level_angles)
            for level_sizes, level_ratios, level_angles in zip(
                _broadcast_params(sizes, len(strides), "sizes"),
                _broadcast_params(aspect_ratios, len(strides), "aspect_ratios"),
                _broadcast_params(angles, len(strides), "angles"),
            )
        ]
        self._setup(cells, strides, offset)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        node = cfg.MODEL.ANCHOR_GENERATOR
        return {
            "sizes": node.SIZES,
            "aspect_ratios": node.ASPECT_RATIOS,
            "angles": node.ANGLES,
            "strides": [shape.stride for shape in input_shape],
            "offset": node.OFFSET,
        }

    def generate_cell_anchors(
        self,
        sizes: Sequence[float] = (32, 64, 128, 256, 512),
        aspect_ratios: Sequence[float] = (0.5, 1, 2),
        angles: Sequence[float] = (-90, -60, -30, 0, 30, 60, 90),
    ) -> Tensor:
        """Return the anchors of one location.

        Returns:
            (A, 5) XYWHA around the origin; angles vary fastest, then aspect ratios, then sizes.
        """
        wh = _cell_sizes(sizes, aspect_ratios).repeat_interleave(len(angles), dim=0)
        angle = torch.as_tensor(angles, dtype=torch.float64).repeat(len(wh) // len(angles))
        return torch.cat((torch.zeros_like(wh), wh, angle[:, None]), dim=1).float()

    def _as_shift(self, locations: Tensor) -> Tensor:
        return nn.functional.pad(locations, (0, 3))

    def forward(self, features: list[Tensor]) -> list[RotatedBoxes]:
        """L feature maps (N, C, Hi, Wi) -> L `RotatedBoxes` of Hi * Wi * A anchors, equal for all images."""
        return [RotatedBoxes(anchors) for anchors in self._grid_anchors([f.shape[-2:] for f in features])]


def build_anchor_generator(cfg: CfgNode, input_shape: list[ShapeSpec]) -> nn.Module:
    """Build the generator `MODEL.ANCHOR_GENERATOR.NAME` for feature maps of the given shapes."""
    generator: nn.Module = ANCHOR_GENERATOR_REGISTRY.get(cfg.MODEL.ANCHOR_GENERATOR.NAME)(cfg, input_shape)
    return generator
