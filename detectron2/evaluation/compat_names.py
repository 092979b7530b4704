"""Names that other people's code takes from modules of this package, and that nothing of ours uses.

Shapes: G ground-truth boxes of all images that count, T IoU thresholds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from detectron2.config.config.node import CfgNode
from detectron2.data.catalog import MetadataCatalog
from detectron2.data.datasets.coco.export import convert_to_coco_json
from detectron2.layers.rotated_boxes import pairwise_iou_rotated
from detectron2.structures.boxes import Boxes, BoxMode, pairwise_iou
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table, log_every_n_seconds
from detectron2.utils.offer import offer
from detectron2.utils.user_errors import UserKeyError, near

from .coco_evaluation.predictions import instances_to_coco_json
from .coco_evaluation.proposal_recall import best_coverage
from .evaluator import DatasetEvaluator
from .lvis_evaluation import score_lvis
from .tables import format_rows

logger = logging.getLogger(__name__)

_LARGEST = 1e5**2
_AREAS = {
    "all": (0.0, _LARGEST),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, _LARGEST),
    "96-128": (96.0**2, 128.0**2),
    "128-256": (128.0**2, 256.0**2),
    "256-512": (256.0**2, 512.0**2),
    "512-inf": (512.0**2, _LARGEST),
}
_LVIS_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")


def _evaluate_box_proposals(
    dataset_predictions: Sequence[Mapping[str, Any]],
    coco_api: Any,
    thresholds: Tensor | None = None,
    area: str = "all",
    limit: int | None = None,
) -> dict[str, Any]:
    """Recall of proposals, whatever their class.

    Args:
        dataset_predictions: entries with `image_id` and `proposals`.
        coco_api: the ground truth, an object of pycocotools or of the package lvis.
        thresholds: (T,) IoU; 0.5, 0.55 ... 0.95 when None.
        area: "all", "small", "medium", "large", or a range of side lengths such as "96-128".
        limit: proposals of an image that count; all when None.

    Returns:
        `ar`, `recalls` (T,), `thresholds` (T,), `gt_overlaps` (G,) ascending, and `num_pos`, which is G.
    """
    if area not in _AREAS:
        raise UserKeyError(f"area must be one of {', '.join(_AREAS)}, got {area!r}.{near(area, _AREAS)}")
    overlaps = [torch.zeros(0)]
    for entry in dataset_predictions:
        objects = [o for o in _annotations(coco_api, entry["image_id"]) if not o.get("iscrowd", 0)]
        if objects:
            boxes = [BoxMode.convert(o["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) for o in objects]
            areas = torch.tensor([float(o["area"]) for o in objects])
            proposals = entry["proposals"]
            count = len(proposals) if limit is None else limit
            overlaps.append(
                best_coverage(proposals, torch.tensor(boxes, dtype=torch.float32), areas, _AREAS[area], count)
            )
    gt_overlaps = torch.cat(overlaps).sort().values
    if thresholds is None:
        thresholds = torch.arange(0.5, 0.95 + 1e-5, 0.05, dtype=torch.float32)
    recalls = (gt_overlaps[None] >= thresholds[:, None]).float().sum(dim=1) / len(gt_overlaps)
    return {
        "ar": recalls.mean(),
        "recalls": recalls,
        "thresholds": thresholds,
        "gt_overlaps": gt_overlaps,
        "num_pos": len(gt_overlaps),
    }


def _annotations(api: Any, image_id: int) -> list[dict[str, Any]]:
    """The annotations of an image; the two packages spell the same questions differently."""
    is_lvis = hasattr(api, "get_ann_ids")
    ids = api.get_ann_ids(img_ids=[image_id]) if is_lvis else api.getAnnIds(imgIds=image_id)
    found: list[dict[str, Any]] = api.load_anns(ids) if is_lvis else api.loadAnns(ids)
    return found


def _evaluate_predictions_on_lvis(
    lvis_gt: Any,
    lvis_results: Sequence[Mapping[str, Any]],
    iou_type: str,
    max_dets_per_image: int | None = None,
    class_names: Sequence[str] | None = None,
) -> dict[str, float]:
    """Average precisions of LVIS in percent; nan without predictions, -100 without ground truth.

    Args:
        lvis_gt: the ground truth, an object whose `dataset` is in LVIS's layout.
        lvis_results: detections in COCO's layout.
        iou_type: "bbox" or "segm".
        max_dets_per_image: detections of an image that count; 300 when None.
        class_names: accepted, and not used.
    """
    if not lvis_results:
        logger.warning("No predictions from the model!")
        return dict.fromkeys(_LVIS_METRICS, float("nan"))
    limit = 300 if max_dets_per_image is None else max_dets_per_image
    values = score_lvis(lvis_gt.dataset, lvis_results, iou_type, limit, None)
    return {name: 100 * float(values[name]) for name in _LVIS_METRICS}


def _print_panoptic_results(pq_res: Mapping[str, Mapping[str, float]]) -> None:
    """Log panoptic quality as a table.

    Args:
        pq_res: for "All", "Things" and "Stuff" the fractions `pq`, `sq`, `rq`, and `n`, how many classes.
    """
    rows = [
        [group, *(f"{100 * pq_res[group][key]:.3f}" for key in ("pq", "sq", "rq")), str(pq_res[group]["n"])]
        for group in ("All", "Things", "Stuff")
    ]
    logger.info("Panoptic Evaluation Results:\n%s", format_rows(["", "PQ", "SQ", "RQ", "#categories"], rows))


offer("detectron2.evaluation", lazily={"fast_eval_api": "detectron2.evaluation.fast_eval_api"})
offer(
    "detectron2.evaluation.coco_evaluation",
    BoxMode,
    Boxes,
    CfgNode,
    DatasetEvaluator,
    _evaluate_box_proposals,
    comm,
    convert_to_coco_json,
    create_small_table,
    pairwise_iou,
    MetadataCatalog=MetadataCatalog,
    lazily={
        "COCO": "pycocotools.coco:COCO",
        "COCOeval_opt": "detectron2.evaluation.fast_eval_api:COCOeval_opt",
    },
)
offer("detectron2.evaluation.evaluator", log_every_n_seconds)
offer(
    "detectron2.evaluation.lvis_evaluation",
    BoxMode,
    Boxes,
    CfgNode,
    DatasetEvaluator,
    _evaluate_box_proposals,
    _evaluate_predictions_on_lvis,
    comm,
    create_small_table,
    instances_to_coco_json,
    pairwise_iou,
    MetadataCatalog=MetadataCatalog,
)
offer(
    "detectron2.evaluation.panoptic_evaluation",
    DatasetEvaluator,
    _print_panoptic_results,
    comm,
    MetadataCatalog=MetadataCatalog,
)
offer("detectron2.evaluation.rotated_coco_evaluation", pairwise_iou_rotated)
offer(
    "detectron2.evaluation.sem_seg_evaluation",
    comm.all_gather,
    comm.is_main_process,
    comm.synchronize,
)
