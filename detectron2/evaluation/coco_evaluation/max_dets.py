"""The official evaluator with a detection limit of one's own."""

from __future__ import annotations

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
        scores = CocoScores.of(self)
        self.stats = scores.stats()
        print(scores.summary())
