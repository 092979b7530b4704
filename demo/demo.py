#!/usr/bin/env python
"""Run a model on pictures, a video or a camera, and draw what it finds.

demo/demo.py --config-file configs/COCO-PanopticSegmentation/panoptic_fpn_R2_101_3x.yaml
    --input a.jpg 'folder/*.png' another_folder --output out/ --opts MODEL.WEIGHTS model.pth

Checkpoints that were trained here carry their config, so that this is enough:

demo/demo.py --input a.jpg --output out/ --opts MODEL.WEIGHTS output/model_final.pth
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
import tqdm
from demo_files import find_pictures, plan_outputs, read_frames, video_output, video_writer
from predictor import VisualizationDemo
from tqdm.contrib.logging import logging_redirect_tqdm

from detectron2.config import CfgNode, get_cfg
from detectron2.data.catalog import Metadata
from detectron2.data.detection_utils import read_image
from detectron2.engine.defaults import load_run
from detectron2.utils.logger import setup_logger
from detectron2.utils.user_errors import UserFileNotFoundError, UserValueError, exit_on_user_error

logger = logging.getLogger("detectron2.demo")

WINDOW_NAME = "detectron2"
DEFAULT_FRAMES_PER_SECOND = 25.0


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file",
        metavar="FILE",
        help="the config of the model; without it, MODEL.WEIGHTS must name a checkpoint that carries one",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--input",
        nargs="+",
        metavar="PATH",
        help="pictures, folders of pictures with all folders in them, or patterns",
    )
    source.add_argument("--video-input", metavar="FILE", help="a video file")
    source.add_argument("--webcam", action="store_true", help="take pictures from the first camera")
    parser.add_argument(
        "--output",
        metavar="PATH",
        help="a folder, or a file name for a single picture or a video, which may be a .gif; without it a "
        "window opens",
    )
    parser.add_argument(
        "--confidence-threshold", type=float, default=0.5, help="lowest score of an instance to be drawn"
    )
    parser.add_argument(
        "--color-by",
        choices=["class", "instance", "track"],
        default="class",
        help="what a colour stands for: every instance of a class, one instance in a shade of its class's "
        "colour, or one object of a video for as long as it is seen",
    )
    parser.add_argument(
        "--parallel",
        action="store_true",
        help="predict in other processes, one per GPU, while this one draws",
    )
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="config keys and values that replace those of the file; they come last",
    )
    return parser


def setup_cfg(args: argparse.Namespace) -> tuple[CfgNode, Metadata | None]:
    """The config for prediction: thresholds as asked for, and the CPU where CUDA is not there.

    Returns:
        The config, and the class names where both come from the checkpoint.
    """
    cfg, metadata = _read_cfg(args)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = args.confidence_threshold
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = args.confidence_threshold
    cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = args.confidence_threshold
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        logger.info("MODEL.DEVICE is '%s', but there is no CUDA device: running on the CPU", cfg.MODEL.DEVICE)
        cfg.MODEL.DEVICE = "cpu"
    if not cfg.MODEL.WEIGHTS:
        logger.warning("MODEL.WEIGHTS is empty: an untrained model finds nothing sensible")
    cfg.freeze()
    return cfg, metadata


def _read_cfg(args: argparse.Namespace) -> tuple[CfgNode, Metadata | None]:
    cfg = get_cfg()
    if args.config_file:
        cfg.merge_from_file(args.config_file)
        cfg.merge_from_list(args.opts)
        return cfg, None
    weights = dict(zip(args.opts[::2], args.opts[1::2])).get("MODEL.WEIGHTS")
    if not weights:
        raise UserValueError(
            "give --config-file, or a checkpoint that carries its config: --opts MODEL.WEIGHTS model.pth"
        )
    return load_run(weights, args.opts)


def run_on_pictures(
    demo: VisualizationDemo, outputs: dict[str, str | None], value_range: list[float] | None = None
) -> list[str]:
    """Predict on pictures one by one; return those that could not be read."""
    broken = []
    for path, target in tqdm.tqdm(outputs.items(), unit="picture", disable=not outputs):
        try:
            image = read_image(path, format="BGR", value_range=value_range)
        except (OSError, ValueError) as error:
            logger.error("Skipped %s: %s", path, error)
            broken.append(path)
            continue
        started = time.perf_counter()
        predictions, drawing = demo.run_on_image(image)
        logger.info("%s: %s in %.2f s", path, summarize(predictions), time.perf_counter() - started)
        if target is not None:
            drawing.save(target)
        elif show(drawing.get_image()[:, :, ::-1], wait=0):
            break
    return broken


def summarize(predictions: dict[str, Any]) -> str:
    if "panoptic_seg" in predictions:
        segments = predictions["panoptic_seg"][1]
        return "panoptic segmentation" if segments is None else f"{len(segments)} segments"
    if "instances" in predictions:
        return f"{len(predictions['instances'])} instances"
    return "finished"


def show(bgr: np.ndarray, wait: int) -> bool:
    """Show a picture in a window; return whether the user pressed Escape.

    Raises:
        ValueError: the installed OpenCV cannot open windows.
    """
    try:
        cv2.namedWindow(WINDOW_NAME, cv2.WINDOW_NORMAL)
        cv2.imshow(WINDOW_NAME, bgr)
        return cv2.waitKey(wait) == 27
    except cv2.error as error:
        raise UserValueError(
            "OpenCV cannot open a window here; give --output to write files instead"
        ) from error


def run_on_video(demo: VisualizationDemo, source: str | int, output: str | None) -> None:
    """Predict on a video file (a path) or a camera (a number)."""
    if isinstance(source, str) and not os.path.isfile(source):
        raise UserFileNotFoundError(f"there is no video file '{source}'")
    target = video_output(source, output)
    capture = cv2.VideoCapture(source)
    if not capture.isOpened():
        kind = f"the video '{source}'" if isinstance(source, str) else f"camera {source}"
        raise UserValueError(f"OpenCV cannot open {kind}")
    size = (int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
    frames_per_second = capture.get(cv2.CAP_PROP_FPS) or DEFAULT_FRAMES_PER_SECOND
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if isinstance(source, str) else 0
    drawings = tqdm.tqdm(
        demo.run_on_video(read_frames(capture)), total=total if total > 0 else None, unit="frame"
    )
    try:
        if target is None:
            for drawing in drawings:
                if show(drawing, wait=1):
                    break
            return
        with video_writer(target, frames_per_second, size) as writer:
            num_frames = 0
            for num_frames, drawing in enumerate(drawings, 1):  # noqa: B007
                writer.write(drawing)
            if not num_frames:
                raise UserValueError(f"'{source}' holds no frame that OpenCV can read")
        logger.info("Wrote %d frames to %s", num_frames, target)
    finally:
        capture.release()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; return 0, or 1 where an input was skipped."""
    args = get_parser().parse_args(argv)
    setup_logger(name="fvcore")
    setup_logger()
    cfg, metadata = setup_cfg(args)
    if not args.input:
        demo = VisualizationDemo(cfg, parallel=args.parallel, metadata=metadata, color_by=args.color_by)
        run_on_video(demo, 0 if args.webcam else args.video_input, args.output)
        return 0

    pictures, skipped = find_pictures(args.input, args.output)
    for entry in skipped:
        logger.error("Skipped %s: there is no such picture, and no picture in it", entry)
    outputs = plan_outputs(pictures, args.output)
    if pictures:
        demo = VisualizationDemo(cfg, parallel=args.parallel, metadata=metadata, color_by=args.color_by)
        with logging_redirect_tqdm([logging.getLogger("detectron2")]):
            broken = run_on_pictures(demo, outputs, cfg.INPUT.VALUE_RANGE)
        skipped += broken
        if args.output and len(broken) < len(outputs):
            logger.info("The drawings are in %s", args.output)
    num_asked = len(pictures) + len(skipped) - sum(path in outputs for path in skipped)
    if skipped:
        logger.error("%d of %d inputs were skipped: %s", len(skipped), num_asked, ", ".join(skipped))
    return 1 if skipped else 0


if __name__ == "__main__":
    with exit_on_user_error():
        status = main()
    sys.exit(status)
