"""The demo on files, folders, patterns and videos, with a stand-in for the model."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.config import get_cfg
from detectron2.structures import Boxes, Instances
from detectron2.visualization.visualizer import Visualizer


class _StandIn:
    """Finds one box in every picture."""

    def __init__(self, cfg: Any, parallel: bool = False, metadata: Any = None) -> None:
        self.cfg = cfg

    def run_on_image(self, image: np.ndarray) -> Any:
        instances = Instances(image.shape[:2])
        instances.pred_boxes = Boxes(torch.tensor([[2.0, 2.0, 20.0, 20.0]]))
        drawing = Visualizer(image[:, :, ::-1]).draw_instance_predictions(instances)
        return {"instances": instances}, drawing

    def run_on_video(self, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for frame in frames:
            yield 255 - frame


@pytest.fixture
def demo(repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(repo_root / "demo"))
    spec = importlib.util.spec_from_file_location("demo_script", repo_root / "demo" / "demo.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VisualizationDemo", _StandIn)
    yield module
    sys.modules.pop("predictor", None)


@pytest.fixture
def config_file(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text("VERSION: 2\n")
    return str(path)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.jpg", "b.png", "c.JPG"):
        Image.fromarray(np.full((40, 50, 3), 120, dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    return folder


def _run(demo: ModuleType, config_file: str, *args: str) -> int:
    return demo.main(["--config-file", config_file, *args])


def test_folder_is_drawn(demo: ModuleType, config_file: str, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert _run(demo, config_file, "--input", str(pictures), "--output", str(out)) == 0
    assert sorted(p.name for p in out.iterdir()) == ["a.jpg", "b.png", "c.JPG"]
    assert (np.asarray(Image.open(out / "b.png")) != 120).any()


def test_pattern_and_single_file_with_a_name_of_its_own(
    demo: ModuleType, config_file: str, pictures: Path, tmp_path: Path
) -> None:
    assert _run(demo, config_file, "--input", f"{pictures}/*.jpg", "--output", str(tmp_path / "x.png")) == 0
    assert (tmp_path / "x.png").is_file()


def test_broken_and_missing_inputs_are_named_and_the_rest_is_done(
    demo: ModuleType, config_file: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tmp_path / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)).save(whole)
    (pictures / "broken.jpg").write_bytes(whole.read_bytes()[:1500])
    out = tmp_path / "out"
    status = _run(demo, config_file, "--input", str(pictures), "missing.jpg", "--output", str(out))
    assert status == 1
    assert len(list(out.iterdir())) == 3 and not (out / "broken.jpg").exists()
    log = capsys.readouterr().out
    assert "missing.jpg" in log and "broken.jpg" in log and "2 of 5 inputs were skipped" in log


def test_inputs_are_never_overwritten(demo: ModuleType, config_file: str, pictures: Path) -> None:
    before = (pictures / "a.jpg").read_bytes()
    for output in (str(pictures), str(pictures / "a.jpg")):
        with pytest.raises(ValueError, match="overwrite an input"):
            _run(demo, config_file, "--input", str(pictures / "a.jpg"), "--output", output)
    assert (pictures / "a.jpg").read_bytes() == before


def test_pictures_of_one_name_are_kept_apart(demo: ModuleType) -> None:
    planned = demo.plan_outputs(["x/a.jpg", "y/a.jpg", "z/A.JPG", "w/b.gif"], "out")
    # Some file systems do not tell a from A: names differ without their case.
    assert list(planned.values()) == ["out/a.jpg", "out/a_2.jpg", "out/A_3.JPG", "out/b.jpg"]


def test_cuda_is_left_for_the_cpu_where_it_is_not_there(
    demo: ModuleType, config_file: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    args = demo.get_parser().parse_args(
        ["--config-file", config_file, "--input", "x", "--confidence-threshold", "0.3", "--opts", "SEED", "3"]
    )
    cfg, metadata = demo.setup_cfg(args)
    assert metadata is None
    assert cfg.MODEL.DEVICE == "cpu" and cfg.SEED == 3
    assert cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST == 0.3
    assert cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH == 0.3
    assert "running on the CPU" in caplog.text


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write videos")
    for _ in range(5):
        writer.write(np.full((48, 64, 3), 200, dtype=np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("target", ["out", "out/drawn.mp4", "out/drawn.mkv"])
def test_video_is_drawn(demo: ModuleType, config_file: str, video: Path, tmp_path: Path, target: str) -> None:
    assert _run(demo, config_file, "--video-input", str(video), "--output", str(tmp_path / target)) == 0
    written = list((tmp_path / "out").iterdir())
    assert [p.name for p in written] == ["film.mp4" if target == "out" else Path(target).name]
    capture = cv2.VideoCapture(str(written[0]))
    frames = list(demo.read_frames(capture))
    capture.release()
    assert len(frames) == 5 and frames[0].shape == (48, 64, 3) and abs(frames[0].mean() - 55) < 10


def test_video_mistakes_are_told(demo: ModuleType, config_file: str, video: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no video file"):
        _run(demo, config_file, "--video-input", "missing.mp4", "--output", str(tmp_path))
    with pytest.raises(ValueError, match="overwrite"):
        _run(demo, config_file, "--video-input", str(video), "--output", str(tmp_path))


def test_what_a_model_gives_decides_on_the_drawing(demo: ModuleType) -> None:
    draw = sys.modules["predictor"].draw_predictions
    picture = np.full((40, 50, 3), 120, dtype=np.uint8)
    ids = torch.ones(40, 50, dtype=torch.int32)
    segments = [{"id": 1, "category_id": 0, "isthing": False}]
    instances = Instances((40, 50))
    instances.pred_boxes = Boxes(torch.tensor([[5.0, 5.0, 30.0, 30.0]]))
    for predictions in (
        {"panoptic_seg": (ids, segments)},
        {"sem_seg": torch.rand(3, 40, 50)},
        {"instances": instances},
    ):
        assert (draw(Visualizer(picture), predictions).get_image() != 120).any()
    assert (draw(Visualizer(picture), {}).get_image() == 120).all()


def test_a_checkpoint_that_carries_its_config_needs_no_config_file(demo: ModuleType, tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.SEED = 11
    notes = {"config": cfg.dump(), "metadata": {"name": "mine", "thing_classes": ["knot"]}}
    torch.save({"model": {}, "detectron2": notes}, tmp_path / "a.pth")
    parse = demo.get_parser().parse_args
    path = str(tmp_path / "a.pth")
    cfg, metadata = demo.setup_cfg(
        parse(["--input", "x", "--opts", "MODEL.WEIGHTS", path, "TEST.EVAL_PERIOD", "7"])
    )
    assert (cfg.SEED, cfg.TEST.EVAL_PERIOD, cfg.MODEL.WEIGHTS) == (11, 7, path)
    assert metadata.thing_classes == ["knot"]
    with pytest.raises(ValueError, match="--config-file"):
        demo.setup_cfg(parse(["--input", "x"]))
