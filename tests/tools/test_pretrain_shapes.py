"""Pre-training on single shapes: what is written, and that a later call continues."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import build_res2net_backbone

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pretrain_shapes(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("tools/pretrain_shapes.py")


def _pretrain(script: ModuleType, output: Path, minutes: float) -> dict[str, Any]:
    arguments = [
        "--output",
        str(output),
        "--minutes",
        str(minutes),
        "--batch-size",
        "4",
        "--image-size",
        "64",
    ]
    script.main([*arguments, "--held-out", "8", "--precision", "float32"])
    return json.loads(output.with_suffix(".json").read_text())


def test_backbone_is_written_and_continued(pretrain_shapes: ModuleType, tmp_path: Path) -> None:
    output = tmp_path / "backbone.safetensors"
    first = _pretrain(pretrain_shapes, output, 0.001)
    second = _pretrain(pretrain_shapes, output, 0.03)
    assert 0 < first["iterations"] < second["iterations"]
    assert set(second["accuracy"]) == {f"{what}_res{i}" for what in ("shape", "ground") for i in (3, 4, 5)}
    half = load_file(output)
    assert all(tensor.dtype == torch.float16 for tensor in half.values())


def test_examples_to_measure_with_are_never_trained_on(pretrain_shapes: ModuleType) -> None:
    trained = pretrain_shapes.SingleShapes(0, pretrain_shapes._HELD_OUT_START // 2, 64)
    assert trained.stop <= pretrain_shapes._HELD_OUT_START


def test_shipped_backbone_fits_its_config_and_is_small() -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(_ROOT / "configs/Quickstart/panoptic_fpn_R2_shapes.yaml"))
    weights_file = _ROOT / cfg.MODEL.WEIGHTS
    assert weights_file.stat().st_size <= 5_000_000
    weights = load_file(weights_file)
    expected = build_res2net_backbone(cfg, ShapeSpec(channels=3)).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == {
        name: tuple(tensor.shape)
        for name, tensor in expected.items()
        if not name.endswith("num_batches_tracked")
    }
