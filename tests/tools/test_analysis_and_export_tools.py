"""`analyze_model.py` and `deploy/export_model.py` from the command line to their results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from detectron2.config import get_cfg
from detectron2.layers.extension import missing_reason

LoadScript = Callable[[str], ModuleType]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Scripts set up a logger that does not hand its records on."""
    logger = logging.getLogger("detectron2")
    state = logger.handlers[:], logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate = state[0], state[1]
    logger.setLevel(state[2])


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    cfg = get_cfg()
    m = cfg.MODEL
    m.DEVICE, m.META_ARCHITECTURE, m.WEIGHTS = "cpu", "RetinaNet", ""
    m.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    m.RESNETS.DEPTH, m.RESNETS.RES2_OUT_CHANNELS = 18, 64
    m.RESNETS.OUT_FEATURES = m.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    m.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    m.FPN.OUT_CHANNELS, m.RETINANET.NUM_CONVS, m.RETINANET.NUM_CLASSES = 16, 1, 3
    path = tmp_path / "config.yaml"
    path.write_text(cfg.dump())
    return path


def test_analyze_model_reports_every_task(
    load_script: LoadScript, config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = ["flop", "activation", "parameter", "structure"]
    load_script("tools/analyze_model.py").main(
        ["--config-file", str(config_file), "--image-size", "64", "96", "--tasks", *tasks]
    )
    report = "".join(capsys.readouterr())
    for expected in (
        "GFLOPs in total",
        "Million activations in total",
        "backbone.bottom_up",
        "RetinaNetHead",
    ):
        assert expected in report


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_reason()), reason=missing_reason() or "-")
def test_export_model_writes_a_program_that_agrees(
    load_script: LoadScript, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model.pt2"
    load_script("tools/deploy/export_model.py").main(
        ["--config-file", str(config_file), "--format", "torch_export", "--output", str(output)]
    )
    assert "boxes: shape" in "".join(capsys.readouterr())
    outputs = torch.export.load(output).module()(torch.rand(3, 200, 140) * 255)
    assert list(outputs) == ["boxes", "scores", "classes"]
