"""The pyramid that ViTDet puts on a single map.

Shapes: N images of H x W; level `p<l>` is (N, C, ceil(H / 2^l), ceil(W / 2^l)).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from detectron2.layers.batch_norm import Norm, get_norm
from detectron2.utils.user_errors import UserValueError

from .backbone import Backbone, stated
from .pyramid import Pyramid, TopBlock, levels_of_strides, make_conv


class SimpleFeaturePyramid(Pyramid):
    """Maps of several resolutions, each made from the same single map of another backbone."""

    def __init__(
        self,
        net: Backbone,
        in_feature: str,
        out_channels: int,
        scale_factors: Sequence[float],
        top_block: TopBlock | None = None,
        norm: Norm = "LN",
        square_pad: int = 0,
    ) -> None:
        """
        Args:
            net: gives the map `in_feature`.
            in_feature: name of that map.
            out_channels: of every level.
            scale_factors: resolutions of the levels by that of the map: 4, 2, 1 or 0.5, from fine to coarse.
            top_block: makes further, coarser levels, from the map or level that its `in_feature` names.
            norm: after each convolution; "" or None means bias instead.
            square_pad: side of the square that images are padded to; 0 means no square.
        """
        super().__init__()
        shapes = net.output_shape()
        if in_feature not in shapes:
            raise UserValueError(
                f"in_feature {in_feature!r} is not among the backbone's outputs {list(shapes)}"
            )
        channels = stated(shapes[in_feature].channels, f"channels of {in_feature}")
        stride = stated(shapes[in_feature].stride, f"stride of {in_feature}")
        levels = levels_of_strides([stride / scale for scale in scale_factors])
        for level, scale in zip(levels, scale_factors):
            self.add_module(f"simfp_{level}", _make_pyramid_level(channels, out_channels, scale, norm))
        self.net = net
        self.in_feature = in_feature
        self.top_block = top_block
        self._declare_levels(levels, out_channels, square_pad, shapes)

    @property
    def padding_constraints(self) -> dict[str, int]:
        return {"size_divisibility": self._size_divisibility, "square_size": self._square_pad}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C_in, H, W) images -> {"p2": (N, C, H / 4, W / 4), "p3": ..., ...}."""
        bottom_up = self.net(x)
        source = bottom_up[self.in_feature]
        levels = [self.get_submodule(f"simfp_{level}")(source) for level in self._levels]
        return self._add_top_levels(bottom_up, levels)


def _make_pyramid_level(channels: int, out_channels: int, scale: float, norm: Norm) -> nn.Sequential:
    """Change the resolution by `scale`, then a 1x1 and a 3x3 convolution to `out_channels`."""
    layers: list[nn.Module]
    if scale in (4.0, 2.0):
        layers = [nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2)]
        channels //= 2
        if scale == 4.0:
            # Positions in the Sequential are checkpoint names.
            layers += [get_norm(norm, channels) or nn.Identity(), nn.GELU()]
            layers += [nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2)]
            channels //= 2
    elif scale == 1.0:
        layers = []
    elif scale == 0.5:
        layers = [nn.MaxPool2d(kernel_size=2, stride=2)]
    else:
        raise UserValueError(f"scale_factors must be among 4, 2, 1 and 0.5, got {scale}")
    for kernel_size in (1, 3):
        layers.append(make_conv(channels, out_channels, kernel_size, norm))
        channels = out_channels
    return nn.Sequential(*layers)
