"""Tracking by overlap, best overlap first."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectron2.structures.boxes import pairwise_iou
from detectron2.structures.instances import Instances

from .base_tracker import TRACKER_HEADS_REGISTRY
from .identity_tracker import IOUIdentityTracker
from .utils import create_prediction_pairs


@TRACKER_HEADS_REGISTRY.register()
class BBoxIOUTracker(IOUIdentityTracker):
    """Match the pair of boxes with the largest IoU, then the next among those left, and so on."""

    def _match(self, instances: Instances, prev_instances: Instances) -> dict[int, int]:
        iou = pairwise_iou(instances.pred_boxes, prev_instances.pred_boxes).cpu().numpy()
        pairs = self._create_prediction_pairs(instances, iou)
        matches: dict[int, int] = {}
        taken = set()
        for pair in sorted(pairs, key=lambda pair: -pair["IoU"]):
            is_free = pair["idx"] not in matches and pair["prev_idx"] not in taken
            if is_free and pair["IoU"] >= self._track_iou_threshold:
                matches[pair["idx"]] = pair["prev_idx"]
                taken.add(pair["prev_idx"])
        return matches

    def _create_prediction_pairs(self, instances: Instances, iou_all: np.ndarray) -> list[dict[str, Any]]:
        """List pairs with the previous boxes, in the form of `create_prediction_pairs`.

        Args:
            instances: N detections of this frame.
            iou_all: (N, M) IoU with those of the frame before. Pairs below the threshold are never matched.
        """
        return create_prediction_pairs(
            instances, self._require_previous(), iou_all, self._track_iou_threshold
        )

    def _follow(self, instances: Instances, prev_instances: Instances) -> Instances:
        self._reset_fields()
        matches = self._match(instances, prev_instances)
        self._hand_identities_on(instances, matches)
        self._matched_idx.update(matches)
        self._matched_ID.update(prev_instances.ID[prev_index] for prev_index in matches.values())
        self._untracked_prev_idx.difference_update(matches.values())
        return self._merge_untracked_instances(self._assign_new_id(instances))

    def _reset_fields(self) -> None:
        """Forget the matches of the frame before."""
        self._matched_idx, self._matched_ID = set(), set()
        self._untracked_prev_idx = set(range(len(self._require_previous())))

    def _assign_new_id(self, instances: Instances) -> Instances:
        """Give identities to the detections that continue none, in place."""
        self._give_new_identities(instances, sorted(set(range(len(instances))) - self._matched_idx))
        return instances

    def _merge_untracked_instances(self, instances: Instances) -> Instances:
        """Append those of the untracked previous detections that are worth remembering."""
        return self._with_remembered(instances, self._untracked_prev_idx)
