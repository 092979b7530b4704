"""COCO's average precision with the overlap of rotated boxes.

Shapes: D detections, G objects of one image and class. Rotated boxes are XYWHA (degrees, counter-clockwise),
upright ones XYWH, in pixels of the original image.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from detectron2.evaluation.coco_evaluation.evaluator import COCOEvaluator
from detectron2.evaluation.coco_evaluation.scoring import evaluate_predictions_on_coco
from detectron2.structures.boxes import BoxMode
from detectron2.structures.instances import Instances
from detectron2.structures.rotated_boxes import RotatedBoxes, pairwise_iou
from detectron2.utils.user_errors import UserValueError

__all__ = ["RotatedCOCOEvaluator", "RotatedCOCOeval"]


class RotatedCOCOeval(COCOeval):  # type: ignore[misc]  # pycocotools has no types
    """`COCOeval` for boxes of five numbers; where only one side has those, the other gets the angle 0."""

    @staticmethod
    def is_rotated(box_list: Any) -> bool:
        """Tell whether the boxes, a list or an array, have five numbers each; False where there is none."""
        return len(box_list) > 0 and all(len(box) == 5 for box in box_list)

    @staticmethod
    def boxlist_to_tensor(boxlist: Any, output_box_dim: int) -> Tensor:
        """Turn boxes into one float tensor.

        Args:
            boxlist: boxes of 4 or 5 numbers: a list or an array.
            output_box_dim: 4 or 5.

        Returns:
            (number of boxes, output_box_dim).

        Raises:
            ValueError: a rotated box cannot be written with 4 numbers.
        """
        if output_box_dim not in (4, 5):
            raise UserValueError(f"output_box_dim should be 4 (XYWH) or 5 (XYWHA), got {output_box_dim}")
        rows = []
        for box in boxlist:
            if len(box) not in (4, output_box_dim):
                raise UserValueError(f"expected boxes of 4 or {output_box_dim} numbers, got {list(box)}")
            is_upright = len(box) == 4 and output_box_dim == 5
            rows.append(
                BoxMode.convert(list(box), BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS) if is_upright else box
            )
        return torch.as_tensor(np.asarray(rows, dtype=np.float64).reshape(-1, output_box_dim)).float()

    def compute_iou_dt_gt(self, dt: Any, gt: Any, is_crowd: Iterable[int]) -> Any:
        """Compute IoUs; for a crowd, the part of the detection that lies in it.

        Args:
            dt, gt: D and G boxes of 4 or 5 numbers.
            is_crowd: G flags.

        Returns:
            (D, G) array.
        """
        detections, objects = (RotatedBoxes(self.boxlist_to_tensor(boxes, 5)) for boxes in (dt, gt))
        iou = pairwise_iou(detections, objects).double()  # (D, G)
        own, other = detections.area().double()[:, None], objects.area().double()
        shared = iou * (own + other) / (1 + iou)
        crowd = torch.tensor([bool(flag) for flag in is_crowd], dtype=torch.bool)
        return torch.where(crowd, shared / own.clamp(min=1e-12), iou).numpy()

    def computeIoU(self, imgId: int, catId: int) -> Any:  # names of the base class
        """Compute the overlaps of one image and category, best detection first."""
        if self.params.iouType != "bbox":
            return super().computeIoU(imgId, catId)
        categories = [catId] if self.params.useCats else self.params.catIds
        objects = [entry for category in categories for entry in self._gts[imgId, category]]
        detections = [entry for category in categories for entry in self._dts[imgId, category]]
        if not objects or not detections:
            return []
        order = np.argsort([-d["score"] for d in detections], kind="stable")[: self.params.maxDets[-1]]
        boxes = [detections[i]["bbox"] for i in order]
        return self.compute_iou_dt_gt(boxes, [o["bbox"] for o in objects], [o["iscrowd"] for o in objects])


class RotatedCOCOEvaluator(COCOEvaluator):
    """`COCOEvaluator` for detectors of rotated boxes; the only task is "bbox".

    Matching is done by `RotatedCOCOeval`, whatever `use_fast_impl` says. The result file has boxes of five
    numbers, XYWHA.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take the arguments of `COCOEvaluator`."""
        super().__init__(*args, **kwargs)
        if self._tasks not in (None, ("bbox",)):
            raise UserValueError(
                f"RotatedCOCOEvaluator scores boxes only: tasks should be ('bbox',), got {self._tasks}"
            )

    def instances_to_json(self, instances: Instances, img_id: int) -> list[dict[str, Any]]:
        """Turn the detections of one image into entries of a COCO result file.

        Args:
            instances: on the CPU, with `pred_boxes` (`RotatedBoxes` or `Boxes`), `scores`, `pred_classes`.
            img_id: the image's id in the data set.
        """
        if not isinstance(instances.pred_boxes, RotatedBoxes):
            return super().instances_to_json(instances, img_id)
        columns: Sequence[Iterable[Any]] = (
            instances.pred_classes.tolist(),
            instances.pred_boxes.tensor.tolist(),
            instances.scores.tolist(),
        )
        return [
            {"image_id": img_id, "category_id": category, "bbox": box, "score": score}
            for category, box, score in zip(*columns)
        ]

    def _tasks_from_predictions(self, predictions: Any) -> tuple[str, ...]:
        return ("bbox",)

    def _match(
        self, entries: Sequence[Mapping[str, Any]], task: str, img_ids: Collection[int] | None
    ) -> COCOeval:
        options = {} if img_ids is None else {"img_ids": img_ids}
        return self._evaluate_predictions_on_coco(self._coco_api, entries, **options)

    def _evaluate_predictions_on_coco(
        self, coco_gt: COCO, coco_results: Sequence[Mapping[str, Any]], **options: Any
    ) -> COCOeval:
        """Match rotated boxes; a step that subclasses may replace."""
        return evaluate_predictions_on_coco(
            coco_gt,
            coco_results,
            "bbox",
            cocoeval_fn=RotatedCOCOeval,
            max_dets_per_image=self._max_dets_per_image,
            **options,
        )
