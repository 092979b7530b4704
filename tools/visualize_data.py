#!/usr/bin/env python
"""Draw the annotations of a data set, or what the training loader makes of them.

tools/visualize_data.py --source dataloader --config-file configs/Base-RCNN-FPN.yaml --output-dir out/
    --num-images 20 DATASETS.TRAIN "('coco_2017_val',)"
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from detectron2.config import CfgNode, get_cfg
from detectron2.config.model_registry import class_counts
from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_train_loader
from detectron2.data.detection_utils import convert_image_to_rgb, read_image
from detectron2.utils.logger import setup_logger
from detectron2.utils.paths import FreshNames
from detectron2.utils.user_errors import UserValueError, exit_on_user_error
from detectron2.visualization.canvas import VisImage
from detectron2.visualization.class_colors import ColorBy
from detectron2.visualization.inputs import drop_things
from detectron2.visualization.labels import make_labels
from detectron2.visualization.visualizer import Visualizer

logger = logging.getLogger("detectron2.tools.visualize_data")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source",
        choices=["annotation", "dataloader"],
        required=True,
        help="the pictures as they are stored, or as they go into the model, augmented",
    )
    parser.add_argument("--config-file", metavar="FILE", help="the config that names the data sets")
    parser.add_argument("--output-dir", default="./", help="folder of the drawings")
    parser.add_argument("--show", action="store_true", help="open a window for each drawing, write no files")
    parser.add_argument("--num-images", type=int, metavar="N", help="stop after N pictures; else all, once")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the drawings over the pictures'")
    parser.add_argument(
        "--color-by",
        choices=["class", "instance"],
        default="class",
        help="one colour for a class, or a shade of it for each instance",
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys and values")
    return parser.parse_args(argv)


def load_config(args: argparse.Namespace) -> CfgNode:
    cfg = get_cfg()
    if args.config_file:
        cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    if not cfg.DATASETS.TRAIN:
        raise UserValueError(
            "DATASETS.TRAIN names no data set; add for example DATASETS.TRAIN \"('coco_2017_val',)\""
        )
    _fit_class_numbers(cfg)
    cfg.freeze()
    return cfg


def _fit_class_numbers(cfg: CfgNode) -> None:
    """Let the model have the classes of the data, which can be looked at before a model fits them."""
    metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
    for kind, (key, _) in class_counts(cfg).items():
        names = metadata.get(f"{kind}_classes")
        if names is not None:
            cfg.merge_from_list([key, max(len(names), 1)])


def draw_annotations(
    cfg: CfgNode, scale: float, color_by: ColorBy = "class"
) -> Iterator[tuple[str, VisImage]]:
    """Names and drawings of all pictures of the data sets, as they are stored."""
    metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
    for record in itertools.chain.from_iterable(DatasetCatalog.get(name) for name in cfg.DATASETS.TRAIN):
        try:
            picture = read_image(record["file_name"], format="RGB", value_range=cfg.INPUT.VALUE_RANGE)
        except (OSError, ValueError) as error:
            logger.error("Skipped %s: %s", record["file_name"], error)
            continue
        visualizer = Visualizer(picture, metadata, scale=scale, color_by=color_by)
        yield os.path.basename(record["file_name"]), visualizer.draw_dataset_dict(record)


def draw_loaded(cfg: CfgNode, scale: float, color_by: ColorBy = "class") -> Iterator[tuple[str, VisImage]]:
    """Names and drawings of the pictures that the training loader gives, without end."""
    for number, sample in enumerate(itertools.chain.from_iterable(build_detection_train_loader(cfg)), 1):
        name = f"{number:06d}_{os.path.splitext(os.path.basename(sample['file_name']))[0]}.jpg"
        yield name, draw_sample(sample, cfg, scale, color_by)


def draw_sample(
    sample: Mapping[str, Any], cfg: CfgNode, scale: float, color_by: ColorBy = "class"
) -> VisImage:
    """Draw one output of the dataset mapper."""
    metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
    picture = convert_image_to_rgb(sample["image"].permute(1, 2, 0), cfg.INPUT.FORMAT)
    visualizer = Visualizer(picture, metadata, scale=scale, color_by=color_by)
    if "sem_seg" in sample:
        visualizer.draw_sem_seg(drop_things(sample["sem_seg"], metadata), area_threshold=0, alpha=0.5)
    if "instances" not in sample:
        return visualizer.get_output()
    instances = sample["instances"]
    names = metadata.get("thing_classes")
    classes = instances.gt_classes.tolist()
    return visualizer.overlay_instances(
        boxes=instances.gt_boxes if instances.has("gt_boxes") else None,
        masks=instances.gt_masks if instances.has("gt_masks") else None,
        keypoints=instances.gt_keypoints if instances.has("gt_keypoints") else None,
        labels=make_labels(classes, None, names),
        assigned_colors=visualizer.instance_colors(classes),
    )


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    setup_logger()
    cfg = load_config(args)
    total = args.num_images
    if args.source == "annotation":
        drawings = draw_annotations(cfg, args.scale, args.color_by)
    else:
        drawings = draw_loaded(cfg, args.scale, args.color_by)
        if total is None:
            total = sum(len(DatasetCatalog.get(name)) for name in cfg.DATASETS.TRAIN)
    names = FreshNames()
    with logging_redirect_tqdm([logging.getLogger("detectron2")]):
        for name, drawing in tqdm.tqdm(itertools.islice(drawings, total), total=total, unit="picture"):
            if args.show:
                show(drawing)
            else:
                drawing.save(os.path.join(args.output_dir, names.take(name)))
    if not args.show:
        logger.info("The drawings are in %s", args.output_dir)


def show(drawing: VisImage) -> None:
    """Open a window and wait for a key."""
    import cv2

    try:
        cv2.imshow("detectron2", drawing.get_image()[:, :, ::-1])
        cv2.waitKey()
    except cv2.error as error:
        raise UserValueError("OpenCV cannot open a window here; leave --show out to write files") from error


if __name__ == "__main__":
    with exit_on_user_error():
        main()
