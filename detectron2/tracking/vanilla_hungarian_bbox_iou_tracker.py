"""Tracking by overlap: as many matches as possible."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectron2.structures.instances import Instances

from .base_tracker import TRACKER_HEADS_REGISTRY
from .hungarian_tracker import BaseHungarianTracker
from .identity_tracker import IOUIdentityTracker
from .utils import LARGE_COST_VALUE


@TRACKER_HEADS_REGISTRY.register()
class VanillaHungarianBBoxIOUTracker(IOUIdentityTracker, BaseHungarianTracker):
    """Match as many boxes as possible to boxes that they overlap enough, no matter by how much."""

    def build_cost_matrix(self, instances: Instances, prev_instances: Instances) -> np.ndarray:
        """See `BaseHungarianTracker.build_cost_matrix`."""
        no_match = np.full((len(instances), len(prev_instances)), LARGE_COST_VALUE, dtype=np.float64)
        return self.assign_cost_matrix_values(no_match, self._possible_matches(instances, prev_instances))

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
