"""Two images with three objects, in the form that each evaluator reads, and predictions of them.

Sizes are (height, width); boxes XYXY in pixels. An object is the rectangle inside its box.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
    RotatedCOCOEvaluator,
    SemSegEvaluator,
)
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks, RotatedBoxes

NAME = "contract_set"
SIZE = (64, 80)
CLASSES = ["cat", "dog"]
# Per image: class and box of each object.
OBJECTS: list[list[tuple[int, list[float]]]] = [
    [(0, [4.0, 4.0, 34.0, 44.0]), (1, [40.0, 10.0, 76.0, 60.0])],
    [(1, [10.0, 20.0, 50.0, 50.0])],
]
Predictions = list[dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """An evaluator, what a model was given, and what it says when it knows all and when it knows nothing."""

    evaluator: DatasetEvaluator
    inputs: list[dict[str, Any]]
    truth: Predictions
    nothing: Predictions
    perfect: dict[str, dict[str, float]]
    """Scores of the truth, among others."""


def _corners(box: list[float]) -> list[float]:
    x0, y0, x1, y1 = box
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def _inputs() -> list[dict[str, Any]]:
    return [
        {"image_id": number, "file_name": f"{number}.jpg", "height": SIZE[0], "width": SIZE[1]}
        for number in range(len(OBJECTS))
    ]


def instances_of(objects: list[tuple[int, list[float]]], *, rotated: bool = False) -> Instances:
    """What a perfect detector says; without objects what it says of an empty image."""
    boxes = torch.tensor([box for _, box in objects]).reshape(-1, 4)
    polygons = PolygonMasks([[np.array(_corners(box))] for _, box in objects])
    masks = BitMasks.from_polygon_masks(polygons, *SIZE).tensor if objects else torch.zeros(0, *SIZE).bool()
    instances = Instances(
        SIZE,
        pred_boxes=_rotated(boxes) if rotated else Boxes(boxes),
        scores=torch.linspace(0.9, 0.8, len(objects)),
        pred_classes=torch.tensor([c for c, _ in objects], dtype=torch.int64),
    )
    if not rotated:
        instances.pred_masks = masks
    return instances


def _rotated(boxes: torch.Tensor) -> RotatedBoxes:
    centers, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    return RotatedBoxes(torch.cat([centers, sizes, torch.full((len(boxes), 1), 20.0)], dim=1))


def _detections(rotated: bool = False) -> tuple[Predictions, Predictions]:
    truth = [{"instances": instances_of(objects, rotated=rotated)} for objects in OBJECTS]
    return truth, [{"instances": instances_of([], rotated=rotated)} for _ in OBJECTS]


def _records(rotated: bool = False) -> list[dict[str, Any]]:
    records = _inputs()
    for record, objects in zip(records, OBJECTS):
        record["annotations"] = [
            {
                "bbox": box,
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": c,
                "iscrowd": 0,
                "segmentation": [_corners(box)],
            }
            for c, box in objects
        ]
        if rotated:
            for annotation in record["annotations"]:
                annotation["bbox"] = _rotated(torch.tensor([annotation["bbox"]])).tensor[0].tolist()
                annotation["bbox_mode"] = BoxMode.XYWHA_ABS
                del annotation["segmentation"]
    return records


def _coco(folder: Path) -> Case:
    DatasetCatalog.register(NAME, _records)
    MetadataCatalog.get(NAME).set(thing_classes=CLASSES)
    evaluator = COCOEvaluator(NAME, ("bbox", "segm"), output_dir=str(folder))
    return Case(evaluator, _inputs(), *_detections(), {"bbox": {"AP": 100}, "segm": {"AP": 100}})


def _several(folder: Path) -> Case:
    case = _coco(folder)
    return Case(DatasetEvaluators([case.evaluator]), case.inputs, case.truth, case.nothing, case.perfect)


def _rotated_coco(folder: Path) -> Case:
    DatasetCatalog.register(NAME, lambda: _records(rotated=True))
    MetadataCatalog.get(NAME).set(thing_classes=CLASSES)
    evaluator = RotatedCOCOEvaluator(NAME, output_dir=str(folder))
    return Case(evaluator, _inputs(), *_detections(rotated=True), {"bbox": {"AP": 100}})


def _lvis(folder: Path) -> Case:
    annotations = [
        {
            "id": 10 * number + index + 1, "image_id": number, "category_id": c + 1,
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "area": (box[2] - box[0]) * (box[3] - box[1]), "segmentation": [_corners(box)],
        }
        for number, objects in enumerate(OBJECTS) for index, (c, box) in enumerate(objects)
    ]  # fmt: skip
    images = [
        {"id": image["image_id"], "height": SIZE[0], "width": SIZE[1], "neg_category_ids": [],
         "not_exhaustive_category_ids": [], "coco_url": f"http://x/val2017/{image['image_id']}.jpg"}
        for image in _inputs()
    ]  # fmt: skip
    categories = [
        {"id": c + 1, "name": name, "synonyms": [name], "frequency": "f", "image_count": 2}
        for c, name in enumerate(CLASSES)
    ]
    path = folder / "lvis.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    MetadataCatalog.get(NAME).set(json_file=str(path), thing_classes=CLASSES)
    evaluator = LVISEvaluator(NAME, ("bbox", "segm"), output_dir=str(folder))
    return Case(evaluator, _inputs(), *_detections(), {"bbox": {"AP": 100}, "segm": {"AP": 100}})


def _voc(folder: Path) -> Case:
    for name in ("Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    inputs = [{"image_id": f"{number:06d}"} for number in range(len(OBJECTS))]
    (folder / "ImageSets/Main/val.txt").write_text("".join(f"{image['image_id']}\n" for image in inputs))
    for image, objects in zip(inputs, OBJECTS):
        xml = "".join(
            f"<object><name>{CLASSES[c]}</name><pose>Left</pose><truncated>0</truncated><difficult>0</difficult>"
            f"<bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"
            "</object>"
            for c, (x0, y0, x1, y1) in objects
        )
        (folder / f"Annotations/{image['image_id']}.xml").write_text(f"<annotation>{xml}</annotation>")
    MetadataCatalog.get(NAME).set(dirname=str(folder), split="val", year=2012, thing_classes=CLASSES)
    return Case(PascalVOCDetectionEvaluator(NAME), inputs, *_detections(), {"bbox": {"AP": 100, "AP50": 100}})


def _label_map(
    objects: list[tuple[int, list[float]]], labels: Callable[[int, int], int], rest: int
) -> np.ndarray:
    """(H, W) with `labels(index, class)` on each object and `rest` elsewhere."""
    found = np.full(SIZE, rest, dtype=np.int64)
    for index, (c, box) in enumerate(objects):
        x0, y0, x1, y1 = map(int, box)
        found[y0:y1, x0:x1] = labels(index, c)
    return found


def _one_hot(labels: np.ndarray, number: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.as_tensor(labels), number).permute(2, 0, 1).float()


def _sem_seg(folder: Path) -> Case:
    """Stuff: grass, and a class for each kind of object. Who knows nothing says grass everywhere."""
    maps = [_label_map(objects, lambda _, c: c + 1, 0) for objects in OBJECTS]
    records = _inputs()
    for record, labels in zip(records, maps):
        record["sem_seg_file_name"] = str(folder / f"{record['image_id']}.png")
        Image.fromarray(labels.astype(np.uint8)).save(record["sem_seg_file_name"])
    DatasetCatalog.register(NAME, lambda: records)
    MetadataCatalog.get(NAME).set(stuff_classes=["grass", *CLASSES], ignore_label=255)
    truth = [{"sem_seg": _one_hot(labels, 3)} for labels in maps]
    nothing = [{"sem_seg": _one_hot(np.zeros_like(labels), 3)} for labels in maps]
    evaluator = SemSegEvaluator(NAME, output_dir=str(folder))
    return Case(evaluator, _inputs(), truth, nothing, {"sem_seg": {"mIoU": 100, "pACC": 100}})


def _panoptic(folder: Path) -> Case:
    """Things 1 and 2 and the stuff 9; contiguous ids from 0."""
    (folder / "png").mkdir()
    images, annotations, truth, nothing = [], [], [], []
    for image, objects in zip(_inputs(), OBJECTS):
        labels = _label_map(objects, lambda index, _: index + 1, 100)
        colours = np.stack([labels, np.zeros_like(labels), np.zeros_like(labels)], axis=-1).astype(np.uint8)
        Image.fromarray(colours).save(folder / "png" / f"{image['image_id']}.png")
        segments = [{"id": i + 1, "category_id": c, "isthing": True} for i, (c, _) in enumerate(objects)]
        segments.append({"id": 100, "category_id": 0, "isthing": False})
        truth.append({"panoptic_seg": (torch.as_tensor(labels), segments)})
        nothing.append({"panoptic_seg": (torch.zeros(SIZE, dtype=torch.int64), [])})
        own_ids = [9 if not s["isthing"] else s["category_id"] + 1 for s in segments]
        infos = [
            {"id": s["id"], "category_id": own, "iscrowd": 0, "area": int((labels == s["id"]).sum())}
            for s, own in zip(segments, own_ids)
        ]
        images.append(
            {"id": image["image_id"], "file_name": image["file_name"], "height": SIZE[0], "width": SIZE[1]}
        )
        annotations.append(
            {"image_id": image["image_id"], "file_name": f"{image['image_id']}.png", "segments_info": infos}
        )
    categories = [{"id": c + 1, "name": name, "isthing": 1} for c, name in enumerate(CLASSES)]
    categories.append({"id": 9, "name": "grass", "isthing": 0})
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "panoptic.json").write_text(json.dumps(content))
    MetadataCatalog.get(NAME).set(
        panoptic_json=str(folder / "panoptic.json"), panoptic_root=str(folder / "png"),
        thing_dataset_id_to_contiguous_id={1: 0, 2: 1}, stuff_dataset_id_to_contiguous_id={9: 0},
    )  # fmt: skip
    perfect = {"panoptic_seg": {"PQ": 100, "SQ": 100, "RQ": 100, "PQ_th": 100, "PQ_st": 100}}
    return Case(COCOPanopticEvaluator(NAME, str(folder / "out")), _inputs(), truth, nothing, perfect)


def _cityscapes(folder: Path) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Cars (26) and people (24) on a road (7), as the scripts of Cityscapes read them."""
    (folder / "ulm").mkdir()
    inputs, maps = [], []
    for number, objects in enumerate(OBJECTS):
        scene = f"ulm_{number:06d}_000019"
        ids = _label_map(objects, lambda index, c: (26, 24)[c] * 1000 + index, 7)
        labels = np.where(ids >= 1000, ids // 1000, ids)
        Image.fromarray(ids.astype(np.uint16)).save(folder / f"ulm/{scene}_gtFine_instanceIds.png")
        Image.fromarray(labels.astype(np.uint8)).save(folder / f"ulm/{scene}_gtFine_labelIds.png")
        (folder / f"ulm/{scene}_gtFine_polygons.json").write_text(json.dumps({"objects": []}))
        inputs.append({"file_name": f"images/{scene}_leftImg8bit.png"})
        maps.append(labels)
    things = [category["name"] for category in CITYSCAPES_CATEGORIES if category["isthing"]]
    MetadataCatalog.get(NAME).set(gt_dir=str(folder), thing_classes=things)
    return inputs, maps


def _cityscapes_instances(folder: Path) -> Case:
    inputs, _ = _cityscapes(folder)
    truth, nothing = _detections()
    for output in truth:
        output["instances"].pred_classes = torch.tensor([2, 0])[
            output["instances"].pred_classes
        ]  # car, person
    return Case(CityscapesInstanceEvaluator(NAME), inputs, truth, nothing, {"segm": {"AP": 100, "AP50": 100}})


def _cityscapes_sem_seg(folder: Path) -> Case:
    inputs, maps = _cityscapes(folder)
    ids = [category["id"] for category in sorted(CITYSCAPES_CATEGORIES, key=lambda c: c["trainId"])]
    truth = [{"sem_seg": torch.stack([torch.as_tensor(labels == i) for i in ids]).float()} for labels in maps]
    nothing = [{"sem_seg": torch.zeros(len(ids), *SIZE).index_fill_(0, torch.tensor([10]), 1)} for _ in maps]
    return Case(CityscapesSemSegEvaluator(NAME), inputs, truth, nothing, {"sem_seg": {"IoU": 100}})


CASES: dict[str, Callable[[Path], Case]] = {
    "COCOEvaluator": _coco,
    "COCOPanopticEvaluator": _panoptic,
    "CityscapesInstanceEvaluator": _cityscapes_instances,
    "CityscapesSemSegEvaluator": _cityscapes_sem_seg,
    "DatasetEvaluators": _several,
    "LVISEvaluator": _lvis,
    "PascalVOCDetectionEvaluator": _voc,
    "RotatedCOCOEvaluator": _rotated_coco,
    "SemSegEvaluator": _sem_seg,
}
