"""The head of RetinaNet, shared by all feature levels; that of FCOS is built on it.

Shapes: N images; L feature levels; Hi, Wi size of level i; A anchors per location; K foreground classes.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from torch import Tensor, nn

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.layers.batch_norm import CycleBatchNormList, Norm, get_norm
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.utils.user_errors import UserValueError

from ..anchor_generator import build_anchor_generator
from ..backbone.backbone import stated

logger = logging.getLogger(__name__)


class RetinaNetHead(nn.Module):
    """Two stacks of convolutions that all levels share, one for classes and one for boxes."""

    @configurable
    def __init__(
        self,
        *,
        input_shape: list[ShapeSpec],
        num_classes: int,
        num_anchors: int,
        conv_dims: list[int],
        norm: Norm = "",
        prior_prob: float = 0.01,
    ) -> None:
        """
        Args:
            input_shape: channels of the feature levels.
            num_classes: K.
            num_anchors: A.
            conv_dims: channels of the convolutions of a stack.
            norm: normalisation after them, see `get_norm`. "BN" and "SyncBN" keep statistics for each level,
                because levels differ.
            prior_prob: score of an untrained model, far below 1/2 because nearly all anchors are background.
        """
        super().__init__()
        if not 0 < prior_prob < 1:
            raise UserValueError(f"prior_prob must lie in (0, 1), got {prior_prob}")
        self._num_features = len(input_shape)
        self.cls_subnet, self.bbox_subnet = self._make_subnets(
            stated(input_shape[0].channels, "channels of the feature levels"), conv_dims, norm
        )
        self.cls_score = nn.Conv2d(conv_dims[-1], num_anchors * num_classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(conv_dims[-1], num_anchors * 4, 3, padding=1)
        for part in (self.cls_subnet, self.bbox_subnet, self.cls_score, self.bbox_pred):
            init_convolutions(part)
        nn.init.constant_(self.cls_score.bias, math.log(prior_prob / (1 - prior_prob)))  # type: ignore[arg-type]  # it has one

    def _make_subnets(
        self, in_channels: int, conv_dims: list[int], norm: Norm
    ) -> tuple[nn.Sequential, nn.Sequential]:
        """Both stacks; positions of layers are checkpoint names."""
        if not conv_dims:
            raise UserValueError("the head needs at least one convolution: MODEL.RETINANET.NUM_CONVS")
        stacks: tuple[list[nn.Module], list[nn.Module]] = ([], [])
        for inputs, outputs in zip([in_channels, *conv_dims], conv_dims):
            for layers in stacks:
                layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
                norm_layer = _norm_of_levels(norm, outputs, self._num_features)
                layers.extend([norm_layer] if norm_layer is not None else [])
                layers.append(nn.ReLU())
        if isinstance(norm, str) and norm.startswith("naiveSync"):
            logger.warning(
                "RetinaNetHead shares one %s by all feature levels, whose statistics differ; BN, SyncBN and "
                "GN do not mix them.",
                norm,
            )
        return nn.Sequential(*stacks[0]), nn.Sequential(*stacks[1])

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        node = cfg.MODEL.RETINANET
        num_anchors = set(build_anchor_generator(cfg, input_shape).num_cell_anchors)  # type: ignore[arg-type]  # a list
        if len(num_anchors) != 1:
            raise UserValueError(
                f"A head shared by all levels needs as many anchors on each, got {sorted(num_anchors)}; see "
                "MODEL.ANCHOR_GENERATOR.SIZES and ASPECT_RATIOS"
            )
        return {
            "input_shape": input_shape,
            "num_classes": node.NUM_CLASSES,
            "num_anchors": num_anchors.pop(),
            "conv_dims": [input_shape[0].channels] * node.NUM_CONVS,
            "norm": node.NORM,
            "prior_prob": node.PRIOR_PROB,
        }

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], ...]:
        """L maps (N, C, Hi, Wi) -> L class logits (N, A*K, Hi, Wi) and L deltas (N, A*4, Hi, Wi)."""
        self._check_num_levels(features)
        logits = [self.cls_score(self.cls_subnet(x)) for x in features]
        deltas = [self.bbox_pred(self.bbox_subnet(x)) for x in features]
        return logits, deltas

    def _check_num_levels(self, features: list[Tensor]) -> None:
        if len(features) != self._num_features:
            raise UserValueError(f"the head is made for {self._num_features} levels, got {len(features)}")


def _norm_of_levels(norm: Norm, channels: int, num_levels: int) -> nn.Module | None:
    if norm == "BN":
        return CycleBatchNormList(num_levels, nn.BatchNorm2d, num_features=channels)
    if norm == "SyncBN":
        return CycleBatchNormList(num_levels, nn.SyncBatchNorm, num_features=channels)
    return get_norm(norm, channels)


def init_convolutions(module: nn.Module) -> None:
    """Draw the weights of all convolutions in a module, itself included, as the head's are; zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
