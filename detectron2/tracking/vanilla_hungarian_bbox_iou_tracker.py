"""Tracking by overlap: as many matches as possible."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectron2.structures.boxes import pairwise_iou
from detectron2.structures.instances import Instances

from .base_tracker import TRACKER_HEADS_REGISTRY
from .hungarian_tracker import BaseHungarianTracker
from .identity_tracker import IOUIdentityTracker
from .utils import LARGE_COST_VALUE, create_prediction_pairs


@TRACKER_HEADS_REGISTRY.register()
class VanillaHungarianBBoxIOUTracker(IOUIdentityTracker, BaseHungarianTracker):
    """Match as many boxes as possible to boxes that they overlap enough, no matter by how much."""

    def build_cost_matrix(self, instances: Instances, prev_instances: Instances) -> np.ndarray:
        """See `BaseHungarianTracker.build_cost_matrix`."""
        no_match = np.full((len(instances), len(prev_instances)), LARGE_COST_VALUE, dtype=np.float64)
        iou = pairwise_iou(instances.pred_boxes, prev_instances.pred_boxes).cpu().numpy()
        pairs = create_prediction_pairs(instances, prev_instances, iou, self._track_iou_threshold)
        return self.assign_cost_matrix_values(no_match, pairs)

    def assign_cost_matrix_values(
        self, cost_matrix: np.ndarray, bbox_pairs: list[dict[str, Any]]
    ) -> np.ndarray:
        """Fill in what the possible matches cost: all the same here.

        Args:
            cost_matrix: (N, M), changed in place.
            bbox_pairs: the possible matches, as from `create_prediction_pairs`.

        Returns:
            The matrix.
        """
        for pair in bbox_pairs:
            cost_matrix[pair["idx"], pair["prev_idx"]] = -1
        return cost_matrix
