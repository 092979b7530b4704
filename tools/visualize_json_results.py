#!/usr/bin/env python
"""Draw the detections of a COCO result file beside the ground truth.

tools/visualize_json_results.py --input output/inference/coco_instances_results.json --output out/
    --dataset coco_2017_val
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import tqdm
from PIL import Image
from tqdm.contrib.logging import logging_redirect_tqdm

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.data.detection_utils import read_image
from detectron2.structures import Boxes, BoxMode, Instances, rle
from detectron2.utils.file_io import PathManager, atomic_write
from detectron2.utils.logger import setup_logger
from detectron2.utils.paths import FreshNames
from detectron2.utils.user_errors import UserValueError, exit_on_user_error
from detectron2.visualization.comparison import side_by_side
from detectron2.visualization.visualizer import Visualizer

logger = logging.getLogger("detectron2.tools.visualize_json_results")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--input", required=True, metavar="FILE", help="result file, as COCOEvaluator writes it"
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder of the drawings")
    parser.add_argument("--dataset", default="coco_2017_val", help="name of the data set")
    parser.add_argument("--conf-threshold", type=float, default=0.5, help="lowest score to be drawn")
    parser.add_argument(
        "--color-by",
        choices=["class", "instance"],
        default="class",
        help="one colour for a class, or a shade of it for each instance",
    )
    return parser.parse_args(argv)


def to_instances(
    entries: Sequence[Mapping[str, Any]],
    image_size: tuple[int, int],
    class_of: Mapping[int, int],
    conf_threshold: float,
) -> Instances:
    """Turn the result entries of one picture back into predictions.

    Args:
        image_size: (height, width).
        class_of: category id of the data set to the model's class.
        conf_threshold: entries of lower score are left out.
    """
    chosen = [entry for entry in entries if entry["score"] >= conf_threshold]
    instances = Instances(image_size)
    boxes = torch.tensor([entry["bbox"] for entry in chosen], dtype=torch.float32).reshape(-1, 4)
    instances.pred_boxes = Boxes(torch.as_tensor(BoxMode.convert(boxes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)))
    instances.scores = torch.tensor([entry["score"] for entry in chosen])
    instances.pred_classes = torch.tensor(
        [class_of[entry["category_id"]] for entry in chosen], dtype=torch.int64
    )
    if chosen and all("segmentation" in entry for entry in chosen):
        masks = [rle.decode(entry["segmentation"]) for entry in chosen]
        instances.pred_masks = torch.from_numpy(np.stack(masks))
    if chosen and all("keypoints" in entry for entry in chosen):
        points = torch.tensor([entry["keypoints"] for entry in chosen]).unflatten(1, (-1, 3))
        instances.pred_keypoints = points + torch.tensor(
            [0.5, 0.5, 0.0]
        )  # the evaluator took half a pixel off
    return instances


def class_mapping(metadata: Metadata, entries: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Category id of the data set to class; every id in the result file is in it."""
    known = metadata.get("thing_dataset_id_to_contiguous_id")
    used = {entry["category_id"] for entry in entries}
    mapping = dict(known) if known is not None else {category: category for category in used}
    if used - mapping.keys():
        raise UserValueError(
            f"the result file has category id {min(used - mapping.keys())}, which '{metadata.name}' lacks; "
            "name the data set that was evaluated with --dataset"
        )
    return mapping


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    setup_logger()
    with PathManager.open(args.input, "r") as file:
        entries = json.load(file)
    entries_of: defaultdict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in entries:
        entries_of[entry["image_id"]].append(entry)
    records = DatasetCatalog.get(args.dataset)
    metadata = MetadataCatalog.get(args.dataset)
    class_of = class_mapping(metadata, entries)
    names = FreshNames()
    with logging_redirect_tqdm([logging.getLogger("detectron2")]):
        for record in tqdm.tqdm(records, unit="picture"):
            try:
                picture = read_image(record["file_name"], format="RGB")
            except (OSError, ValueError) as error:
                logger.error("Skipped %s: %s", record["file_name"], error)
                continue
            found = to_instances(
                entries_of[record["image_id"]], picture.shape[:2], class_of, args.conf_threshold
            )
            predicted, truth = (Visualizer(picture, metadata, color_by=args.color_by) for _ in range(2))
            instances = {"annotations": record.get("annotations", [])}  # a result file knows no stuff
            sheet = side_by_side(
                [
                    ("prediction", predicted.draw_instance_predictions(found).get_image()),
                    ("ground truth", truth.draw_dataset_dict(instances).get_image()),
                ]
            )
            name = names.take(os.path.splitext(os.path.basename(record["file_name"]))[0] + ".png")
            with atomic_write(os.path.join(args.output, name)) as file:
                Image.fromarray(sheet).save(file, format="PNG")
    logger.info("The drawings are in %s", args.output)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
