"""Counts agree with arithmetic by hand and with another counter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detectron2 import analysis
from detectron2.analysis import (
    FlopCountAnalysis,
    activation_count_operators,
    find_unused_parameters,
    flop_count_operators,
    parameter_count,
    parameter_count_table,
)
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances


class Toy(nn.Module):
    """A convolution (4 -> 6 channels, 3x3, to 5x7) and a matrix, in the interface of a detector."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, padding=1)
        self.linear = nn.Linear(6, 2)
        self.unused = nn.Linear(3, 3)

    def forward(self, inputs: list[dict[str, Any]]) -> Any:
        features = self.conv(torch.stack([x["image"] for x in inputs])).relu()
        scores = self.linear(features.mean(dim=(2, 3)))
        if self.training:
            return {"loss": scores.sum()}
        return [
            {"instances": Instances((5, 7), pred_boxes=Boxes(torch.zeros(2, 4)), scores=s)} for s in scores
        ]


def make_toy_input() -> list[dict[str, Any]]:
    return [{"image": torch.rand(4, 5, 7), "height": 10}]


CONV_FLOPS = 5 * 7 * 6 * 4 * 9
LINEAR_FLOPS = 6 * 2


def test_flops_of_a_toy_are_those_by_hand() -> None:
    counts = flop_count_operators(Toy(), make_toy_input())
    assert counts["conv"] * 1e9 == pytest.approx(CONV_FLOPS)
    assert counts["linear"] * 1e9 == pytest.approx(LINEAR_FLOPS)
    assert counts["an operator that is not there"] == 0


def test_flops_by_module() -> None:
    by_module = FlopCountAnalysis(Toy().eval(), make_toy_input()).by_module()
    assert by_module["model.conv"] == CONV_FLOPS and by_module["model.linear"] == LINEAR_FLOPS


def test_activations_of_a_toy_are_those_by_hand() -> None:
    counts = activation_count_operators(Toy(), make_toy_input())
    assert counts["conv"] * 1e6 == pytest.approx(5 * 7 * 6)
    assert counts["linear"] * 1e6 == pytest.approx(2)


def test_counting_keeps_the_mode_of_the_model() -> None:
    model = Toy().train()
    flop_count_operators(model, make_toy_input())
    activation_count_operators(model, make_toy_input())
    assert model.training and model.conv.training


def test_parameters_of_a_toy_are_those_by_hand() -> None:
    counts = parameter_count(Toy())
    assert counts["conv"] == 4 * 6 * 9 + 6 and counts["linear"] == 6 * 2 + 2
    assert "conv.weight" in parameter_count_table(Toy(), max_depth=3)


def test_nothing_with_a_rule_is_ignored() -> None:
    from fvcore.nn import FlopCountAnalysis as Original

    rules = Original(nn.Identity(), (torch.ones(1),))._op_handles
    counted = {name for name, rule in rules.items() if rule is not None}
    assert not counted & analysis._IGNORED_OPS


@pytest.fixture
def retinanet_cfg() -> Any:
    cfg = get_cfg()
    m = cfg.MODEL
    m.DEVICE, m.META_ARCHITECTURE = "cpu", "RetinaNet"
    m.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    m.RESNETS.DEPTH, m.RESNETS.RES2_OUT_CHANNELS = 18, 64
    m.RESNETS.OUT_FEATURES = m.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    m.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    m.FPN.OUT_CHANNELS, m.RETINANET.NUM_CONVS, m.RETINANET.NUM_CLASSES = 16, 1, 3
    return cfg


@torch.no_grad()
def test_flops_of_a_detector_agree_with_fvcore_and_with_torch(retinanet_cfg: Any) -> None:
    model = build_model(retinanet_cfg).eval()
    image = torch.rand(3, 64, 96) * 255
    counts = flop_count_operators(model, [{"image": image}])

    class Dense(nn.Module):
        """All of the model that fvcore can trace without help."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, batch: Tensor) -> Any:
            features = self.model.backbone(batch)
            return self.model.head([features[name] for name in self.model.head_in_features])

    reference = analysis.fvcore_nn.FlopCountAnalysis(Dense(), torch.rand(1, 3, 64, 96))
    reference.unsupported_ops_warnings(False)
    with analysis._tracer_warnings_off():
        expected = reference.by_operator()
    assert {name: round(count * 1e9) for name, count in counts.items()} == dict(expected)

    with FlopCounterMode(display=False) as counter:  # a multiply-add is two
        Dense()(torch.rand(1, 3, 64, 96))
    assert counts["conv"] * 1e9 == pytest.approx(counter.get_total_flops() / 2)


def test_unused_parameters_are_found_and_no_gradient_stays() -> None:
    model = Toy().train()
    assert find_unused_parameters(model, make_toy_input()) == ["unused.weight", "unused.bias"]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_unused_parameters_of_a_model_in_eval_mode_are_an_error() -> None:
    with pytest.raises(ValueError, match="model.train"):
        find_unused_parameters(Toy().eval(), make_toy_input())
