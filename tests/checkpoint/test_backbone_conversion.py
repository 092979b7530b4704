"""Backbones of other packages: names, inference of the architecture, and the reference's features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from detectron2.checkpoint.weight_translation import (
    BackboneLayout,
    convert_backbone,
    explain_conflicts,
    find_translator,
    known_sources,
    read_layout,
)
from detectron2.config import CfgNode
from detectron2.modeling.backbone import build_backbone
from detectron2.modeling.backbone.res2net import Res2NetLayout

from .foreign import STAGES, backbone_cfg, golden_weight, mmdetection_name, torchvision_name

RES2NET = "build_res2net_backbone"
V1 = {"DEEP_STEM": False, "AVG_DOWN": False}


def weights_of(cfg: CfgNode) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build_backbone(cfg).state_dict()


def without_counters(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}


ARCHITECTURES = {
    "resnet": backbone_cfg(),
    "resnext": backbone_cfg(NUM_GROUPS=2),
    "wide": backbone_cfg(WIDTH_PER_GROUP=8),
    "resnet18": backbone_cfg(DEPTH=18, STEM_OUT_CHANNELS=64, RES2_OUT_CHANNELS=64),
    "res2net v1b": backbone_cfg(RES2NET),
    "res2net v1": backbone_cfg(RES2NET, **V1),
    "res2net of scale 2": backbone_cfg(RES2NET, SCALE=2),
    "res2next": backbone_cfg(RES2NET, NUM_GROUPS=2, **V1),
}


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_names_come_back_and_the_architecture_is_read_off(name: str) -> None:
    cfg = ARCHITECTURES[name]
    ours = weights_of(cfg)
    theirs = {torchvision_name(key): value for key, value in ours.items()}
    theirs |= {"fc.weight": torch.zeros(10, 4), "fc.bias": torch.zeros(10)}
    converted = convert_backbone(theirs)
    expected = without_counters(ours)
    assert set(converted.weights) == set(expected)
    assert all(converted.weights[key] is expected[key] for key in expected)
    assert {"fc.weight", "fc.bias"} <= set(converted.dropped)

    values = converted.layout.config_values()
    node, own = cfg.MODEL.RESNETS, cfg.MODEL.RES2NET
    if node.DEPTH >= 50:
        assert values["MODEL.RESNETS.NUM_GROUPS"] == node.NUM_GROUPS
        assert values["MODEL.RESNETS.WIDTH_PER_GROUP"] == node.WIDTH_PER_GROUP
    assert values["MODEL.RESNETS.RES2_OUT_CHANNELS"] == node.RES2_OUT_CHANNELS
    if "res2net" in cfg.MODEL.BACKBONE.NAME:
        assert converted.layout.scale == own.SCALE
        assert (converted.layout.deep_stem, converted.layout.avg_down) == (own.DEEP_STEM, own.AVG_DOWN)
        assert list(converted.layout.blocks_per_stage) == own.STAGE_BLOCKS
    else:
        assert converted.layout.depth == node.DEPTH


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
def test_wrappers_are_taken_off_and_other_parts_left_out(prefix: str) -> None:
    ours = without_counters(weights_of(ARCHITECTURES["res2net v1b"]))
    theirs = {prefix + torchvision_name(key): value for key, value in ours.items()}
    if prefix:
        theirs["neck.conv.weight"] = torch.zeros(1)
    converted = convert_backbone(theirs)
    assert set(converted.weights) == set(ours)
    assert converted.dropped == (["neck.conv.weight"] if prefix else [])


def test_numbered_stem_of_mmdetection_is_known() -> None:
    ours = without_counters(weights_of(ARCHITECTURES["res2net v1b"]))
    theirs = {mmdetection_name(key): value for key, value in ours.items()}
    assert "stem.7.running_var" in theirs
    assert "stem.6.weight" in theirs
    assert set(convert_backbone(theirs).weights) == set(ours)


def test_resnet_d_becomes_res2net_of_scale_1() -> None:
    cfg = backbone_cfg(RES2NET, SCALE=1)
    ours = without_counters(weights_of(cfg))
    theirs = {
        torchvision_name(key).replace("convs.0.", "conv2.").replace("bns.0.", "bn2."): value
        for key, value in ours.items()
    }
    converted = convert_backbone(theirs)
    assert set(converted.weights) == set(ours)
    assert isinstance(converted.layout, Res2NetLayout)
    assert converted.layout.scale == 1


def _as_torchvision(name: str) -> dict[str, Tensor]:
    return {torchvision_name(k): v for k, v in without_counters(weights_of(ARCHITECTURES[name])).items()}


def test_missing_tensors_are_listed() -> None:
    weights = _as_torchvision("res2net v1b")
    for name in ("layer2.0.convs.1.weight", "layer3.0.bn1.bias"):
        del weights[name]
    message = r"2 missing tensors: res3\.0\.convs\.1\.weight, res4\.0\.conv1\.norm\.bias$"
    with pytest.raises(ValueError, match=message):
        convert_backbone(weights)


def test_unknown_tensors_are_listed() -> None:
    weights = _as_torchvision("resnet")
    weights["layer1.0.se.fc1.weight"] = torch.zeros(1)
    weights["layer1.3.conv1.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"unknown tensors: .*layer1\.0\.se\.fc1\.weight"):
        convert_backbone(weights)


def test_wrong_shapes_are_listed() -> None:
    weights = _as_torchvision("resnet")
    weights["layer4.0.bn2.bias"] = torch.zeros(3)
    message = r"1 tensors of the wrong shape: res5\.0\.conv2\.norm\.bias \(3,\) instead of \(32,\)"
    with pytest.raises(ValueError, match=message):
        convert_backbone(weights)


def test_a_resnet_of_no_known_depth_is_refused() -> None:
    weights = {k: v for k, v in _as_torchvision("resnet").items() if not k.startswith("layer3.5.")}
    with pytest.raises(ValueError, match=r"\(3, 4, 5, 3\) blocks has no MODEL.RESNETS.DEPTH"):
        convert_backbone(weights)


def test_files_of_another_kind_are_told_apart() -> None:
    ours = weights_of(ARCHITECTURES["resnet"])
    assert find_translator(ours) is None
    with pytest.raises(ValueError, match="this package's names already"):
        convert_backbone(ours)
    with pytest.raises(ValueError, match=r"no backbone that is known .* there are encoder\.weight"):
        convert_backbone({"encoder.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="misses its stem or first block"):
        convert_backbone({"layer1.0.conv1.weight": torch.zeros(1, 1, 1, 1)})


def _layout(name: str) -> BackboneLayout:
    layout = read_layout(weights_of(ARCHITECTURES[name]))
    assert layout is not None
    return layout


def test_advice_names_scale_and_width_together() -> None:
    advice = explain_conflicts(_layout("res2net of scale 2"), _layout("res2net v1b"))
    assert "MODEL.RES2NET.SCALE to 2" in advice
    assert "MODEL.RESNETS.WIDTH_PER_GROUP to 4" in advice
    assert "DEPTH" not in advice


def test_families_that_are_known_say_whose_files_they_read() -> None:
    assert known_sources() == "official, timm or mmdetection Res2Net, torchvision, timm or mmdetection ResNet"


def test_a_resnet_of_basic_blocks_has_no_deep_stem() -> None:
    weights = _as_torchvision("resnet18")
    stem = weights.pop("conv1.weight")
    weights["conv1.0.weight"] = stem
    weights["conv1.6.weight"] = stem
    with pytest.raises(ValueError, match="misses its stem"):
        convert_backbone(weights)


def test_advice_names_the_other_family() -> None:
    advice = explain_conflicts(_layout("res2net v1b"), _layout("resnet"))
    assert "MODEL.BACKBONE.NAME to a build_res2net_*" in advice
    assert "MODEL.RES2NET.SCALE to 4" in advice


def test_no_advice_where_nothing_differs() -> None:
    assert explain_conflicts(_layout("resnet"), _layout("resnet")) is None


GOLDEN = {
    "res2net50_26w_4s": backbone_cfg(RES2NET, DEPTH=50, WIDTH_PER_GROUP=26, **V1),
    "res2net50_14w_8s": backbone_cfg(RES2NET, DEPTH=50, WIDTH_PER_GROUP=14, SCALE=8, **V1),
    "res2net50_48w_2s": backbone_cfg(RES2NET, DEPTH=50, WIDTH_PER_GROUP=48, SCALE=2, **V1),
    "res2next50": backbone_cfg(RES2NET, DEPTH=50, WIDTH_PER_GROUP=4, NUM_GROUPS=8, **V1),
    "res2net50d": backbone_cfg(RES2NET, DEPTH=50, WIDTH_PER_GROUP=26),
    "res2net101d": backbone_cfg(RES2NET, DEPTH=101, WIDTH_PER_GROUP=26),
    "resnet50": backbone_cfg(DEPTH=50, WIDTH_PER_GROUP=64),
    "resnet50d": backbone_cfg(RES2NET, DEPTH=50, WIDTH_PER_GROUP=64, SCALE=1),
    "resnext50_32x4d": backbone_cfg(DEPTH=50, WIDTH_PER_GROUP=4, NUM_GROUPS=32),
}


@pytest.mark.parametrize("name", list(GOLDEN))
def test_converted_backbone_gives_the_features_of_the_reference(name: str, shared_dir: Path) -> None:
    with np.load(shared_dir / "golden" / "timm_backbones.npz") as file:
        golden = {key.split("|")[1]: file[key] for key in file.files if key.startswith(f"{name}|")}
    cfg = GOLDEN[name].clone()
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64, 256
    cfg.MODEL.RES2NET.STAGE_BLOCKS = []
    with torch.device("meta"):
        model = build_backbone(cfg)
    assert sum(parameter.numel() for parameter in model.parameters()) == golden["params"]

    weights = {}
    for key, value in without_counters(model.state_dict()).items():
        timm_name = torchvision_name(key)
        if name == "resnet50d":
            timm_name = timm_name.replace("convs.0.", "conv2.").replace("bns.0.", "bn2.")
        weights[timm_name] = golden_weight(timm_name, tuple(value.shape))
    assert set(weights) == {key for key in golden["keys"] if not key.endswith("num_batches_tracked")}

    converted = convert_backbone(weights)
    model.load_state_dict(converted.weights, strict=False, assign=True)
    # A meta tensor has no counter to read; evaluation does not look at it.
    image = torch.as_tensor(np.random.RandomState(0).randn(1, 3, 96, 128), dtype=torch.float32)
    with torch.no_grad():
        features = model.eval()(image)
    for stage in STAGES:
        found = features[stage][:, :: max(1, features[stage].shape[1] // 16), ::3, ::3].numpy()
        assert np.abs(found - golden[stage]).max() <= 1e-4 * np.abs(golden[stage]).max()
