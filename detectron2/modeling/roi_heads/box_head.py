"""Box heads: pooled features of a region -> one vector (or map) of features to predict from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.layers.batch_norm import get_norm
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.weight_init import c2_msra_fill, c2_xavier_fill
from detectron2.layers.wrappers import Conv2d
from detectron2.utils.registry import Registry
from detectron2.utils.user_errors import UserValueError

from ..backbone.backbone import stated

ROI_BOX_HEAD_REGISTRY = Registry("ROI_BOX_HEAD")
ROI_BOX_HEAD_REGISTRY.__doc__ = """
Modules made by `(cfg, input_shape: ShapeSpec)`, with an attribute `output_shape: ShapeSpec`.
"""


@ROI_BOX_HEAD_REGISTRY.register()
class FastRCNNConvFCHead(nn.Sequential):
    """Some 3x3 convolutions, then some fully connected layers, each followed by ReLU."""

    @configurable
    def __init__(
        self, input_shape: ShapeSpec, *, conv_dims: Sequence[int], fc_dims: Sequence[int], conv_norm: str = ""
    ) -> None:
        """
        Args:
            input_shape: channels, height and width of the pooled features.
            conv_dims: output channels of the convolutions.
            fc_dims: outputs of the fully connected layers.
            conv_norm: normalisation after each convolution, see `get_norm`.
        """
        super().__init__()
        if not conv_dims and not fc_dims:
            raise UserValueError(
                "FastRCNNConvFCHead without layers: set MODEL.ROI_BOX_HEAD.NUM_CONV or NUM_FC above 0"
            )
        channels = stated(input_shape.channels, "input channels of the box head")
        for i, dim in enumerate(conv_dims, start=1):
            norm = get_norm(conv_norm, dim)
            conv = Conv2d(channels, dim, 3, padding=1, bias=not conv_norm, norm=norm, activation=F.relu)
            self.add_module(f"conv{i}", conv)
            channels = dim
        self._output = ShapeSpec(channels=channels, height=input_shape.height, width=input_shape.width)
        if fc_dims:
            self.add_module("flatten", nn.Flatten())
            width = channels * math.prod(side or 1 for side in (input_shape.height, input_shape.width))
            for i, dim in enumerate(fc_dims, start=1):
                self.add_module(f"fc{i}", nn.Linear(width, dim))
                self.add_module(f"fc_relu{i}", nn.ReLU())
                width = dim
            self._output = ShapeSpec(channels=width)
        # Not while they are made: the order decides seeded initial weights.
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                c2_msra_fill(layer)
            elif isinstance(layer, nn.Linear):
                c2_xavier_fill(layer)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        node = cfg.MODEL.ROI_BOX_HEAD
        return {
            "input_shape": input_shape,
            "conv_dims": [node.CONV_DIM] * node.NUM_CONV,
            "fc_dims": [node.FC_DIM] * node.NUM_FC,
            "conv_norm": node.NORM,
        }

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, H, W) -> (R, D), or (R, D, H, W) without fully connected layers."""
        for layer in self:
            x = layer(x)
        return x

    @property
    def output_shape(self) -> ShapeSpec:
        """Channels of the output; height and width too where it is a map."""
        return self._output


def build_box_head(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:
    """Build the head `MODEL.ROI_BOX_HEAD.NAME` for pooled features of the given shape."""
    head: nn.Module = ROI_BOX_HEAD_REGISTRY.get(cfg.MODEL.ROI_BOX_HEAD.NAME)(cfg, input_shape)
    return head
