"""What it costs to swap ResNet-101 for Res2Net-101 (26w x 4s, v1b) in a model."""

from __future__ import annotations

import torch
from torch import nn

from detectron2 import model_zoo
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model

# Counted are multiply-adds of convolutions, scale and shift of norms, and the values that pools take in.
COUNTED = (nn.Conv2d, FrozenBatchNorm2d, nn.AvgPool2d)


def operations(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> int:
    if isinstance(module, nn.Conv2d):
        return y.numel() * module.weight[0].numel()
    return 2 * y.numel() if isinstance(module, FrozenBatchNorm2d) else x.numel()


def cost(name: str, image_size: tuple[int, int]) -> tuple[int, int]:
    """(parameters of the whole model, operations of its backbone) of a config, strides in the 3x3."""
    cfg = model_zoo.get_config(name)
    cfg.MODEL.DEVICE = "meta"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    with torch.device("meta"):
        model = build_model(cfg)
    counts: list[int] = []
    for module in model.backbone.modules():
        if isinstance(module, COUNTED):
            module.register_forward_hook(lambda m, inputs, y: counts.append(operations(m, inputs[0], y)))
    with torch.no_grad():
        model.backbone(torch.empty(1, 3, *image_size, device="meta"))
    return sum(parameter.numel() for parameter in model.parameters()), sum(counts)


def test_cost_of_res2net_is_the_published_one() -> None:
    folder = "COCO-PanopticSegmentation"
    parameters, flops = cost(f"{folder}/panoptic_fpn_R_101_3x.yaml", (800, 1280))
    more_parameters, more_flops = cost(f"{folder}/panoptic_fpn_R2_101_v1b_3x.yaml", (800, 1280))
    assert round((more_parameters - parameters) / 1e6, 2) == 0.66
    assert round((more_flops - flops) / 1e9, 1) == 10.5
