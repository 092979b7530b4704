"""The official evaluator with a detection limit of one's own."""

from __future__ import annotations

import numpy as np
from pycocotools.cocoeval import COCOeval

from detectron2.evaluation.coco_evaluation.engine import CocoScores


class COCOevalMaxDets(COCOeval):  # type: ignore[misc]  # pycocotools has no types
    """`COCOeval` whose summary follows `params.maxDets` for AP as well, where the original insists on 100."""

    def summarize(self) -> None:
        """Print the 12 numbers (10 for keypoints) and keep them in `stats`; -1 marks missing ground truth."""
        if not self.eval:
            raise RuntimeError("call accumulate() before summarize()")
        if self.params.iouType == "keypoints":
            super().summarize()
            return
        scores = CocoScores(
            precision=self.eval["precision"],
            recall=self.eval["recall"],
            scores=self.eval["scores"],
            iou_thrs=np.asarray(self.params.iouThrs),
            cat_ids=list(self.params.catIds),
            area_labels=list(self.params.areaRngLbl),
            max_dets=list(self.params.maxDets),
            iou_type=self.params.iouType,
        )
        self.stats = np.nan_to_num(np.asarray(list(scores.metrics().values())), nan=-1.0)
        print(scores.summary())
