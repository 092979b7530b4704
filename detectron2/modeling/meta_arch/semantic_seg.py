"""Semantic segmentation: a class for every pixel.

Shapes: N images; K classes; H, W size of the padded network input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.layers.batch_norm import Norm, get_norm
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.weight_init import c2_msra_fill
from detectron2.layers.wrappers import Conv2d
from detectron2.utils.registry import Registry
from detectron2.utils.user_errors import UserValueError

from ..backbone.backbone import Backbone
from ..backbone.build import build_backbone
from ..postprocessing import sem_seg_postprocess
from .build import META_ARCH_REGISTRY
from .image_model import ImageModel, output_size

SEM_SEG_HEADS_REGISTRY = Registry("SEM_SEG_HEADS")
SEM_SEG_HEADS_REGISTRY.__doc__ = """
Modules made by `(cfg, input_shape: dict[str, ShapeSpec])`; called as `SemSegFPNHead.forward` is.
"""


def build_sem_seg_head(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """Build the head `MODEL.SEM_SEG_HEAD.NAME` for features of the given shapes."""
    head: nn.Module = SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.SEM_SEG_HEAD.NAME)(cfg, input_shape)
    return head


@META_ARCH_REGISTRY.register()
class SemanticSegmentor(ImageModel):
    """Backbone and a semantic head."""

    class_count_keys = {"stuff": "MODEL.SEM_SEG_HEAD.NUM_CLASSES"}

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        """
        Args:
            backbone: images -> feature maps by name.
            sem_seg_head: features -> logits, or losses in training.
            pixel_mean: per channel, subtracted from images.
            pixel_std: per channel, divides images then.
        """
        super().__init__()
        self._setup_images(backbone, pixel_mean, pixel_std)
        self.sem_seg_head = sem_seg_head

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        backbone = build_backbone(cfg)
        return {
            "backbone": backbone,
            "sem_seg_head": build_sem_seg_head(cfg, backbone.output_shape()),
            **cls.image_arguments(cfg),
        }

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Train or segment.

        Args:
            batched_inputs: per image, a dict with `image` (C, H, W); in training `sem_seg`, (H, W) labels;
                `height` and `width` of the results wanted.

        Returns:
            In training a dict of losses; otherwise, per image, {"sem_seg": (K, height, width) logits}.
        """
        targets = None
        if self.training:
            targets = self._sem_seg_targets(batched_inputs, *label_range(self.sem_seg_head))
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        results, losses = self.sem_seg_head(features, targets)
        if self.training:
            return losses
        return [
            {"sem_seg": sem_seg_postprocess(logits, size, *output_size(x, size))}
            for logits, x, size in zip(results.unbind(), batched_inputs, images.image_sizes)
        ]


def label_range(sem_seg_head: nn.Module) -> tuple[int | None, int]:
    """Number of classes (None where an own head does not say) and the ignored label of a semantic head."""
    return getattr(sem_seg_head, "num_classes", None), getattr(sem_seg_head, "ignore_value", 255)


@SEM_SEG_HEADS_REGISTRY.register()
class SemSegFPNHead(nn.Module):
    """Bring every pyramid level to one stride by convolutions and doublings, add all up, and predict."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        conv_dims: int,
        common_stride: int,
        loss_weight: float = 1.0,
        norm: Norm = None,
        ignore_value: int = -1,
    ) -> None:
        """
        Args:
            input_shape: channels and stride of the feature maps to use.
            num_classes: K.
            conv_dims: channels of the intermediate maps.
            common_stride: stride of the map that is predicted from.
            loss_weight: factor of the loss.
            norm: normalisation after each convolution, see `get_norm`.
            ignore_value: the label that is not trained on.
        """
        super().__init__()
        if not input_shape:
            raise UserValueError(
                "SemSegFPNHead needs at least one feature map: MODEL.SEM_SEG_HEAD.IN_FEATURES"
            )
        shapes = sorted(input_shape.items(), key=lambda item: item[1].stride or 0)
        self.in_features = [name for name, _ in shapes]
        self.num_classes = num_classes
        self.common_stride = common_stride
        self.loss_weight = loss_weight
        self.ignore_value = ignore_value
        for name, shape in shapes:
            # The attribute is the name of the feature map, as in checkpoints.
            self.add_module(name, self._make_branch(shape, conv_dims, norm))
        self.predictor = Conv2d(conv_dims, num_classes, 1)
        c2_msra_fill(self.predictor)

    def _make_branch(self, shape: ShapeSpec, channels: int, norm: Norm) -> nn.Sequential:
        """One or more convolutions, each followed by a doubling until the common stride is reached."""
        doublings = int(math.log2((shape.stride or 1) / self.common_stride))
        layers: list[nn.Module] = []
        for i in range(max(doublings, 1)):
            conv = Conv2d(
                shape.channels if i == 0 else channels,
                channels,
                3,
                padding=1,
                bias=not norm,
                norm=get_norm(norm, channels),
                activation=F.relu,
            )
            c2_msra_fill(conv)
            layers.append(conv)
            if doublings > 0:
                layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
        return nn.Sequential(*layers)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        node = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": {name: input_shape[name] for name in node.IN_FEATURES},
            "ignore_value": node.IGNORE_VALUE,
            "num_classes": node.NUM_CLASSES,
            "conv_dims": node.CONVS_DIM,
            "common_stride": node.COMMON_STRIDE,
            "norm": node.NORM,
            "loss_weight": node.LOSS_WEIGHT,
        }

    def forward(
        self, features: dict[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Segment, or compare with ground truth.

        Args:
            features: by name, (N, C, H / stride, W / stride).
            targets: (N, H, W) int64 labels; needed in training.

        Returns:
            In training None and the losses; otherwise (N, K, H, W) logits and an empty dict.
        """
        logits = self.layers(features)
        if self.training:
            if targets is None:
                raise UserValueError(
                    "The semantic head needs `sem_seg` in training; the data loader gave none"
                )
            return None, self.losses(logits, targets)
        return self._to_input_size(logits), {}

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        """Features by name -> (N, K, H / common_stride, W / common_stride) logits."""
        total: Tensor | None = None
        for name in self.in_features:
            branch = self.get_submodule(name)(features[name])
            total = branch if total is None else total + branch
        logits: Tensor = self.predictor(total)
        return logits

    def _to_input_size(self, logits: Tensor) -> Tensor:
        return F.interpolate(logits, scale_factor=self.common_stride, mode="bilinear", align_corners=False)

    def losses(self, predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Average the cross entropy over all labelled pixels, at full resolution.

        Args:
            predictions: (N, K, H / common_stride, W / common_stride) logits.
            targets: (N, H, W) labels.

        Returns:
            "loss_sem_seg", 0 (with a gradient path) where no pixel is labelled.
        """
        logits = self._to_input_size(predictions.float())  # bilinear sums are not for half precision
        total = F.cross_entropy(logits, targets, reduction="sum", ignore_index=self.ignore_value)
        num_labelled = (targets != self.ignore_value).sum().clamp(min=1)
        return {"loss_sem_seg": total / num_labelled * self.loss_weight}
