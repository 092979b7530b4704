"""Backbones of timm, with a small stand-in for the package."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling.backbone import build_backbone


class FakeFeatures(nn.ModuleDict):
    """What `timm.create_model(..., features_only=True)` gives: maps as a list, and `feature_info`."""

    def __init__(self, out_indices: tuple[int, ...], in_chans: int, nested: bool, stem: int) -> None:
        super().__init__()
        self.calls: list[str] = []
        channels = [4, 6, 8, 10]
        self["stem"] = nn.Conv2d(in_chans, 4, 3, stride=stem, padding=1)
        previous = 4
        for i, width in enumerate(channels):
            conv = nn.Conv2d(previous, width, 3, stride=2, padding=1)
            self[f"stages_{i}"] = nn.Sequential(conv, nn.BatchNorm2d(width))
            previous = width
        names = [f"stages.{i}" for i in range(4)]
        self.out_indices = out_indices
        self.feature_info = SimpleNamespace(
            channels=lambda: [channels[i] for i in out_indices],
            reduction=lambda: [stem * 2 ** (i + 1) for i in out_indices],
            module_name=lambda: ["hidden" if nested else names[i] for i in out_indices],
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for name, module in self.items():
            x = module(x)
            if name != "stem":
                maps.append(x)
        maps = [maps[i] for i in self.out_indices]
        if getattr(self, "output_fmt", "NCHW") == "NHWC":
            maps = [map_.permute(0, 2, 3, 1) for map_ in maps]
        return maps


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The stand-in; it records the arguments of the last model."""
    record = SimpleNamespace(arguments={}, output_fmt="NCHW", nested=False, stem=2)

    def create_model(name: str, *, features_only: bool, **kwargs: Any) -> nn.Module:
        assert features_only
        record.arguments = {"name": name, **kwargs}
        out_indices = kwargs.get("out_indices", (0, 1, 2, 3))
        net = FakeFeatures(out_indices, kwargs["in_chans"], record.nested, record.stem)
        net.output_fmt = record.output_fmt
        return net

    module = ModuleType("timm")
    vars(module).update(
        __version__="1.0",
        create_model=create_model,
        list_models=lambda: ["tinynet"],
        is_model="tinynet".__eq__,
    )
    monkeypatch.setitem(sys.modules, "timm", module)
    return record


def make_cfg(*overrides: Any, name: str = "build_timm_fpn_backbone") -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = name
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 5
    cfg.MODEL.TIMM.NAME = "tinynet"
    cfg.merge_from_list(list(overrides))
    return cfg


@pytest.mark.parametrize("output_fmt", ["NCHW", "NHWC"])
def test_pyramid_on_maps_named_by_stride(timm: SimpleNamespace, output_fmt: str) -> None:
    timm.output_fmt = output_fmt
    backbone = build_backbone(make_cfg())
    out = backbone(torch.randn(1, 3, 128, 64))
    assert {name: value.shape for name, value in out.items()} == {
        f"p{level}": (1, 5, 128 >> level, 64 >> level) for level in (2, 3, 4, 5, 6)
    }
    shapes = backbone.bottom_up.output_shape()
    assert {name: (s.channels, s.stride) for name, s in shapes.items()} == {
        "res2": (4, 4),
        "res3": (6, 8),
        "res4": (8, 16),
        "res5": (10, 32),
    }
    assert timm.arguments == {"name": "tinynet", "in_chans": 3, "pretrained": False}


def test_settings_reach_timm(timm: SimpleNamespace) -> None:
    options = ["a=1", "b=[2, 3]", "c=text", "d=x=y"]
    cfg = make_cfg(
        "MODEL.TIMM.OUT_INDICES", [1, 2], "MODEL.TIMM.PRETRAINED", True, "MODEL.TIMM.OPTIONS", options
    )
    cfg.MODEL.BACKBONE.NAME = "build_timm_backbone"
    backbone = build_backbone(cfg)
    assert list(backbone(torch.randn(1, 3, 32, 32))) == ["res3", "res4"]
    assert timm.arguments == {
        "name": "tinynet",
        "in_chans": 3,
        "pretrained": True,
        "out_indices": (1, 2),
        "a": 1,
        "b": [2, 3],
        "c": "text",
        "d": "x=y",
    }
    cfg.MODEL.TIMM.OPTIONS = ["novalue"]
    with pytest.raises(ValueError, match="'name=value', got 'novalue'"):
        build_backbone(cfg)


def test_retinanet_makes_p6_and_p7_from_res5(timm: SimpleNamespace) -> None:
    cfg = make_cfg(
        "MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"], name="build_retinanet_timm_fpn_backbone"
    )
    assert list(build_backbone(cfg)(torch.randn(1, 3, 64, 64))) == ["p3", "p4", "p5", "p6", "p7"]


@pytest.mark.parametrize(
    ("freeze_at", "stem", "frozen"),
    [
        (0, 2, []),
        (2, 2, ["stem", "stages_0"]),
        (3, 2, ["stem", "stages_0", "stages_1"]),
        # Patches of stride 4: the first map has stride 8, so what comes before it is frozen.
        (1, 4, ["stem"]),
    ],
)
def test_first_parts_are_frozen(timm: SimpleNamespace, freeze_at: int, stem: int, frozen: list[str]) -> None:
    timm.stem = stem
    cfg = make_cfg(
        "MODEL.BACKBONE.FREEZE_AT", freeze_at, "MODEL.TIMM.FREEZE_BN", False, name="build_timm_backbone"
    )
    net = build_backbone(cfg).train().net
    for name, module in net.items():
        assert all(p.requires_grad != (name in frozen) for p in module.parameters()), name
        assert all(m.training != (name in frozen) for m in module.modules()), name


def test_batch_norms_stay_as_they_are_loaded(timm: SimpleNamespace) -> None:
    backbone = build_backbone(make_cfg("MODEL.BACKBONE.FREEZE_AT", 0)).train()
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    before = [norm.running_mean.clone() for norm in norms]
    backbone(torch.randn(2, 3, 64, 64))["p2"].sum().backward()
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before))
    assert all(not p.requires_grad for norm in norms for p in norm.parameters())
    assert backbone.bottom_up.net["stem"].weight.grad is not None


def test_what_cannot_work_is_told(timm: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"no model 'tinynett' \(MODEL.TIMM.NAME\). Did you mean tinynet"):
        build_backbone(make_cfg("MODEL.TIMM.NAME", "tinynett"))
    timm.stem = 3
    with pytest.raises(ValueError, match="powers of two, this model has one of 6"):
        build_backbone(make_cfg())
    timm.stem, timm.nested = 2, True
    with pytest.raises(ValueError, match="set MODEL.BACKBONE.FREEZE_AT 0"):
        build_backbone(make_cfg())
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match="need the packages timm and torchvision"):
        build_backbone(make_cfg())
