"""`analyze_model.py` and `deploy/export_model.py` from the command line to their results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from detectron2.config import get_cfg
from detectron2.data import build_detection_test_loader
from detectron2.data.datasets.shapes import write_shapes
from detectron2.engine import build_evaluator
from detectron2.evaluation import inference_on_dataset
from detectron2.layers.extension import missing_reason
from detectron2.modeling import build_model

LoadScript = Callable[[str], ModuleType]


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


needs_operators = pytest.mark.skipif(bool(missing_reason()), reason=missing_reason() or "-")
traces = pytest.mark.filterwarnings(r"ignore:.torch\.jit\.(load|save). is deprecated:DeprecationWarning")


@needs_operators
@traces
def test_export_model_writes_torchscript_that_agrees(
    load_script: LoadScript, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "--config-file",
        str(config_file),
        "--export-method",
        "tracing",
        "--output",
        str(tmp_path / "out"),
    ]
    load_script("tools/deploy/export_model.py").main(command)
    report = "".join(capsys.readouterr())
    assert "pred_boxes: shape" in report and "the model has" not in report
    outputs = torch.jit.load(tmp_path / "out" / "model.ts")(torch.rand(3, 200, 140) * 255)
    assert (tmp_path / "out" / "model_ts_code.txt").stat().st_size > 0
    assert [x.shape[1:] for x in outputs] == [(4,), (), (), ()] and outputs[-1].tolist() == [200, 140]


def run_panoptic(load_script: LoadScript, monkeypatch: pytest.MonkeyPatch, root: Path, tmp_path: Path) -> Any:
    """Export a model of the quickstart with random weights, evaluate it, and return its config."""
    write_shapes("val", 2, root=root, image_size=(64, 96))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    weights = tmp_path / "model.pth"
    options = [
        "MODEL.DEVICE",
        "cpu",
        "MODEL.WEIGHTS",
        str(weights),
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
        "0.0",
    ]
    options += ["OUTPUT_DIR", str(tmp_path), "DATALOADER.NUM_WORKERS", "0", "INPUT.MIN_SIZE_TEST", "80"]
    options += ["TEST.DETECTIONS_PER_IMAGE", "8", "DATASETS.TEST", "('shapes_panoptic_val',)"]
    config = str(Path(__file__).parents[2] / "configs/Quickstart/panoptic_fpn_R2_shapes.yaml")
    cfg = get_cfg()
    cfg.merge_from_file(config)
    cfg.merge_from_list(options)
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    torch.save(model.state_dict(), weights)
    command = ["--config-file", config, "--run-eval", "--output", str(tmp_path / "exported"), *options]
    load_script("tools/deploy/export_model.py").main(command)
    evaluator = build_evaluator(cfg, "shapes_panoptic_val", str(tmp_path / "eager"))
    inference_on_dataset(model, build_detection_test_loader(cfg, "shapes_panoptic_val"), evaluator)
    return cfg


@needs_operators
@traces
def test_export_model_evaluates_what_it_exported(
    load_script: LoadScript,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_panoptic(load_script, monkeypatch, tmp_path / "datasets", tmp_path)
    assert "copypaste" in "".join(capsys.readouterr())
    for name in ("coco_instances_results.json", "predictions.json"):
        found, expected = (
            json.loads(next((tmp_path / folder).rglob(name)).read_text()) for folder in ("exported", "eager")
        )
        assert len(found) > 0
        if name.startswith("coco"):
            found = [{k: v for k, v in x.items() if k in ("image_id", "category_id")} for x in found]
            expected = [{k: v for k, v in x.items() if k in ("image_id", "category_id")} for x in expected]
        assert found == expected


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--export-method", "scripting"], "scripting is not supported.*--export-method tracing"),
        (["--export-method", "caffe2_tracing"], "Caffe2 is no longer part of PyTorch"),
        (["--format", "caffe2"], "caffe2 is not supported.*--format onnx"),
    ],
)
def test_what_is_left_out_of_export_says_why(
    load_script: LoadScript, options: list[str], reason: str
) -> None:
    with pytest.raises(NotImplementedError, match=reason):
        load_script("tools/deploy/export_model.py").main(["--config-file", "model.yaml", *options])


def test_an_output_of_another_format_is_refused(load_script: LoadScript) -> None:
    with pytest.raises(ValueError, match=r"model.onnx is no file of --format torchscript"):
        load_script("tools/deploy/export_model.py").main(
            ["--config-file", "x.yaml", "--output", "model.onnx"]
        )
