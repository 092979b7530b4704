"""Private steps of models that projects override or call: each has its effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from detectron2.config import get_cfg
from detectron2.modeling import RetinaNet, build_model
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead


def test_the_layers_of_the_rpn_head_are_replaced_and_initialised() -> None:
    class Wider(StandardRPNHead):
        def _get_rpn_conv(self, in_channels: int, out_channels: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(in_channels, out_channels, 5, padding=2, bias=False), nn.ReLU())

    torch.manual_seed(0)
    head = Wider(in_channels=4, num_anchors=3, conv_dims=(-1, 8))
    layers = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    assert [m.kernel_size[0] for m in layers] == [5, 5, 1, 1]
    assert all(0.005 < m.weight.std() < 0.02 for m in layers)
    assert not any(m.bias is not None and m.bias.any() for m in layers)
    logits, deltas = head([torch.zeros(1, 4, 6, 6)])
    assert logits[0].shape == (1, 3, 6, 6) and deltas[0].shape == (1, 12, 6, 6)


def test_cell_anchors_are_replaced() -> None:
    class Doubled(DefaultAnchorGenerator):
        def _calculate_anchors(self, sizes: Any, aspect_ratios: Any) -> Any:
            assert sizes == [[32, 64], [32, 64]] and aspect_ratios == [[1.0], [1.0]]
            return [2 * cell for cell in super()._calculate_anchors(sizes, aspect_ratios)]

    generator = Doubled(sizes=[[32, 64]], aspect_ratios=[[1.0]], strides=[8, 16])
    (first, _) = generator([torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)])
    assert first.tensor.tolist() == [[-28, -28, 36, 36], [-60, -60, 68, 68]]


def test_inputs_are_moved_by_a_step(small_cfg: Callable) -> None:
    model = build_model(small_cfg("GeneralizedRCNN"))
    moved = []

    def move(x: torch.Tensor) -> torch.Tensor:
        moved.append(x.shape)
        return x

    model._move_to_current_device = move
    model.preprocess_image([{"image": torch.zeros(3, 32, 40)}, {"image": torch.zeros(3, 16, 16)}])
    assert moved == [(3, 32, 40), (3, 16, 16)]


def test_dense_predictions_are_transposed_by_a_step(small_cfg: Callable) -> None:
    class Watched(RetinaNet):
        def _transpose_dense_predictions(self, predictions: Any, dims_per_anchor: Any) -> Any:
            dims.append(tuple(dims_per_anchor))
            return super()._transpose_dense_predictions(predictions, dims_per_anchor)

    dims: list[tuple[int, ...]] = []
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    levels = ["res3", "res4", "res5"]
    cfg.MODEL.RESNETS.OUT_FEATURES, cfg.MODEL.FPN.IN_FEATURES = levels, levels
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS, cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 8, 2
    cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.RETINANET.NUM_CLASSES = 8, 3
    model = Watched(cfg).eval()
    model([{"image": torch.zeros(3, 64, 64)}])
    logits, deltas = model._transpose_dense_predictions(
        [[torch.zeros(2, 9 * 3, 4, 5)], [torch.zeros(2, 9 * 4, 4, 5)]], [3, 4]
    )
    assert dims == [(3, 4), (3, 4)]
    assert logits[0].shape == (2, 180, 3) and deltas[0].shape == (2, 180, 4)
