"""tools/lazyconfig_train_net.py as it is called from a shell, on a small model and a few small scenes."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.shapes import write_shapes
from detectron2.engine.defaults import load_metadata

CONFIG = """
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.data import DatasetMapper, build_detection_test_loader, build_detection_train_loader
from detectron2.data import get_detection_dataset_dicts
from detectron2.evaluation import SemSegEvaluator
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, SemanticSegmentor
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead

COMMON = {common!r}
train = LazyConfig.load(COMMON + "/train.py", "train")
train.update(max_iter=3, device="cpu", eval_period=0, log_period=1, output_dir="nowhere", seed=1)
optimizer = LazyConfig.load(COMMON + "/optim.py", "SGD")
optimizer.lr = 0.01
lr_multiplier = LazyConfig.load(COMMON + "/coco_schedule.py", "lr_multiplier_1x")
lr_multiplier.scheduler.update(milestones=[8, 9], num_updates=10)

model = L(SemanticSegmentor)(
    backbone=L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(norm="FrozenBN"),
            stages=L(ResNet.make_default_stages)(depth=18, norm="FrozenBN"),
            out_features=["res4", "res5"],
        ),
        in_features="${{.bottom_up.out_features}}",
        out_channels=8,
    ),
    sem_seg_head=L(SemSegFPNHead)(
        input_shape={{f"p{{i}}": ShapeSpec(channels=8, stride=2**i) for i in (4, 5)}},
        num_classes=7,
        conv_dims=8,
        common_stride=16,
        ignore_value=255,
    ),
    pixel_mean=[128.0] * 3,
    pixel_std=[64.0] * 3,
)
dataloader = dict(
    train=L(build_detection_train_loader)(
        dataset=L(get_detection_dataset_dicts)(names="shapes_panoptic_train"),
        mapper=L(DatasetMapper)(is_train=True, augmentations=[], image_format="BGR"),
        total_batch_size=2,
    ),
    test=L(build_detection_test_loader)(
        dataset=L(get_detection_dataset_dicts)(names="shapes_panoptic_val", filter_empty=False),
        mapper=L(DatasetMapper)(is_train=False, augmentations=[], image_format="BGR"),
    ),
    evaluator=[L(SemSegEvaluator)(dataset_name="${{...test.dataset.names}}")],
)
"""
Shell = Callable[..., int]


@pytest.fixture
def shell(repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Runs the tool on the config in this process, as a shell would in another; gives the exit status."""
    for split, count in (("train", 4), ("val", 2)):
        write_shapes(split, count, root=tmp_path, image_size=(64, 80))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(common=str(repo_root / "configs" / "common")))
    script = str(repo_root / "tools" / "lazyconfig_train_net.py")

    def run(*overrides: str, options: tuple[str, ...] = (), file: str | None = None) -> int:
        command = [script, "--config-file", file or str(config), "--num-gpus", "0", *options]
        output = f"train.output_dir={tmp_path / 'out'}"
        monkeypatch.setattr(sys, "argv", [*command, output, *overrides])
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run


def read_metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def test_train_resume_and_evaluate(shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert shell("train.checkpointer.period=2") == 0
    metrics = read_metrics(out)
    assert [m["iteration"] for m in metrics if "total_loss" in m] == [0, 1, 2]
    assert metrics[0]["lr"] < metrics[1]["lr"]
    assert (out / "model_0000001.pth").is_file() and (out / "config.yaml").is_file()
    score = metrics[-1]["sem_seg/mIoU"]

    capsys.readouterr()
    weights = f"train.init_checkpoint={out / 'model_final.pth'}"
    assert shell(weights, f"train.output_dir={tmp_path / 'eval'}", options=("--eval-only",)) == 0
    assert f"copypaste: {score:.4f}," in capsys.readouterr().out

    assert shell("train.max_iter=5", options=("--resume",)) == 0
    assert [m["iteration"] for m in read_metrics(out) if "total_loss" in m][3:] == [3, 4]


def test_checkpoints_carry_the_names_of_classes(
    shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell("train.max_iter=1", "~dataloader.evaluator") == 0
    weights = tmp_path / "out" / "model_final.pth"
    classes = MetadataCatalog.get("shapes_panoptic_train").stuff_classes
    metadata = load_metadata(str(weights))
    assert metadata is not None and metadata.stuff_classes == classes

    val = MetadataCatalog.get("shapes_panoptic_val").as_dict()
    del val["name"]
    DatasetCatalog.register("other_order", lambda: DatasetCatalog.get("shapes_panoptic_val"))
    MetadataCatalog.get("other_order").set(**{**val, "stuff_classes": classes[::-1]})
    try:
        overrides = (f"train.init_checkpoint={weights}", "dataloader.test.dataset.names=other_order")
        capsys.readouterr()
        assert shell(*overrides, options=("--eval-only",)) == 2
        error = capsys.readouterr().err
        assert "stand in another order" in error and "train.check_class_names" in error
        assert shell(*overrides, "train.check_class_names=false", options=("--eval-only",)) == 0
    finally:
        DatasetCatalog.remove("other_order")
        MetadataCatalog.remove("other_order")


def test_training_without_evaluation(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shell("~dataloader.evaluator", "train.max_iter=1", "+train.ddp.static_graph=false") == 0
    (metrics,) = read_metrics(tmp_path / "out")
    assert "total_loss" in metrics and "sem_seg/mIoU" not in metrics


def test_what_a_user_gets_wrong_is_told_in_one_message(
    shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def message(*overrides: str, **kwargs: object) -> str:
        capsys.readouterr()
        assert shell(*overrides, **kwargs) == 2
        errors = capsys.readouterr().err
        assert "Traceback" not in errors
        return errors

    assert "train.max_iter.x" in message("train.max_iter.x=3")
    assert "there is no such key" in message("~train.max_iters")
    assert "it lacks optimizer" in message("~optimizer")
    assert "--eval-only needs weights" in message(options=("--eval-only",))
    assert "gone.py" in message(file=str(tmp_path / "gone.py"))
    assert not (tmp_path / "out").exists()
