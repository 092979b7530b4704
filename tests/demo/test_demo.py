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

    def __init__(self, cfg: Any, **options: Any) -> None:
        self.cfg, self.options = cfg, options

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
    planned = demo.plan_outputs(
        {path: path[2:] for path in ("x/a.jpg", "y/a.jpg", "z/A.JPG", "w/b.gif")}, "out"
    )
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


@pytest.mark.parametrize("parallel", [False, True])
def test_names_of_the_checkpoint_are_used_beside_a_config_file(
    demo: ModuleType,
    config_file: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parallel: bool,
) -> None:
    notes = {"metadata": {"name": "mine", "thing_classes": ["knot"], "thing_colors": [[1, 2, 3]]}}
    torch.save({"model": {}, "detectron2": notes}, tmp_path / "a.pth")
    torch.save({"model": {}}, tmp_path / "bare.pth")
    parse = demo.get_parser().parse_args
    predictor = sys.modules["predictor"]
    told: list[Any] = []
    monkeypatch.setattr(predictor, "DefaultPredictor", lambda cfg, *, metadata: told.append(metadata))
    monkeypatch.setattr(predictor, "AsyncPredictor", lambda cfg, number, metadata: told.append(metadata))

    def names(weights: str) -> Any:
        options = ["--config-file", config_file, "--input", "x", "--opts", "MODEL.WEIGHTS", weights]
        cfg, metadata = demo.setup_cfg(parse(options))
        visualization = predictor.VisualizationDemo(cfg, parallel=parallel, metadata=metadata)
        return visualization.metadata if told.pop() is not None else None

    metadata = names(str(tmp_path / "a.pth"))
    assert metadata.thing_classes == ["knot"] and metadata.thing_colors == [[1, 2, 3]]
    assert names(str(tmp_path / "bare.pth")) is None and names("") is None


def test_folders_in_folders_are_drawn_or_said_to_be_skipped(
    demo: ModuleType, config_file: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("deep/er", ".hidden", "out"):
        (pictures / folder).mkdir(parents=True)
        Image.fromarray(np.full((40, 50, 3), 120, dtype=np.uint8)).save(pictures / folder / "a.jpg")
    (pictures / "link").symlink_to(pictures / "deep")
    (pictures / "drawing.svg").touch()
    out = pictures / "out"
    assert _run(demo, config_file, "--input", str(pictures), "--output", str(out)) == 0
    drawn = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    assert drawn == ["a.jpg", "b.png", "c.JPG", "deep/er/a.jpg"]
    log = capsys.readouterr().out
    assert all(f"Skipped the folder {pictures}/{name}" in log for name in (".hidden", "out", "link"))
    assert f"Skipped {pictures}/drawing.svg" in log and "notes.txt" not in log
    found, missing = demo.find_pictures([f"{pictures}/dee*", f"{pictures}/*.png"])
    assert list(found.values()) == ["er/a.jpg", "b.png"] and missing == []


def test_an_animation_is_a_file(
    demo: ModuleType, config_file: str, pictures: Path, video: Path, tmp_path: Path
) -> None:
    still, moving = tmp_path / "x.gif", tmp_path / "film.gif"
    assert _run(demo, config_file, "--input", str(pictures / "a.jpg"), "--output", str(still)) == 0
    assert _run(demo, config_file, "--video-input", str(video), "--output", str(moving)) == 0
    with Image.open(still) as picture, Image.open(moving) as film:
        assert (picture.format, picture.size) == ("GIF", (50, 40))
        assert (film.format, film.size, film.info["loop"]) == ("GIF", (64, 48), 0)
        assert abs(np.asarray(film.convert("RGB")).astype(int).mean() - 55) < 10
        # Five frames of a tenth of a second; equal ones may be joined.
        assert film.info["duration"] * getattr(film, "n_frames", 1) in (
            100,
            500,
        )


def test_files_that_cannot_hold_what_is_drawn_are_refused_at_once(
    demo: ModuleType, config_file: str, pictures: Path, video: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="is one file, and 3 pictures"):
        _run(demo, config_file, "--input", str(pictures), "--output", str(tmp_path / "x.png"))
    with pytest.raises(ValueError, match=r"picture as .*x\.mp4"):
        _run(demo, config_file, "--input", str(pictures / "a.jpg"), "--output", str(tmp_path / "x.mp4"))
    with pytest.raises(ValueError, match=r"video as .*x\.mov"):
        _run(demo, config_file, "--video-input", str(video), "--output", str(tmp_path / "x.mov"))
    (tmp_path / "folder.gif").mkdir()
    assert not demo.video_output("a.mp4", str(tmp_path / "folder.gif")).endswith(".gif")


@pytest.mark.parametrize("color_by", ["class", "instance", "track"])
def test_what_a_colour_stands_for_is_asked_of_the_demo(
    demo: ModuleType, config_file: str, pictures: Path, tmp_path: Path, color_by: str, monkeypatch: Any
) -> None:
    made = []

    class Recording(_StandIn):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(options["color_by"])

    monkeypatch.setattr(demo, "VisualizationDemo", Recording)
    options = [] if color_by == "class" else ["--color-by", color_by]
    _run(demo, config_file, "--input", str(pictures), "--output", str(tmp_path / "out"), *options)
    assert made == [color_by]
