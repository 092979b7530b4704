"""Feature pyramid networks.

Shapes: N images; level `p<l>` is (N, C, ceil(H / 2^l), ceil(W / 2^l)) for images of H x W.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.config.config.node import CfgNode
from detectron2.layers.batch_norm import Norm
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.weight_init import c2_xavier_fill
from detectron2.layers.wrappers import Conv2d
from detectron2.utils.user_errors import UserValueError

from .backbone import Backbone, stated
from .build import BACKBONE_REGISTRY
from .pyramid import Pyramid, TopBlock, check_strides_double, levels_of_strides, make_conv

# Projects with pyramids of their own import the check by this name.
from .pyramid import check_strides_double as _assert_strides_are_log2_contiguous  # noqa: F401
from .resnet import build_resnet_backbone

__all__ = [
    "FPN",
    "LastLevelMaxPool",
    "LastLevelP6P7",
    "build_fpn",
    "build_resnet_fpn_backbone",
    "build_retinanet_fpn",
    "build_retinanet_resnet_fpn_backbone",
]


_FUSE_TYPES = ("sum", "avg")


class FPN(Pyramid):
    """Top-down pathway with lateral connections over the feature maps of another backbone."""

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        norm: Norm = "",
        top_block: TopBlock | None = None,
        fuse_type: str = "sum",
        square_pad: int = 0,
    ) -> None:
        """
        Args:
            bottom_up: gives the maps named in `in_features`.
            in_features: from high to low resolution, each of half the resolution of the one before.
            out_channels: of every level.
            norm: after each convolution; "" or None means bias instead.
            top_block: makes `num_levels` coarser levels from the map that its `in_feature` names, in
                `bottom_up` or among the levels made here.
            fuse_type: "sum" or "avg" of lateral and top-down maps.
            square_pad: side of the square that images are padded to; 0 means no square.
        """
        super().__init__()
        if not in_features:
            raise UserValueError("FPN needs in_features (MODEL.FPN.IN_FEATURES), got none")
        if fuse_type not in _FUSE_TYPES:
            raise UserValueError(f"FPN fuse_type must be one of {_FUSE_TYPES}, got {fuse_type!r}")
        shapes = bottom_up.output_shape()
        missing = [name for name in in_features if name not in shapes]
        if missing:
            raise UserValueError(
                f"FPN in_features {missing} are not among the backbone's outputs {list(shapes)}"
            )
        strides = [stated(shapes[name].stride, f"stride of {name}") for name in in_features]
        check_strides_double(strides)

        levels = levels_of_strides(strides)
        for level, name in zip(levels, in_features):
            lateral, output = _make_level(
                stated(shapes[name].channels, f"channels of {name}"), out_channels, norm
            )
            self.add_module(f"fpn_lateral{level}", lateral)
            self.add_module(f"fpn_output{level}", output)
        self.top_block = top_block
        self.in_features = tuple(in_features)
        self.bottom_up = bottom_up
        self._declare_levels(levels, out_channels, square_pad, shapes)
        self._fuse_type = fuse_type

    @property
    def lateral_convs(self) -> list[nn.Module]:
        """The 1x1 convolutions, coarsest level first."""
        return [self.get_submodule(f"fpn_lateral{level}") for level in reversed(self._levels)]

    @property
    def output_convs(self) -> list[nn.Module]:
        """The 3x3 convolutions, coarsest level first."""
        return [self.get_submodule(f"fpn_output{level}") for level in reversed(self._levels)]

    @property
    def padding_constraints(self) -> dict[str, int]:
        return {"square_size": self._square_pad}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) images, H and W multiples of `size_divisibility` -> {"p2": ..., "p3": ..., ...}."""
        bottom_up = self.bottom_up(x)
        results: list[Tensor] = []
        fused: Tensor | None = None
        # From coarse to fine: every level starts from the fused map of the one above it.
        for name, lateral_conv, output_conv in zip(
            reversed(self.in_features), self.lateral_convs, self.output_convs
        ):
            fused = self._fuse(lateral_conv(bottom_up[name]), fused)
            results.append(output_conv(fused))
        results.reverse()
        return self._add_top_levels(bottom_up, results)

    def _fuse(self, lateral: Tensor, coarser: Tensor | None) -> Tensor:
        """Add the coarser fused map (N, C, H / 2, W / 2), enlarged, to the lateral map (N, C, H, W)."""
        if coarser is None:
            return lateral
        fused = lateral + F.interpolate(coarser, scale_factor=2.0, mode="nearest")
        return fused / 2 if self._fuse_type == "avg" else fused


def _make_level(in_channels: int, out_channels: int, norm: Norm) -> tuple[Conv2d, Conv2d]:
    """Make the lateral 1x1 and the output 3x3 convolution of one level."""
    lateral = make_conv(in_channels, out_channels, 1, norm)
    output = make_conv(out_channels, out_channels, 3, norm)
    c2_xavier_fill(lateral)
    c2_xavier_fill(output)
    return lateral, output


class LastLevelMaxPool(nn.Module):
    """Make p6 by taking every second pixel of p5."""

    def __init__(self) -> None:
        super().__init__()
        self.num_levels = 1
        self.in_feature = "p5"

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> one map (N, C, ceil(H / 2), ceil(W / 2))."""
        return [F.max_pool2d(x, kernel_size=1, stride=2, padding=0)]


class LastLevelP6P7(nn.Module):
    """Make p6 and p7 by strided 3x3 convolutions, as RetinaNet does."""

    def __init__(self, in_channels: int, out_channels: int, in_feature: str = "res5") -> None:
        super().__init__()
        self.num_levels = 2
        self.in_feature = in_feature
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1)
        for conv in (self.p6, self.p7):
            c2_xavier_fill(conv)

    def forward(self, c5: Tensor) -> list[Tensor]:
        """(N, C_in, H, W) -> p6 of half and p7 of a quarter of that resolution."""
        p6 = self.p6(c5)
        return [p6, self.p7(F.relu(p6))]


def build_fpn(cfg: CfgNode, bottom_up: Backbone, top_block: TopBlock | None) -> FPN:
    """Put the pyramid that `MODEL.FPN` describes on `bottom_up`."""
    node = cfg.MODEL.FPN
    return FPN(
        bottom_up=bottom_up,
        in_features=node.IN_FEATURES,
        out_channels=node.OUT_CHANNELS,
        norm=node.NORM,
        top_block=top_block,
        fuse_type=node.FUSE_TYPE,
    )


def build_retinanet_fpn(cfg: CfgNode, bottom_up: Backbone) -> FPN:
    """Put the pyramid that `MODEL.FPN` describes on `bottom_up`, with p6 and p7 made from its res5."""
    shapes = bottom_up.output_shape()
    if "res5" not in shapes:
        raise UserValueError(
            f"p6 and p7 are made from res5: add it to MODEL.RESNETS.OUT_FEATURES {list(shapes)}"
        )
    in_channels = stated(shapes["res5"].channels, "channels of res5")
    return build_fpn(cfg, bottom_up, LastLevelP6P7(in_channels, cfg.MODEL.FPN.OUT_CHANNELS))


@BACKBONE_REGISTRY.register()
def build_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build a ResNet with a feature pyramid, p6 made by pooling."""
    return build_fpn(cfg, build_resnet_backbone(cfg, input_shape), LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_retinanet_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build a ResNet with a feature pyramid, p6 and p7 made from res5."""
    return build_retinanet_fpn(cfg, build_resnet_backbone(cfg, input_shape))
