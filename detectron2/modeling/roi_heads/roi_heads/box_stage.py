"""What box heads of one stage and of several share: a pooler, and the way of one image through their parts.

Shapes: R regions; K foreground classes; Kb boxes per region, K or 1. Boxes are XYXY in input-image pixels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from detectron2.config.config.node import CfgNode
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.modeling.backbone.backbone import stated
from detectron2.modeling.inference import (
    class_probabilities,
)
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures.boxes import Boxes
from detectron2.utils.user_errors import UserValueError


def run_box_head(
    pooler: nn.Module, head: nn.Module, predictor: Any, feature_list: list[Tensor], sources: Boxes
) -> tuple[Tensor, Tensor]:
    """Score and refine the boxes of one image.

    Args:
        pooler: feature maps and boxes -> features of regions.
        head: these -> features to predict from.
        predictor: a `FastRCNNOutputLayers`.
        feature_list: (1, C, Hi, Wi) each.
        sources: R boxes, upright or rotated.

    Returns:
        (R, Kb, B) boxes and (R, K + 1) probabilities.
    """
    logits, deltas = predictor(head(pooler(feature_list, [sources])))
    return predictor.decode(deltas, sources.tensor), class_probabilities(logits, predictor.use_sigmoid_ce)


def build_pooler(
    cfg: CfgNode, node: CfgNode, input_shape: dict[str, ShapeSpec]
) -> tuple[ROIPooler, ShapeSpec]:
    """The pooler that a head's node describes, over `MODEL.ROI_HEADS.IN_FEATURES`, and the shape it gives."""
    shapes = [input_shape[name] for name in cfg.MODEL.ROI_HEADS.IN_FEATURES]
    channels = {stated(shape.channels, "channels") for shape in shapes}
    if len(channels) != 1:
        raise UserValueError(
            f"Feature maps of MODEL.ROI_HEADS.IN_FEATURES need equal channels, got {sorted(channels)}"
        )
    resolution = node.POOLER_RESOLUTION
    pooler = ROIPooler(
        output_size=resolution,
        scales=[1.0 / stated(shape.stride, "stride") for shape in shapes],
        sampling_ratio=node.POOLER_SAMPLING_RATIO,
        pooler_type=node.POOLER_TYPE,
    )
    return pooler, ShapeSpec(channels=channels.pop(), height=resolution, width=resolution)
