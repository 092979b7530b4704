"""tools/benchmark.py: every task from the command line, with a YAML and with a Python config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from detectron2.data.datasets.shapes import write_shapes

LoadScript = Callable[[str], ModuleType]

YAML = "configs/Quickstart/panoptic_fpn_R2_shapes.yaml"
PYTHON = """
from torch import nn, optim
from detectron2.config import LazyCall as L
from detectron2.data import DatasetMapper, build_detection_test_loader, build_detection_train_loader
from detectron2.data import get_detection_dataset_dicts as read
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead, SemanticSegmentor
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.layers import ShapeSpec
from detectron2.solver.build import get_default_optimizer_params

model = L(SemanticSegmentor)(
    backbone=L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=8, norm="BN"),
        stages=L(ResNet.make_default_stages)(depth=18, norm="BN"),
        out_features=["res5"],
    ),
    sem_seg_head=L(SemSegFPNHead)(
        input_shape={"res5": L(ShapeSpec)(channels=512, stride=32)},
        num_classes=7,
        conv_dims=8,
        common_stride=32,
    ),
    pixel_mean=[0.0, 0.0, 0.0],
    pixel_std=[1.0, 1.0, 1.0],
)
model.backbone.stem.out_channels = 64
dataloader = dict(
    train=L(build_detection_train_loader)(
        dataset=L(read)(names="shapes_panoptic_train"),
        mapper=L(DatasetMapper)(is_train=True, image_format="BGR", augmentations=[]),
        total_batch_size=2,
        num_workers=0,
    ),
    test=L(build_detection_test_loader)(
        dataset=L(read)(names="shapes_panoptic_val", filter_empty=False),
        mapper=L(DatasetMapper)(is_train=False, image_format="BGR", augmentations=[]),
        num_workers=0,
    ),
)
optimizer = L(optim.SGD)(params=L(get_default_optimizer_params)(), lr=0.1)
train = dict(device="cpu", init_checkpoint="", output_dir=".", amp=dict(enabled=False))
"""
EXPECTED = {
    "train": "iterations took",
    "eval": "4 iterations in",
    "data": "Slowest of 1 processes",
    "data_advanced": "Passing between processes",
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("datasets")
    write_shapes("train", 4, root=root, image_size=(64, 96))
    write_shapes("val", 2, root=root, image_size=(64, 96))
    return root


@pytest.mark.parametrize("kind", ["yaml", "python"])
@pytest.mark.parametrize("task", EXPECTED)
def test_every_task_measures(
    load_script: LoadScript,
    repo_root: Path,
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    task: str,
    kind: str,
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(scenes))
    command = ["--task", task, "--num-gpus", "0", "--iterations", "4", "--config-file"]
    if kind == "yaml":
        command += [
            str(repo_root / YAML),
            "MODEL.DEVICE",
            "cpu",
            "MODEL.WEIGHTS",
            "",
            "OUTPUT_DIR",
            str(tmp_path),
        ]
        command += [
            "SOLVER.IMS_PER_BATCH",
            "2",
            "DATALOADER.NUM_WORKERS",
            "0",
            "INPUT.MIN_SIZE_TRAIN",
            "(64,)",
        ]
    else:
        (tmp_path / "config.py").write_text(PYTHON)
        command += [str(tmp_path / "config.py"), f"train.output_dir={tmp_path}"]
    load_script("tools/benchmark.py").main(command)
    report = "".join(capsys.readouterr())
    assert EXPECTED[task] in report
    assert ("images/s" in report) == task.startswith("data")
    if task == "train":
        assert list(tmp_path.rglob("*.pt.trace.json*")), "the last step was profiled"


def test_what_makes_no_sense_is_refused(load_script: LoadScript) -> None:
    parse = load_script("tools/benchmark.py").parse_args
    with pytest.raises(ValueError, match="--task eval"):
        parse(["--task", "train", "--eval-only"])
    with pytest.raises(ValueError, match="one process"):
        parse(["--task", "eval", "--num-gpus", "2"])
    with pytest.raises(ValueError, match="at least 1"):
        parse(["--task", "data", "--iterations", "0"])
