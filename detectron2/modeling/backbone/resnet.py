"""ResNet: a stem and up to four stages of residual blocks.

Shapes: N images, H x W their size; stage `res<i>` gives (N, C_i, ceil(H / stride_i), ceil(W / stride_i)).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.config.config.node import CfgNode
from detectron2.layers.batch_norm import Norm
from detectron2.layers.blocks import CNNBlockBase
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.weight_init import c2_msra_fill
from detectron2.utils.user_errors import UserTypeError, UserValueError

from .backbone import Backbone, stated
from .build import BACKBONE_REGISTRY, register_region_stage
from .residual import BasicBlock, BottleneckBlock, DeformBottleneckBlock, conv_norm
from .stage_plan import (
    BottleneckKind,
    blocks_for_depth,
    make_blocks,
    make_bottleneck_stages,
    make_region_stage,
    plan_stages,
    plan_stages_from_config,
)

ResNetBlockBase = CNNBlockBase
"""The older name of the base class of blocks and stems."""

__all__ = [
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "DeformBottleneckBlock",
    "ResNet",
    "ResNetBlockBase",
    "build_resnet_backbone",
    "make_stage",
]


class BasicStem(CNNBlockBase):
    """7x7 convolution and max pooling, each of stride 2."""

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: Norm = "BN") -> None:
        super().__init__(in_channels, out_channels, 4)
        self.conv1 = conv_norm(in_channels, out_channels, 7, stride=2, norm=norm)
        c2_msra_fill(self.conv1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / 4, W / 4)."""
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class ResNet(Backbone):
    """A stem followed by stages of blocks."""

    def __init__(
        self,
        stem: CNNBlockBase,
        stages: Iterable[Sequence[CNNBlockBase]],
        num_classes: int | None = None,
        out_features: Sequence[str] | None = None,
        freeze_at: int = 0,
    ) -> None:
        """
        Args:
            stem: makes the maps that the first stage takes.
            stages: the blocks of res2, res3, ...; stages after the last one in `out_features` are dropped.
            num_classes: add average pooling and the linear classifier `linear` when given.
            out_features: names among "stem", "res2", ..., "linear". None means the last of them.
            freeze_at: 1 freezes the stem, 2 the stem and res2, and so on; 0 nothing.
        """
        super().__init__()
        self.stem = stem
        self.num_classes = num_classes
        stage_blocks = _drop_unused_stages(list(stages), out_features)
        self.stage_names = tuple(f"res{i}" for i in range(2, 2 + len(stage_blocks)))
        self._out_feature_strides = {"stem": stem.stride}
        self._out_feature_channels = {"stem": stem.out_channels}
        for name, blocks in zip(self.stage_names, stage_blocks):
            self._add_stage(name, blocks)

        if num_classes is not None:
            last = next(reversed(self._out_feature_channels))
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.linear = nn.Linear(self._out_feature_channels[last], num_classes)
            nn.init.normal_(self.linear.weight, std=0.01)

        features = ["stem", *self.stage_names] + (["linear"] if num_classes is not None else [])
        self._out_features = features[-1:] if out_features is None else list(out_features)
        unknown = [name for name in self._out_features if name not in features]
        if unknown or not self._out_features:
            raise UserValueError(f"out_features must be some of {features}, got {self._out_features}")
        self.freeze(freeze_at)

    def _add_stage(self, name: str, blocks: Sequence[CNNBlockBase]) -> None:
        if not blocks:
            raise UserValueError(f"stage {name} needs at least one block")
        for block in blocks:
            if not isinstance(block, CNNBlockBase):
                raise UserTypeError(f"a stage is a list of CNNBlockBase, {name} has a {type(block).__name__}")
        previous = next(reversed(self._out_feature_strides))
        stride = self._out_feature_strides[previous]
        for block in blocks:
            stride *= block.stride
        self._out_feature_strides[name] = stride
        self._out_feature_channels[name] = blocks[-1].out_channels
        self.add_module(name, nn.Sequential(*blocks))

    @property
    def stages(self) -> list[nn.Module]:
        """The stages in order."""
        return [stage for stage, _ in self.stages_and_names]

    @property
    def stages_and_names(self) -> list[tuple[nn.Module, str]]:
        """The stages in order, each with its name."""
        return [(self.get_submodule(name), name) for name in self.stage_names]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) images -> the maps of `out_features` by name; "linear" is (N, num_classes) logits."""
        if x.dim() != 4:
            raise UserValueError(f"ResNet takes (N, C, H, W) images, got a tensor of shape {tuple(x.shape)}")
        outputs = {"stem": self.stem(x)}
        x = outputs["stem"]
        for stage, name in self.stages_and_names:
            x = outputs[name] = stage(x)
        if self.num_classes is not None:
            outputs["linear"] = self.linear(self.avgpool(x).flatten(1))
        return {name: outputs[name] for name in outputs if name in self._out_features}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {name: self._feature_shape(name) for name in self._out_features}

    def _feature_shape(self, name: str) -> ShapeSpec:
        if name == "linear":
            return ShapeSpec(channels=self.num_classes)
        return ShapeSpec(channels=self._out_feature_channels[name], stride=self._out_feature_strides[name])

    def freeze(self, freeze_at: int = 0) -> nn.Module:
        """Freeze the first parts of the network, batch norm included, so that they never train.

        Args:
            freeze_at: 1 freezes the stem, 2 the stem and res2, and so on.

        Returns:
            The network itself.
        """
        if freeze_at >= 1:
            self.stem.freeze()
        for stage in self.stages[: max(freeze_at - 1, 0)]:
            for block in stage.children():
                cast(CNNBlockBase, block).freeze()
        return self

    @staticmethod
    def make_stage(
        block_class: type[CNNBlockBase],
        num_blocks: int,
        *,
        in_channels: int,
        out_channels: int,
        **kwargs: Any,
    ) -> list[CNNBlockBase]:
        """Make the blocks of one stage.

        Args:
            block_class: called as `block_class(in_channels=..., out_channels=..., **options)`.
            num_blocks: blocks in the stage.
            in_channels: of the first block; the others take `out_channels`.
            out_channels: of every block.
            kwargs: options of the blocks. `<option>_per_block` is a list with one value for each block,
                such as `stride_per_block=[2, 1, 1]`.
        """
        return make_blocks(
            block_class, num_blocks, in_channels=in_channels, out_channels=out_channels, **kwargs
        )

    @staticmethod
    def make_default_stages(
        depth: int, block_class: type[CNNBlockBase] | None = None, **kwargs: Any
    ) -> list[list[CNNBlockBase]]:
        """Make the stages of a ResNet of the original sizes, for use on a stem of 64 channels.

        Args:
            depth: 18, 34, 50, 101 or 152.
            block_class: None means `BasicBlock` below 50 and `BottleneckBlock` from there.
            kwargs: further options of every block; neither strides nor channels.
        """
        is_basic = depth < 50
        if block_class is None:
            block_class = BasicBlock if is_basic else BottleneckBlock
        plans = plan_stages(
            blocks_for_depth(depth),
            stem_channels=64,
            res2_channels=64 if is_basic else 256,
            bottleneck_channels=64,
        )
        return [plan.make(block_class, has_bottleneck=not is_basic, **kwargs) for plan in plans]


def _drop_unused_stages(
    stages: list[Sequence[CNNBlockBase]], out_features: Sequence[str] | None
) -> list[Sequence[CNNBlockBase]]:
    """Keep the stages up to the deepest that `out_features` asks for."""
    if out_features is None or "linear" in out_features:
        return stages
    depth_of = {"stem": 0} | {f"res{i + 2}": i + 1 for i in range(len(stages))}
    return stages[: max((depth_of.get(name, len(stages)) for name in out_features), default=0)]


def make_stage(*args: Any, **kwargs: Any) -> list[CNNBlockBase]:
    """Call `ResNet.make_stage`, under the name that it had before it was a method."""
    return ResNet.make_stage(*args, **kwargs)


_BOTTLENECKS = BottleneckKind(BottleneckBlock, DeformBottleneckBlock)


@BACKBONE_REGISTRY.register()
def build_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Build the ResNet that `MODEL.RESNETS` describes."""
    node = cfg.MODEL.RESNETS
    stem = BasicStem(stated(input_shape.channels, "input channels"), node.STEM_OUT_CHANNELS, norm=node.NORM)
    blocks_per_stage = blocks_for_depth(node.DEPTH)
    if node.DEPTH < 50:
        plans = plan_stages_from_config(cfg, blocks_per_stage=blocks_per_stage)
        _check_basic_block_options(cfg)
        stages = [plan.make(BasicBlock, has_bottleneck=False, norm=node.NORM) for plan in plans]
    else:
        stages = make_bottleneck_stages(cfg, _BOTTLENECKS, blocks_per_stage=blocks_per_stage)
    return ResNet(stem, stages, out_features=node.OUT_FEATURES, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)


@register_region_stage("build_resnet_backbone")
def _build_resnet_region_stage(cfg: CfgNode) -> list[CNNBlockBase]:
    return make_region_stage(cfg, _BOTTLENECKS)


def _check_basic_block_options(cfg: CfgNode) -> None:
    """Refuse settings that the blocks of ResNet-18 and ResNet-34 have no place for."""
    node = cfg.MODEL.RESNETS
    required = {"RES2_OUT_CHANNELS": 64, "RES5_DILATION": 1, "NUM_GROUPS": 1}
    wrong = [
        f"MODEL.RESNETS.{key} must be {value}, got {node[key]}"
        for key, value in required.items()
        if node[key] != value
    ]
    if any(node.DEFORM_ON_PER_STAGE):
        wrong.append("MODEL.RESNETS.DEFORM_ON_PER_STAGE must be all False")
    if wrong:
        raise UserValueError(f"ResNet-{node.DEPTH} has basic blocks: " + "; ".join(wrong))
