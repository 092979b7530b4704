"""Tracking by the cheapest assignment of detections to those of the frame before."""

from __future__ import annotations

import numpy as np

from detectron2.structures.instances import Instances
from detectron2.utils.user_errors import UserNotImplementedError

from .assignment import linear_sum_assignment
from .identity_tracker import IdentityTracker
from .utils import LARGE_COST_VALUE


class BaseHungarianTracker(IdentityTracker):
    """Match so that the costs add up to as little as possible; a subclass says what a match costs.

    A pair that costs `LARGE_COST_VALUE` or more is no match, even when nothing else is left for both.
    """

    def build_cost_matrix(self, instances: Instances, prev_instances: Instances) -> np.ndarray:
        """Say what every match would cost.

        Args:
            instances: N detections of this frame.
            prev_instances: M of the frame before, remembered ones included.

        Returns:
            (N, M) finite costs.
        """
        raise UserNotImplementedError(f"{type(self).__name__} does not define build_cost_matrix")

    def _match(self, instances: Instances, prev_instances: Instances) -> dict[int, int]:
        cost = self.build_cost_matrix(instances, prev_instances)
        rows, columns = linear_sum_assignment(cost)
        is_match = cost[rows, columns] < LARGE_COST_VALUE
        return dict(zip(rows[is_match].tolist(), columns[is_match].tolist()))
