"""Heads of region proposal networks: objectness and deltas at every anchor of every level.

Shapes: N images; L feature levels; C channels; Hi, Wi size of level i; A anchors per location; B numbers per
box, 4 or 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.wrappers import Conv2d
from detectron2.utils.registry import Registry
from detectron2.utils.user_errors import UserValueError

from ..anchor_generator import build_anchor_generator
from ..backbone.backbone import stated

RPN_HEAD_REGISTRY = Registry("RPN_HEAD")
RPN_HEAD_REGISTRY.__doc__ = """
Modules made by `(cfg, input_shape: list[ShapeSpec])`: L features -> L objectness logits and L anchor deltas.
"""


def build_rpn_head(cfg: CfgNode, input_shape: list[ShapeSpec]) -> nn.Module:
    """Build the head `MODEL.RPN.HEAD_NAME` for features of the given shapes."""
    head: nn.Module = RPN_HEAD_REGISTRY.get(cfg.MODEL.RPN.HEAD_NAME)(cfg, input_shape)
    return head


def _only(values: Sequence[int], what: str) -> int:
    distinct = set(values)
    if len(distinct) != 1:
        raise UserValueError(
            f"The RPN head is shared by all feature levels, which need equal {what}; got {list(values)}"
        )
    return distinct.pop()


@RPN_HEAD_REGISTRY.register()
class StandardRPNHead(nn.Module):
    """3x3 convolutions with ReLU, then a 1x1 for objectness and a 1x1 for deltas; shared by all levels."""

    @configurable
    def __init__(
        self, *, in_channels: int, num_anchors: int, box_dim: int = 4, conv_dims: Sequence[int] = (-1,)
    ) -> None:
        """
        Args:
            in_channels: C, the same at all levels.
            num_anchors: A.
            box_dim: B.
            conv_dims: output channels of the 3x3 convolutions; -1 keeps the number of input channels.
        """
        super().__init__()
        widths = [in_channels if dim == -1 else dim for dim in conv_dims]
        if not widths or min(widths) <= 0:
            raise UserValueError(
                f"MODEL.RPN.CONV_DIMS needs one or more entries, each positive or -1; got {list(conv_dims)}"
            )
        ins = [in_channels, *widths[:-1]]
        convs = [self._get_rpn_conv(i, o) for i, o in zip(ins, widths)]
        # The names are those of checkpoints: a lone convolution has no index.
        self.conv: nn.Module = convs[0]
        if len(convs) > 1:
            self.conv = nn.Sequential()
            for i, conv in enumerate(convs):
                self.conv.add_module(f"conv{i}", conv)
        self.objectness_logits = nn.Conv2d(widths[-1], num_anchors, 1)
        self.anchor_deltas = nn.Conv2d(widths[-1], num_anchors * box_dim, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def _get_rpn_conv(self, in_channels: int, out_channels: int) -> nn.Module:
        """Make one of the layers before the two that predict; a subclass may have others."""
        return Conv2d(in_channels, out_channels, 3, padding=1, activation=nn.ReLU())

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        anchor_generator: Any = build_anchor_generator(cfg, input_shape)
        return {
            "in_channels": _only(
                [stated(s.channels, "channels") for s in input_shape], "numbers of channels"
            ),
            "num_anchors": _only(anchor_generator.num_anchors, "numbers of anchors per location"),
            "box_dim": anchor_generator.box_dim,
            "conv_dims": cfg.MODEL.RPN.CONV_DIMS,
        }

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """L features (N, C, Hi, Wi) -> L logits (N, A, Hi, Wi) and L deltas (N, A*B, Hi, Wi)."""
        hidden = [self.conv(f) for f in features]
        return [self.objectness_logits(h) for h in hidden], [self.anchor_deltas(h) for h in hidden]
