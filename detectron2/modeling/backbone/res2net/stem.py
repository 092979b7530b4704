"""The deep stem of Res2Net, and a norm that is a module of its own.

Shapes: N images of C_in channels and size H x W.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.layers.batch_norm import Norm, get_norm
from detectron2.layers.blocks import CNNBlockBase
from detectron2.layers.weight_init import c2_msra_fill
from detectron2.modeling.backbone.residual import conv_norm
from detectron2.utils.user_errors import UserValueError


def norm_module(norm: Norm, channels: int) -> nn.Module:
    """Make a norm as a module of its own, the identity where there is none."""
    return get_norm(norm, channels) or nn.Identity()


class DeepStem(CNNBlockBase):
    """Three 3x3 convolutions and max pooling in place of the 7x7 convolution; the last norm is `bn1`."""

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: Norm = "BN") -> None:
        super().__init__(in_channels, out_channels, 4)
        if out_channels % 2:
            raise UserValueError(f"the deep stem needs an even number of output channels, got {out_channels}")
        half = out_channels // 2
        # The positions 0, 1, 3, 4 and 6 are checkpoint names.
        self.conv1 = nn.Sequential(
            conv_norm(in_channels, half, 3, stride=2, norm=""),
            norm_module(norm, half),
            nn.ReLU(inplace=True),
            conv_norm(half, half, 3, norm=""),
            norm_module(norm, half),
            nn.ReLU(inplace=True),
            conv_norm(half, out_channels, 3, norm=""),
        )
        self.bn1 = norm_module(norm, out_channels)
        for layer in self.conv1:
            if isinstance(layer, nn.Conv2d):
                c2_msra_fill(layer)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / 4, W / 4)."""
        return F.max_pool2d(F.relu_(self.bn1(self.conv1(x))), kernel_size=3, stride=2, padding=1)
