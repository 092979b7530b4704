#!/usr/bin/env python
"""From nothing to a trained, evaluated and drawn panoptic model, in minutes on a laptop.

    python tools/quickstart.py

It draws the embedded data set, trains configs/Quickstart/panoptic_fpn_R2_shapes.yaml on it (on a GPU when
there is one), evaluates on held-out scenes, draws some of them, and writes everything to output/quickstart.
Each step is skipped when its result is there already, and a training that was stopped continues: run the
same command again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import nn

from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.shapes import DEFAULT_IMAGE_SIZE, write_shapes
from detectron2.data.detection_utils import read_image
from detectron2.engine import DefaultPredictor, DefaultTrainer, default_setup
from detectron2.engine.hooks import EvalHook
from detectron2.utils.file_io import atomic_write
from detectron2.utils.logger import setup_logger
from detectron2.utils.precision import prefers_bfloat16
from detectron2.utils.user_errors import UserValueError, exit_on_user_error
from detectron2.visualization.comparison import side_by_side
from detectron2.visualization.report import Chart, Report, Table, read_metrics
from detectron2.visualization.visualizer import Visualizer

logger = logging.getLogger("detectron2.quickstart")

_ROOT = Path(__file__).resolve().parents[1]
_CONFIG = _ROOT / "configs/Quickstart/panoptic_fpn_R2_shapes.yaml"
_NUM_PICTURES = 12
_PICTURE_SCALE = 2
_FLOAT32_SPEED = 0.7  # steps in float32 in the time of one in bfloat16

# Settings that may differ between two calls that work on the same run.
_FREE_SETTINGS = (
    "OUTPUT_DIR",
    "DATALOADER",
    "MODEL.WEIGHTS",
    "MODEL.DEVICE",
    "SOLVER.AMP",
    "SOLVER.CHECKPOINT_PERIOD",
)
_HEADLINES = (
    ("PQ", "panoptic_seg", "PQ"),
    ("box AP", "bbox", "AP"),
    ("mask AP", "segm", "AP"),
    ("mIoU", "sem_seg", "mIoU"),
)


class OutputFiles:
    """What a run leaves in its output folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "model_final.pth"
        self.config = folder / "config.yaml"
        self.metrics = folder / "metrics.json"
        self.log = folder / "log.txt"
        self.results = folder / "results.json"
        self.results_table = folder / "results.md"
        self.pictures = folder / "pictures"
        self.report = folder / "report.html"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output-dir", default="output/quickstart")
    parser.add_argument(
        "--data-root",
        default=os.getenv("DETECTRON2_DATASETS", "datasets"),
        help="folder of all data sets; default: $DETECTRON2_DATASETS, or datasets",
    )
    parser.add_argument("--images", type=int, default=1500, help="training scenes")
    parser.add_argument("--val-images", type=int, default=200, help="validation scenes")
    parser.add_argument("--max-iter", type=int, help="training steps; default: those of the config")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys and values, last"
    )
    return parser.parse_args(argv)


def make_config(args: argparse.Namespace) -> CfgNode:
    """Read the config of the quickstart and fit it to this machine."""
    cfg = get_cfg()
    cfg.merge_from_file(str(_CONFIG))
    cfg.MODEL.WEIGHTS = str(_ROOT / cfg.MODEL.WEIGHTS)
    cfg.OUTPUT_DIR = args.output_dir
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    cfg.DATALOADER.NUM_WORKERS = max(0, min(4, _num_cores() - 2))
    cfg.merge_from_list(args.opts)
    if args.max_iter is not None:
        cfg.SOLVER.MAX_ITER = args.max_iter
        cfg.SOLVER.WARMUP_ITERS = min(cfg.SOLVER.WARMUP_ITERS, args.max_iter // 5)
    if "SOLVER.AMP.ENABLED" not in args.opts:
        _choose_precision(cfg, has_fixed_length=args.max_iter is not None)
    cfg.freeze()
    return cfg


def _choose_precision(cfg: CfgNode, has_fixed_length: bool) -> None:
    """Train in bfloat16 where that is faster, else for fewer steps; a run keeps to its first choice."""
    cfg.SOLVER.AMP.DTYPE = "bfloat16"
    begun = OutputFiles(Path(cfg.OUTPUT_DIR)).config
    if begun.exists():
        solver = yaml.safe_load(begun.read_text())["SOLVER"]
        cfg.SOLVER.AMP.ENABLED = solver["AMP"]["ENABLED"] or cfg.MODEL.DEVICE != "cpu"
        if not has_fixed_length:
            cfg.SOLVER.MAX_ITER = solver["MAX_ITER"]
        return
    cfg.SOLVER.AMP.ENABLED = cfg.MODEL.DEVICE != "cpu" or prefers_bfloat16()
    if not cfg.SOLVER.AMP.ENABLED and not has_fixed_length:
        cfg.SOLVER.MAX_ITER = round(_FLOAT32_SPEED * cfg.SOLVER.MAX_ITER)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_same_run(cfg: CfgNode, files: OutputFiles) -> None:
    """Refuse to continue a run that was started with other settings.

    Raises:
        ValueError: naming the settings that differ.
    """
    if not files.config.exists():
        return
    before, now = (_flat_settings(yaml.safe_load(text)) for text in (files.config.read_text(), cfg.dump()))
    changed = [
        key
        for key in sorted(before.keys() & now.keys())  # another version of the package has other keys
        if before[key] != now[key] and not key.startswith(_FREE_SETTINGS)
    ]
    if changed:
        raise UserValueError(
            f"{files.folder} holds a run with other settings: {', '.join(changed[:6])}. Give another"
            " --output-dir, or remove that folder to start over"
        )


def _flat_settings(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            flat.update(_flat_settings(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def prepare_data(args: argparse.Namespace) -> None:
    """Draw the scenes that are not there yet, and let the catalog find them."""
    os.environ["DETECTRON2_DATASETS"] = args.data_root
    for split, num_images in (("train", args.images), ("val", args.val_images)):
        num_drawn = write_shapes(
            split, num_images, root=args.data_root, image_size=DEFAULT_IMAGE_SIZE, num_workers=_num_cores()
        )
        logger.info("Data: %d %s scenes, %d of them new", num_images, split, num_drawn)


def train(cfg: CfgNode, files: OutputFiles, args: argparse.Namespace) -> None:
    """Train, or continue a training that was stopped; nothing when it is finished."""
    if files.model.exists():
        logger.info("Training: finished already, %s", files.model)
        return
    with quiet_console():
        default_setup(cfg, args)
        trainer = QuickstartTrainer(cfg)
        trainer.resume_or_load(resume=True)
    logger.info("Training: steps %d to %d", trainer.start_iter, trainer.max_iter)
    trainer.train()


@contextmanager
def quiet_console() -> Iterator[None]:
    """Show warnings only on the console; the log file has everything, pages of config among it."""
    consoles = [
        handler
        for name in ("detectron2", "fvcore")
        for handler in logging.getLogger(name).handlers
        if not isinstance(handler, logging.FileHandler)
    ]
    levels = [handler.level for handler in consoles]
    for handler in consoles:
        handler.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for handler, level in zip(consoles, levels):
            handler.setLevel(level)


class QuickstartTrainer(DefaultTrainer):
    """The default trainer with channels last in memory, and without evaluation, a step of its own here.

    The memory layout makes convolutions on CPUs a fifth faster and changes nothing else.
    """

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        model = super().build_model(cfg)
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch leaves it out

    def build_hooks(self) -> list:
        return [hook for hook in super().build_hooks() if not isinstance(hook, EvalHook)]


def evaluate(cfg: CfgNode, files: OutputFiles) -> dict[str, Any]:
    """Score the model on the validation scenes, or read the scores when they are there."""
    if files.results.exists() and files.results.stat().st_mtime >= files.model.stat().st_mtime:
        return json.loads(files.results.read_text())
    predictor = load_predictor(cfg, files)
    scores = DefaultTrainer.test(cfg, predictor.model)
    results = {
        "scores": {
            task: {name: _rounded(value) for name, value in numbers.items()}
            for task, numbers in scores.items()
        },
        "machine": _describe_machine(cfg),
        "command": " ".join(["python", *sys.argv]),
    }
    with atomic_write(files.results, "w") as file:
        json.dump(results, file, indent=2)
    return results


def _rounded(value: Any) -> float | None:
    number = float(value)
    return round(number, 3) if np.isfinite(number) else None


def load_predictor(cfg: CfgNode, files: OutputFiles) -> DefaultPredictor:
    """Load the trained model."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = str(files.model)
    return DefaultPredictor(cfg)


def _describe_machine(cfg: CfgNode) -> str:
    precision = cfg.SOLVER.AMP.DTYPE if cfg.SOLVER.AMP.ENABLED else "float32"
    device = f"{_num_cores()} CPU cores ({platform.machine()})"
    if cfg.MODEL.DEVICE != "cpu":
        device = torch.cuda.get_device_name()
    return f"{device}, PyTorch {torch.__version__}, trained in {precision}"


def draw_pictures(cfg: CfgNode, files: OutputFiles) -> list[Path]:
    """Draw some validation scenes, each as input, ground truth and prediction; skip those drawn already."""
    name = cfg.DATASETS.TEST[0]
    samples = DatasetCatalog.get(name)
    chosen = [samples[index] for index in np.linspace(0, len(samples) - 1, _NUM_PICTURES).round().astype(int)]
    files.pictures.mkdir(parents=True, exist_ok=True)
    paths = [files.pictures / f"{Path(sample['file_name']).stem}.png" for sample in chosen]
    todo = [pair for pair in zip(chosen, paths) if not pair[1].exists()]
    if todo:
        predictor = load_predictor(cfg, files)
        for sample, path in todo:
            with atomic_write(path) as file:
                _draw_comparison(predictor, sample, MetadataCatalog.get(name)).save(file, format="PNG")
    return paths


def _draw_comparison(predictor: DefaultPredictor, sample: dict[str, Any], metadata: Any) -> Image.Image:
    picture = read_image(sample["file_name"], format="RGB")
    panoptic_seg, segments_info = predictor(picture[:, :, ::-1])["panoptic_seg"]
    truth, prediction = (
        Visualizer(picture, metadata, scale=_PICTURE_SCALE, color_by="class") for _ in range(2)
    )
    truth.draw_dataset_dict(sample)
    prediction.draw_panoptic_seg(panoptic_seg.to("cpu"), segments_info)
    height, width = picture.shape[:2]
    enlarged = Image.fromarray(picture).resize(
        (width * _PICTURE_SCALE, height * _PICTURE_SCALE), Image.Resampling.BICUBIC
    )
    sheet = side_by_side(
        [
            ("input", np.asarray(enlarged)),
            ("ground truth", truth.get_output().get_image()),
            ("prediction", prediction.get_output().get_image()),
        ]
    )
    return Image.fromarray(sheet)


def headline_scores(results: Mapping[str, Any]) -> dict[str, float]:
    """The four numbers that sum up a panoptic model, in percent."""
    scores = results["scores"]
    found = {title: scores.get(task, {}).get(metric) for title, task, metric in _HEADLINES}
    return {title: value for title, value in found.items() if value is not None}


def write_tables(results: Mapping[str, Any], files: OutputFiles) -> str:
    """Write the results as Markdown; return the text."""
    headlines = headline_scores(results)
    lines = [
        "| " + " | ".join(headlines) + " |",
        "|" + " ---: |" * len(headlines),
        "| " + " | ".join(f"{value:.1f}" for value in headlines.values()) + " |",
    ]
    text = "\n".join(lines) + "\n"
    with atomic_write(files.results_table, "w") as file:
        file.write(f"{text}\nMeasured with `{results['command']}` on {results['machine']}.\n")
    return text


def write_report(cfg: CfgNode, results: Mapping[str, Any], pictures: list[Path], files: OutputFiles) -> None:
    """Gather numbers, curves and pictures on one page."""
    curves = read_metrics(files.metrics) if files.metrics.exists() else {}
    parts = {name: points for name, points in curves.items() if name.startswith("loss_")}
    charts = [
        Chart("total loss", {"total_loss": curves.get("total_loss", [])}),
        Chart("parts of the loss", parts),
    ]
    charts.append(Chart("learning rate", {"lr": curves.get("lr", [])}))
    tables = [
        Table(
            task,
            ["metric", "value"],
            [(name, "-" if value is None else value) for name, value in numbers.items()],
        )
        for task, numbers in results["scores"].items()
    ]
    report = Report(
        title="Res2Net Panoptic FPN on shapes",
        lead=f"Trained and evaluated by {results['command']} on {results['machine']}.",
        figures=headline_scores(results),
        tables=tables,
        charts=charts,
        pictures=[(path, f"validation scene {path.stem.lstrip('0')}") for path in pictures],
        notes={"Config": cfg.dump()},
    )
    report.write(files.report)


def run(args: argparse.Namespace) -> None:
    """Do every step that is not done yet."""
    start = time.perf_counter()
    cfg = make_config(args)
    files = OutputFiles(Path(cfg.OUTPUT_DIR))
    check_same_run(cfg, files)
    prepare_data(args)
    train(cfg, files, args)
    results = evaluate(cfg, files)
    pictures = draw_pictures(cfg, files)
    table = write_tables(results, files)
    write_report(cfg, results, pictures, files)
    logger.info("Finished in %.1f minutes.\n\n%s", (time.perf_counter() - start) / 60, table)
    for what, path in (
        ("report", files.report),
        ("pictures", files.pictures),
        ("checkpoint", files.model),
        ("config", files.config),
        ("metrics", files.metrics),
        ("log", files.log),
        ("results", files.results),
    ):
        logger.info("%-10s %s", what, path)


def main() -> int:
    """Run; say what to do when it is stopped."""
    args = parse_args()
    setup_logger(args.output_dir)
    try:
        run(args)
    except KeyboardInterrupt:
        logger.info("Stopped. The same command continues from here.")
        return 130
    return 0


if __name__ == "__main__":
    with exit_on_user_error():
        sys.exit(main())
