"""Evaluate a share of the real images: `distributed_worker.py RANK WORLD_SIZE MEETING_FILE RESULT_FILE`."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import torch.distributed as dist

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils.panoptic_png import read_panoptic_ids
from detectron2.data.detection_utils.sem_seg import read_sem_seg
from detectron2.evaluation import (
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluators,
    SemSegEvaluator,
    inference_on_dataset,
)
from detectron2.structures import Boxes, BoxMode, Instances

NAME = "coco_2017_val_panoptic_separated"
NUM_IMAGES = 6


def predict(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give back the ground truth, shifted so that it is not perfect."""
    return [_predict_one(record) for record in records]


def _predict_one(record: dict[str, Any]) -> dict[str, Any]:
    objects = [a for a in record["annotations"] if not a["iscrowd"]]
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in objects]
    instances = Instances((record["height"], record["width"]))
    instances.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4) + 3)
    instances.pred_classes = torch.tensor([a["category_id"] for a in objects], dtype=torch.int64)
    instances.scores = torch.linspace(0.9, 0.2, len(objects))
    labels = torch.as_tensor(read_sem_seg(dict(record))).long().roll(9, dims=1)
    num_classes = len(MetadataCatalog.get(NAME).stuff_classes)
    sem_seg = torch.nn.functional.one_hot(labels.clamp(max=num_classes - 1), num_classes).permute(2, 0, 1)
    return {"instances": instances, "sem_seg": sem_seg}


def evaluate(rank: int, world_size: int) -> dict[str, Any]:
    records = DatasetCatalog.get(NAME)[:NUM_IMAGES][rank::world_size]
    evaluators = DatasetEvaluators([COCOEvaluator(NAME), SemSegEvaluator(NAME)])
    return inference_on_dataset(predict, [[record] for record in records], evaluators)


def evaluate_panoptic(rank: int, world_size: int) -> dict[str, Any]:
    name = "coco_2017_val_panoptic"
    records = DatasetCatalog.get(name)[rank::world_size]

    def give_back(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"panoptic_seg": (_ids(r), [_plain_segment(s) for s in r["segments_info"]])} for r in batch]

    return inference_on_dataset(give_back, [[record] for record in records], COCOPanopticEvaluator(name))


def _ids(record: dict[str, Any]) -> torch.Tensor:
    return torch.as_tensor(read_panoptic_ids(record["pan_seg_file_name"]))


def _plain_segment(segment: dict[str, Any]) -> dict[str, Any]:
    return {key: segment[key] for key in ("id", "category_id", "isthing")}


def main() -> None:
    rank, world_size, meeting_file, result_file = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    dist.init_process_group("gloo", init_method=f"file://{meeting_file}", rank=rank, world_size=world_size)
    results = {**evaluate(rank, world_size), **evaluate_panoptic(rank, world_size)}
    with open(result_file, "w") as file:
        json.dump(results, file)
    dist.barrier()  # who leaves first would cut the connection that the other still works on
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
